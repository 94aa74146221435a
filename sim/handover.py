"""What a hand-over strategy does to a motion when plans come late: seams, tracking, success.

Lock-step with simulated latency: one plan in the making at a time, and an answer acts `latency` after its observation.
`measure_plans` drives the executor and an ideal arm by plans cut from a recorded or drawn motion, which disagree as a
policy's do; `measure_recorded` drives a simulator by plans cut so from a demonstration of the same scene, and
`measure_policy` by a policy. Each time the reference is looked at each millisecond.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from e0_policy.embodiment import Embodiment, load_embodiment
from e0_policy.types import ActionChunk, FloatArray, NoChunk, Observation, Stale
from e0_ros.core.chunk_executor import ChunkExecutor
from e0_ros.core.command import Command
from e0_ros.core.executor_types import ExecutorConfig, Mode, Status
from e0_ros.core.plan_keeper import InForce
from sim.adapter import SimAdapter
from sim.direct import START_NS, DirectLoop
from sim.judge import Judge
from sim.sources import Source

MS = 1_000_000
TICK_NS = 50 * MS
SEAM_NS = 150 * MS
HORIZON, EVERY_NS = 16, 200 * MS
_DISAGREE_RAD = 0.02
_SESSION = "direct"


@dataclass(frozen=True)
class Figures:
    """What one run came to.

    Attributes:
        seam_jerk: root mean square over time and joints, within `SEAM_NS` after each hand-over [rad/s^3].
        other_jerk: the same elsewhere.
        error_mrad: root mean square over time and joints: reference against motion (plans), arm against reference
            (in a simulator).
        held: share of the time that the executor held.

    """

    strategy: str
    latency_ms: int
    seed: int
    seam_jerk: float
    other_jerk: float
    error_mrad: float
    held: float
    plans: int
    violations: int
    success: bool | None = None


class Onlooker:
    """The reference each millisecond, where plans were handed over, and how far off something was."""

    def __init__(self) -> None:
        self._acceleration: list[FloatArray] = []
        self._seam: list[FloatArray] = []
        self._errors: list[FloatArray] = []
        self._sequence, self._seam_ns, self.plans, self._held, self._ticks = 0, -SEAM_NS, 0, 0, 0

    def see(self, now_ns: int, command: Command, status: Status, off: FloatArray | None = None) -> None:
        """Take the command of a tick, which acts until the next one, and errors `(m, joints)` [rad], if any."""
        times = now_ns + MS * np.arange(TICK_NS // MS)
        sequence = status.chunk.sequence if status.chunk else 0
        if sequence and sequence != self._sequence:
            self.plans += 1
            self._seam_ns = now_ns if self._sequence else -SEAM_NS
        self._sequence = sequence or self._sequence
        self._acceleration.append(command.sample(times).acceleration)
        self._seam.append(times - self._seam_ns < SEAM_NS)
        self._ticks += 1
        self._held += status.mode is Mode.HOLD
        if off is not None:
            self._errors.append(off)

    def figures(self, strategy: str, latency_ms: int, seed: int, violations: int, success: bool | None) -> Figures:
        """The run as figures."""
        jerk = np.diff(np.concatenate(self._acceleration), axis=0) * 1e3
        seam, errors = np.concatenate(self._seam)[1:], np.concatenate(self._errors)
        return Figures(
            strategy, latency_ms, seed, _rms(jerk[seam]), _rms(jerk[~seam]), 1e3 * _rms(errors),
            self._held / self._ticks, self.plans, violations, success,
        )  # fmt: skip


def thinking_ns(latency_ms: int) -> int:
    """From one observation that is planned from to the next at the earliest: the executor has told of the answer."""
    return (-(-latency_ms * MS // TICK_NS) + 1) * TICK_NS if latency_ms else 0


def _rms(values: FloatArray) -> float:
    return float(np.sqrt(np.mean(values**2))) if values.size else float("nan")


# -- plans of a motion -------------------------------------------------------------------------------------------------


def drawn_motion(arm: Embodiment, seed: int, seconds: float = 8.0) -> FloatArray:
    """Rows `(n, joints)` [rad], 50 ms apart: a sum of three slow waves per joint that starts at rest at home."""
    rng, t = np.random.default_rng(seed), np.arange(0.0, seconds, TICK_NS / 1e9)[:, None]
    offsets = np.zeros((len(t), arm.joints))
    for hz in (0.15, 0.35, 0.6):
        amplitude = rng.uniform(0.02, 0.12, arm.joints) / (1 + 2 * hz) * rng.choice([-1.0, 1.0], arm.joints)
        offsets += amplitude * (1.0 - np.cos(2 * np.pi * hz * t))
    rows: FloatArray = arm.home + offsets
    return rows


class Planner:
    """Plans along a motion: each is off by up to 20 mrad at its last row, another way each time.

    `motion` has rows `(n, joints + 1)`, the gripper's opening last, `TICK_NS` apart from `begins_ns` on; before, its
    first row counts, and behind it its last.

    Where it continues the plan in force, rows up to `committed_ns` are that plan's, and what they are off fades out
    over the rest, as with a policy that predicts behind committed rows.
    """

    def __init__(
        self, arm: Embodiment, motion: FloatArray, seed: int, continues: bool, begins_ns: int = START_NS
    ) -> None:
        self._arm, self._motion, self._continues, self._begins_ns = arm, motion, continues, begins_ns
        self._rng, self.sequence = np.random.default_rng([seed, 1]), 0

    def plan(self, now_ns: int, in_force: ActionChunk | None, committed_ns: int) -> ActionChunk:
        """The plan made from what is seen now."""
        first, i = (now_ns - self._begins_ns) // TICK_NS, np.arange(HORIZON)
        meant = self._motion[np.clip(first + i, 0, len(self._motion) - 1)]
        rows, gripper = meant[:, :-1], meant[:, -1]
        own = self._rng.uniform(-_DISAGREE_RAD, _DISAGREE_RAD, self._arm.joints)
        share = (i / (HORIZON - 1))[:, None]
        if self._continues and in_force is not None:
            old = in_force.rows[np.minimum((now_ns - in_force.t0_ns) // TICK_NS + i, len(in_force.rows) - 1), :-1]
            fixed = min((committed_ns - now_ns) // TICK_NS, HORIZON - 1)
            share = np.clip((i - fixed) / max(HORIZON - 1 - fixed, 1), 0.0, 1.0)[:, None]
            rows = rows + (1.0 - share) * (old[fixed] - rows[fixed])
            rows[: fixed + 1] = old[: fixed + 1]
        rows = rows + share * own
        self.sequence += 1
        return ActionChunk(
            np.column_stack((rows, gripper)), now_ns, TICK_NS, "policy", _SESSION, self.sequence,
            embodiment=self._arm.name, joint_names=self._arm.joint_names, in_reply_to_ns=now_ns,
        )  # fmt: skip


def measure_plans(name: str, motion: FloatArray, strategy: str, latency_ms: int, seed: int) -> Figures:
    """Drive an ideal arm of embodiment `name` along a motion `(n, joints)`, 50 ms per row."""
    arm, now_ns, free_ns = load_embodiment(name), START_NS, START_NS
    config = ExecutorConfig(embodiment=name, lockstep=True, hand_over=strategy, latency_ms=float(latency_ms))
    executor, onlooker = ChunkExecutor(config), Onlooker()
    rows = np.column_stack((motion, np.ones(len(motion))))
    judge, planner = Judge(arm, motion[0]), Planner(arm, rows, seed, strategy == "committed")
    executor.observe_joints(now_ns, arm.joint_names, motion[0], np.zeros(arm.joints))
    if refusal := executor.arm(now_ns):
        raise ValueError(f"the motion's first row: {refusal.reason}")
    while now_ns < START_NS + (len(motion) - HORIZON) * TICK_NS:
        if now_ns >= free_ns:
            status = executor.status(now_ns)
            executor.offer(planner.plan(now_ns, status.chunk, now_ns + latency_ms * MS), now_ns)
            free_ns = now_ns + max(EVERY_NS, thinking_ns(latency_ms))
        tick = executor.tick(now_ns)
        assert tick.command is not None
        times = now_ns + MS * np.arange(TICK_NS // MS)
        reference = tick.command.sample(times + MS)
        judge.check(times + MS, reference.position)
        meant = _between(motion, times + MS) if now_ns >= START_NS + 1000 * MS else None
        onlooker.see(now_ns, tick.command, tick.status, None if meant is None else reference.position - meant)
        now_ns += TICK_NS
        executor.observe_joints(now_ns, arm.joint_names, reference.position[-1], reference.velocity[-1])
    return onlooker.figures(strategy, latency_ms, seed, judge.violations, None)


def _between(motion: FloatArray, times_ns: FloatArray) -> FloatArray:
    position = (times_ns - START_NS) / TICK_NS
    rows = np.arange(len(motion))
    return np.column_stack([np.interp(position, rows, column) for column in motion.T])


# -- in a simulator ----------------------------------------------------------------------------------------------------


class Fallible(Source, Protocol):
    """A source that says what broke in it; empty: nothing."""

    fault: str


class RecordedPlans:
    """Plans along a demonstration's rows `(n, joints + 1)`, a new one every `EVERY_NS`.

    The demonstration begins when the first plan acts, so that latency delays it and takes nothing from it.
    """

    fault = ""

    def __init__(self, arm: Embodiment, rows: FloatArray, seed: int, latency_ms: int, continues: bool) -> None:
        self._arm, self._rows, self._seed, self._continues = arm, rows, seed, continues
        self._latency_ns = -(-latency_ms * MS // TICK_NS) * TICK_NS
        self.reset("", seed)

    def reset(self, task: str, seed: int) -> None:
        """Begin with the next observation."""
        self._planner: Planner | None = None
        self._plans: dict[int, ActionChunk] = {}
        self._due_ns = 0

    def looks(self, stamp_ns: int) -> bool:
        """It sees nothing."""
        return False

    def answer(self, observation: Observation | Stale, in_force: InForce | None) -> ActionChunk | NoChunk:
        """A plan if one is due."""
        now_ns = observation.stamp_ns
        if self._planner is None:
            begins_ns = now_ns + self._latency_ns
            self._planner = Planner(self._arm, self._rows, self._seed, self._continues, begins_ns)
        if now_ns < self._due_ns:
            return NoChunk(now_ns, "not due", "policy", _SESSION, 0, keep=True)
        followed = self._plans.get(in_force.sequence) if in_force else None
        plan = self._planner.plan(now_ns, followed, now_ns + self._latency_ns)
        self._plans[plan.sequence], self._due_ns = plan, now_ns + EVERY_NS
        return plan

    def close(self) -> None:
        """Nothing to free."""


class Busy:
    """A source that has one plan in the making at a time, and hears of the plan in force only if it continues it."""

    def __init__(self, source: Fallible, latency_ms: int, continues: bool) -> None:
        self._source, self._thinking_ns, self._continues = source, thinking_ns(latency_ms), continues
        self._free_ns = 0

    def reset(self, task: str, seed: int) -> None:
        """Begin an episode."""
        self._source.reset(task, seed)
        self._free_ns = 0

    def looks(self, stamp_ns: int) -> bool:
        """Whether it begins to think about this observation."""
        return stamp_ns >= self._free_ns and self._source.looks(stamp_ns)

    def answer(self, observation: Observation | Stale, in_force: InForce | None) -> ActionChunk | NoChunk:
        """The plan, though it acts only when the latency is over."""
        stamp_ns = observation.stamp_ns
        if stamp_ns < self._free_ns:
            return NoChunk(stamp_ns, "thinking", "policy", _SESSION, 0, keep=True)
        answer = self._source.answer(observation, in_force if self._continues else None)
        if isinstance(answer, ActionChunk):
            self._free_ns = stamp_ns + self._thinking_ns
        elif self._source.fault:
            raise RuntimeError(f"the policy: {self._source.fault}")
        return answer

    def close(self) -> None:
        """Nothing to free."""


def measure_policy(
    adapter: SimAdapter, source: Fallible, task: str, strategy: str, latency_ms: int, seed: int
) -> Figures:
    """One episode of a policy."""
    onlooker = Onlooker()

    def see(now_ns: int, command: Command, status: Status) -> None:
        off = adapter.joint_state()[0] - command.sample(now_ns).position
        onlooker.see(now_ns, command, status, off[None])

    settings = {"hand_over": strategy, "latency_ms": float(latency_ms)}
    loop = DirectLoop(adapter, task, settings, see)
    busy = Busy(source, latency_ms, strategy == "committed")
    busy.reset(task, seed)
    episode = loop.run(task, seed, busy)
    return onlooker.figures(strategy, latency_ms, seed, episode.violations, episode.success)


def measure_recorded(
    adapter: SimAdapter, demonstration: FloatArray, task: str, strategy: str, latency_ms: int, seed: int
) -> Figures:
    """One episode by plans of a demonstration `(n, joints + 1)` of the same scene."""
    arm = load_embodiment(adapter.embodiment)
    source = RecordedPlans(arm, demonstration, seed, latency_ms, strategy == "committed")
    return measure_policy(adapter, source, task, strategy, latency_ms, seed)


Measure = Callable[[str, int, int], Figures]
"""Strategy, latency [ms] and seed to figures."""
