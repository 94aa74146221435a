"""The lock-step graph in one process: the same cores with injected time and no topics.

What a tick does and in which order is told in `ARCHITECTURE.md`, "Time". A test checks that an episode here and over
topics leaves the same `Trace`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from e0_policy.types import ActionChunk, FloatArray, ImageArray, Observation, Stale
from e0_ros.core.camera_model import CameraModel
from e0_ros.core.chunk_executor import ExecutorConfig, Mode
from e0_ros.core.command import Command
from e0_ros.core.executor_types import Status
from e0_ros.core.joint_names import gripper_opening
from e0_ros.core.observation_sync import ObservationSync
from e0_ros.core.pairing import SyncConfig
from e0_ros.core.plan_keeper import InForce
from e0_ros.core.step_executor import make_executor
from sim.adapter import RowAdapter, SimAdapter
from sim.camera_shift import known_offsets
from sim.controllers import Point, Trajectory
from sim.disturbance import Disturbance
from sim.episode import Episode
from sim.rig import JointSample, Rig
from sim.sources import Source
from sim.statistics import rms_jerk
from sim.step_rig import Row, StepRig
from sim.trace import Trace

START_NS = RESET_GAP_NS = 1_000_000_000


UNSEEN: ImageArray = np.zeros((0, 0, 3), np.uint8)
"""Stands for a picture that nobody will look at."""


@dataclass(frozen=True)
class DirectEpisode:
    """What an episode came to.

    Attributes:
        jerk_rad_s3: `rms_jerk` of the commanded positions, every control period.
        first: pictures of the first observation.
        violations: found by the judge; -1 if nobody judged.
        stale: observations that could not be made.
        refused: chunks that the executor refused.
        holds: reasons of its holds.

    """

    success: bool
    steps: int
    max_steps: int
    wall_s: float
    digest: str
    jerk_rad_s3: float
    first: Mapping[str, ImageArray]
    violations: int = -1
    stale: int = 0
    refused: int = 0
    holds: tuple[str, ...] = ()


@dataclass(frozen=True)
class Moment:
    """One tick as an onlooker sees it: what is observed, the cameras, the chunk in force, the executor's mode.

    `row` is the set-point in force from now on, as `e0 convert` takes it for the frame's action, None before the first;
    of a stepped simulator the row of the step that begins, None if it stands. `poses` is privileged.
    """

    step: int
    now_ns: int
    images: Mapping[str, ImageArray]
    joint_positions: FloatArray
    cameras: Mapping[str, CameraModel]
    chunk: ActionChunk | None
    mode: str
    success: bool
    gripper_opening: float = math.nan
    row: FloatArray | None = None
    poses: Mapping[str, FloatArray] = field(default_factory=dict)


@dataclass
class _Run:
    """An episode in progress."""

    episode: Episode
    source: Source
    onlooker: Callable[[Moment], None] | None
    began_s: float = 0.0
    violations: int = 0
    refused: int = 0
    row: FloatArray | None = None
    trace: Trace = field(default_factory=Trace)
    first: Mapping[str, ImageArray] = field(default_factory=dict)
    in_force: InForce | None = None
    stale: int = 0
    holds: list[str] = field(default_factory=list)
    mode: Mode = Mode.ARMED
    offsets: Mapping[str, FloatArray] = field(default_factory=dict)


class DirectLoop:
    """Runs episodes of an adapter with a source, tick by tick.

    Args:
        adapter: the simulator.
        task: the one that it is built for; the adapter's first if empty.
        settings: of the executor, over those of this loop.
        on_command: told of every command with the time of its tick and the executor's state.
        disturbance: of the arm, by name of `Rig`.

    Raises:
        ConfigError: settings that contradict each other.

    """

    def __init__(
        self,
        adapter: SimAdapter | RowAdapter,
        task: str = "",
        settings: Mapping[str, Any] | None = None,
        on_command: Callable[[int, Command, Status], None] | None = None,
        disturbance: Disturbance | None = None,
    ) -> None:
        adapter.reset(task or adapter.tasks[0], 0)
        self.adapter, self._on_command = adapter, on_command
        steps: dict[str, Any] = {}
        if isinstance(adapter, SimAdapter):
            self.rig: Rig | StepRig = Rig(adapter, "joint_trajectory", True, START_NS, disturbance)
        else:
            self.rig, steps = StepRig(adapter, START_NS), {"output": "step", "step_columns": adapter.columns}
        arm = self.rig.arm.name
        own = {"embodiment": arm, "lockstep": True, **steps}
        self._executor = make_executor(ExecutorConfig(**own, **(settings or {})))
        self._sync = ObservationSync(SyncConfig(views=adapter.views, lockstep=True))
        self._samples: list[JointSample] = []

    def run(
        self,
        task: str,
        seed: int,
        source: Source,
        max_steps: int = 0,
        onlooker: Callable[[Moment], None] | None = None,
    ) -> DirectEpisode:
        """Run one episode; the source is already reset to it. Pictures are made when the source or an onlooker looks.

        Raises:
            ValueError: unknown task.
            RuntimeError: the executor cannot be armed, or a tick had no observation.

        """
        rig, began_s = self.rig, time.perf_counter()
        self._executor.disarm()
        scene = rig.reset(task, seed, rig.now_ns + RESET_GAP_NS)
        episode = Episode(scene, 1, max_steps or scene.max_steps)
        self._arm_at(rig.now_ns - rig.adapter.control_period_ns)
        before = began_s, self._violations(), self._executor.status(rig.now_ns).refused
        self._samples = []
        episode.start()
        run = _Run(episode, source, onlooker, *before, offsets=known_offsets(rig.adapter))
        while episode.running:
            self._tick(run)
        return self._result(run)

    def _result(self, run: _Run) -> DirectEpisode:
        """What a run came to."""
        rig, episode = self.rig, run.episode
        return DirectEpisode(
            success=episode.success_once,
            steps=episode.step,
            max_steps=episode.max_steps,
            wall_s=time.perf_counter() - run.began_s,
            digest=run.trace.digest(),
            violations=self._violations() - run.violations,
            jerk_rad_s3=rms_jerk(*run.trace.motion(), rig.adapter.control_period_ns),
            first=run.first,
            stale=run.stale,
            refused=self._executor.status(rig.now_ns).refused - run.refused,
            holds=tuple(run.holds),
        )

    def _violations(self) -> int:
        return self.rig.judge.violations if self.rig.judge else 0

    def _arm_at(self, stamp_ns: int) -> None:
        self._hear([JointSample(stamp_ns, *self.rig.adapter.joint_state())])
        self._sync.add_gripper(stamp_ns, self._opening(), stamp_ns)
        if refusal := self._executor.arm(stamp_ns, stamp_ns):
            raise RuntimeError(f"the executor does not arm: {refusal.reason}")

    def _tick(self, run: _Run) -> None:
        """Observe, answer, command, and advance by one control period; at the end of the episode only observe."""
        rig, episode = self.rig, run.episode
        now_ns, privileged = rig.now_ns, rig.adapter.privileged()
        episode.observe(privileged.success)
        run.trace.scene(now_ns, np.array(list(privileged.poses.values())))
        asked = not episode.done and run.source.looks(now_ns)
        seen = self._observe(now_ns, not run.first or run.onlooker is not None or asked)
        if isinstance(seen, Observation):
            run.first = run.first or seen.views
        if not episode.done:
            self._answer(run, seen, now_ns)
        if run.onlooker and isinstance(seen, Observation):
            status = self._executor.status(now_ns)
            mode = f"{status.mode.name}: {status.reason}" if status.reason else status.mode.name
            what = seen.views, seen.joint_positions, rig.adapter.cameras(), status.chunk, mode, episode.success
            run.onlooker(Moment(episode.step, now_ns, *what, seen.gripper_opening, run.row, privileged.poses))
        if episode.done:
            episode.stop()
            return
        self._samples = rig.advance(now_ns + rig.adapter.control_period_ns).samples
        episode.step += 1

    def _answer(self, run: _Run, seen: Observation | Stale, now_ns: int) -> None:
        """The source's answer, and what the executor makes of it."""
        run.stale += isinstance(seen, Stale)
        if isinstance(seen, Observation):
            arm, text = self.rig.arm, run.episode.scene.instruction
            names = {"embodiment": arm.name, "joint_names": arm.joint_names}
            seen = replace(seen, instruction=text, view_offsets=run.offsets, **names)
        answer = run.source.answer(seen, run.in_force)
        if isinstance(answer, ActionChunk):
            self._executor.offer(answer, now_ns)
        self._move(run, now_ns)

    def _move(self, run: _Run, now_ns: int) -> None:
        """The executor's tick, and what hears of it."""
        rig, tick = self.rig, self._executor.tick(now_ns)
        status = tick.status
        run.in_force = _in_force(status, now_ns)
        if status.mode is Mode.HOLD and run.mode is not Mode.HOLD:
            run.holds.append(status.reason)
        run.mode = status.mode
        run.row = tick.row if isinstance(rig, StepRig) else _row(status, now_ns, run.row)
        if status.reference is not None:
            run.trace.reference(now_ns, status.reference.position)
        if status.mode is not Mode.DISARMED and np.isfinite(status.gripper_opening):
            rig.gripper_target = min(max(status.gripper_opening, 0.0), 1.0)
        if isinstance(rig, StepRig):
            rig.command(Row(now_ns, tick.row), now_ns)
        elif tick.command is not None:
            rig.command(as_trajectory(tick.command, rig.arm.joint_names), now_ns)
            if self._on_command:
                self._on_command(now_ns, tick.command, status)

    def _observe(self, now_ns: int, look: bool) -> Observation | Stale:
        adapter = self.rig.adapter
        if look:
            adapter.start_render()
        self._hear(self._samples or [self.rig.sample()])
        self._sync.add_gripper(now_ns, self._opening(), now_ns)
        images = adapter.finish_render() if look else dict.fromkeys(adapter.views, UNSEEN)
        results = [r for view, image in images.items() for r in self._sync.add_image(view, now_ns, image, now_ns)]
        if len(results) != 1:
            raise RuntimeError(f"{len(results)} observations at {now_ns} ns; a tick has exactly one")
        return results[0]

    def _hear(self, samples: list[JointSample]) -> None:
        for s in samples:
            self._executor.observe_joints(s.stamp_ns, self.rig.arm.joint_names, s.positions, s.velocities)
            self._sync.add_joints(s.stamp_ns, s.positions, s.stamp_ns)

    def _opening(self) -> float:
        """The opening as it arrives over topics: two fingers in metres and back."""
        arm = self.rig.arm
        finger_m = self.rig.adapter.gripper_opening() * (arm.gripper_width_m / 2)
        names = arm.gripper_joint_names
        return gripper_opening(names, [finger_m] * len(names), names, arm.gripper_width_m)


def as_trajectory(command: Command, joint_names: tuple[str, ...]) -> Trajectory:
    """The message of a command as plain values."""
    offsets = (command.times_ns - command.start_ns).tolist()
    points = tuple(Point(offset, q, v, a) for offset, q, v, a in zip(offsets, *command.state, strict=True))
    return Trajectory(command.start_ns, joint_names, points)


def _row(status: Status, now_ns: int, before: FloatArray | None) -> FloatArray | None:
    """The set-point in force from now on: a row of the plan that is followed, else the executor's own reference."""
    chunk = status.chunk
    if status.mode is not Mode.RUNNING or chunk is None:
        known = status.reference is not None and np.isfinite(status.gripper_opening)
        return np.append(status.reference.position, status.gripper_opening) if known else before  # type: ignore[union-attr]
    if status.committed_until_ns > now_ns:
        return before
    row: FloatArray = chunk.rows[min(max((now_ns - chunk.t0_ns) // chunk.period_ns, 0), len(chunk.rows) - 1)]
    return row


def _in_force(status: Status, now_ns: int) -> InForce:
    """What the executor's state says of the plan that it follows."""
    chunk, until_ns = status.chunk, status.committed_until_ns
    if chunk is None:
        return InForce(now_ns, "", "", 0, until_ns, 0)
    return InForce(now_ns, chunk.source, chunk.session, chunk.sequence, until_ns, chunk.t0_ns)
