"""An executor, the arm's controller and the judge, driven by hand: what the executor's tests share."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from e0_policy.embodiment import load_embodiment
from e0_policy.types import ActionChunk, FloatArray
from e0_ros.core.chunk_executor import ChunkExecutor
from e0_ros.core.executor_types import ExecutorConfig, Tick
from sim.controllers import JointTrajectoryController, Point, Trajectory
from sim.judge import Judge, Violation
from sim.judge_workspace import Bounds

MS = 1_000_000
START = 1_000 * MS


class Driven:
    """An ideal arm: it is where the controller's set-point is. `transport_ms` delays each trajectory message.

    With `delay_ms` every message, of either direction, takes as long as it says [ms]; none overtakes another.
    """

    def __init__(
        self,
        transport_ms: int = 1,
        home: FloatArray | None = None,
        delay_ms: Callable[[], float] | None = None,
        **settings,
    ) -> None:
        self.config = ExecutorConfig(**{"source_silence_ms": 60000.0, **settings})
        self.executor = ChunkExecutor(self.config)
        self.arm = load_embodiment(self.config.embodiment)
        self.home = self.arm.home if home is None else home
        self.controller = JointTrajectoryController(self.arm.joint_names, self.home)
        self.judge = Judge(self.arm, self.home, bounds=narrowed(self.arm, self.config))
        self.now_ns = START
        self.delay_ms = delay_ms or (lambda: transport_ms)
        self.measured = delay_ms is not None
        self.arrived_ns = 0
        self.wire: list[tuple[int, Trajectory]] = []
        self.positions = [self.home]
        self.violations: list[Violation] = []
        self.ticks: list[Tick] = []
        self.joints_alive = True
        self.measure()

    def arm_it(self) -> Driven:
        assert self.executor.arm(self.now_ns) is None
        return self

    def measure(self) -> None:
        if self.joints_alive:
            q = self.positions[-1]
            v = (q - self.positions[-2]) * 1e3 if len(self.positions) > 1 else np.zeros_like(q)
            self.executor.observe_joints(self.now_ns, self.arm.joint_names, q, v)
            for _ in range(4 * self.measured):
                self.executor.observe_delay(int(self.delay_ms() * MS), self.now_ns)

    def chunk(self, rows: FloatArray, sequence: int = 0, t0_ns: int | None = None, **fields) -> ActionChunk:
        """A chunk of joint rows `(r, n)` or whole rows `(r, n + 1)`, 20 Hz from the present."""
        rows = np.asarray(rows, np.float64)
        if rows.ndim == 2 and rows.shape[1] == self.arm.joints:
            rows = np.column_stack((rows, np.ones(len(rows))))
        given = {"period_ns": 50 * MS, "source": "policy", "session": "a", "embodiment": self.arm.name}
        given |= {"joint_names": self.arm.joint_names} | fields
        return ActionChunk(rows=rows, t0_ns=self.now_ns if t0_ns is None else t0_ns, sequence=sequence, **given)

    def offer(self, chunk: ActionChunk):
        return self.executor.offer(chunk, self.now_ns)

    def tick(self, held_up: bool = False) -> Tick:
        """One tick; `held_up`: its command could not be sent in time and is withdrawn, as the node does."""
        tick = self.executor.tick(self.now_ns)
        self.ticks.append(tick)
        if tick.command and held_up:
            self.executor.withdraw()
        elif tick.command:
            self.arrived_ns = max(self.arrived_ns, self.now_ns + int(self.delay_ms()) * MS)
            self.wire.append((self.arrived_ns, as_trajectory(tick.command, self.arm.joint_names)))
        return tick

    def play(self, duration_ms: int) -> None:
        """Let the controller run for a time, 1 kHz; messages arrive when they arrive."""
        end_ns = self.now_ns + duration_ms * MS
        while self.now_ns < end_ns:
            while self.wire and self.wire[0][0] <= self.now_ns:
                _, trajectory = self.wire.pop(0)
                rejected = self.controller.accept(trajectory, self.now_ns, self.positions[-1])
                assert rejected == "", rejected
            until_ns = min(end_ns, self.wire[0][0]) if self.wire else end_ns
            times = np.arange(self.now_ns + MS, until_ns + MS, MS)
            q = self.controller.sample(times).positions
            self.violations += self.judge.check(times, q)
            self.positions += list(q)
            self.now_ns = until_ns
        self.measure()

    def run(self, duration_ms: int, tick_ms: int = 4) -> Driven:
        for _ in range(duration_ms // tick_ms):
            self.tick()
            self.play(tick_ms)
        return self

    @property
    def status(self):
        return self.executor.status(self.now_ns)

    @property
    def mode(self) -> str:
        return self.status.mode.name


def narrowed(arm, config: ExecutorConfig) -> Bounds:
    """The workspace that the settings leave, for the judge."""
    return Bounds(
        np.maximum(arm.workspace_lower, config.workspace_lower_m),
        np.minimum(arm.workspace_upper, config.workspace_upper_m),
        np.array(config.table_height_m),
        np.array(min(arm.speed_m_s, config.max_speed_m_s)),
    )


def as_trajectory(command, names: tuple[str, ...]) -> Trajectory:
    offsets = command.times_ns - command.start_ns
    points = (Point(int(t), q, v, a) for t, q, v, a in zip(offsets, *command.state, strict=True))
    return Trajectory(command.start_ns, names, tuple(points))


def wave(d: Driven, t_s, amplitude_rad: float = 0.2, hz: float = 0.5):
    """A smooth motion that starts at rest at home."""
    return d.home + amplitude_rad * (1 - np.cos(2 * np.pi * hz * np.asarray(t_s)))[:, None] * np.ones(d.arm.joints)


def follow(d: Driven, seconds: float = 3.0, every_ms: int = 400, rows: int = 20, **fields) -> None:
    """Offer overlapping chunks of one smooth motion and play them."""
    for k in range(round(seconds * 1000 / every_ms)):
        t_s = (d.now_ns - START) / 1e9 + np.arange(rows) * 0.05
        assert d.offer(d.chunk(wave(d, t_s), sequence=k, **fields)) is None
        d.run(every_ms)
