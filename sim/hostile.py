"""Hostile chunks through the limiter, with the judge watching.

Many arms are driven at once: arms side by side are one arm with more joints to the limiter, which plans each joint by
itself. It gets the rows raw, whatever their numbers, and a new chunk long before the last one is reached. One arm in
four stands in a narrow workspace of its own; the others may reach as far and move as fast as they can.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, fields, replace

import numpy as np

from e0_policy.embodiment import Embodiment, embodiment_names, load_embodiment
from e0_policy.types import FloatArray
from e0_ros.core.command import Command
from e0_ros.core.executor_types import ExecutorConfig
from e0_ros.core.limiter import Limits, brake, legal
from e0_ros.core.reference import RowCurve
from e0_ros.core.workspace import Workspace, plan_inside
from sim.judge import Judge
from sim.judge_workspace import SPHERES, Bounds, Broken, broken, centres

MS = 1_000_000
KINDS = ("anywhere", "bang", "push", "step", "flip", "smooth", "huge", "tiny", "nan", "inf")
_ROWS = 12
_CHANGE = 0.1  # share of arms that get another kind of chunk at each step
_STOP_EVERY = 16
_REST_MS = 700


@dataclass(frozen=True)
class Found:
    """What a run came to: `stop_s` is the longest stop met, by joint, and `stop_limit_s` what full speed would need.

    `kept_in` counts the plans that would have left a workspace.
    """

    chunks: int
    illegal: int
    kept_in: int
    setpoints: int
    cpu_s: float
    stop_s: FloatArray
    stop_limit_s: FloatArray


class HostileRows:
    """Rows for arms side by side. Each arm stays with a kind of chunk for some time, so that speed can build up."""

    def __init__(self, rng: np.random.Generator, arm: Embodiment, copies: int) -> None:
        self._rng, self._copies = rng, copies
        self._low, self._span = arm.position_lower, arm.position_upper - arm.position_lower
        self._kinds = rng.integers(len(KINDS), size=copies)
        self._sides = rng.integers(2, size=(copies, arm.joints))

    def draw(self, rows: int) -> FloatArray:
        """A chunk for each arm, `(rows, copies * joints)` [rad], finite or not."""
        rng, joints = self._rng, len(self._low)
        change = rng.random(self._copies) < _CHANGE
        self._kinds = np.where(change, rng.integers(len(KINDS), size=self._copies), self._kinds)
        self._sides = np.where(change[:, None], rng.integers(2, size=(self._copies, joints)), self._sides)
        random = rng.random((self._copies, rows, joints))
        made = [self._rows(KINDS[k], u, s) for k, u, s in zip(self._kinds, random, self._sides, strict=True)]
        return np.stack(made, axis=1).reshape(rows, -1)

    def _rows(self, kind: str, u: FloatArray, side: FloatArray) -> FloatArray:
        low, span, turn = self._low, self._span, np.arange(len(u))[:, None]
        if kind == "bang":
            return low + span * (u < 0.5)
        if kind == "push":  # beyond the same limit of each joint, again and again
            return low + span * (1.6 * side - 0.3) + np.where(u < 0.2, 1e-3, 0.0)
        if kind == "step":
            return low + span * u[:1] + 0.0 * u
        if kind == "flip":
            return low + span / 2 + 4.0 * u[0] * (-1.0) ** turn
        if kind == "smooth":
            return low + span * (0.5 + 0.5 * np.sin(2 * np.pi * u[0] + 0.3 * turn))
        if kind == "huge":
            return np.where(u < 0.5, -1e308, 1e308)
        if kind == "tiny":
            return low + span * side + 5e-324 * np.round(8 * u - 4)
        broken = {"nan": np.nan, "inf": np.inf}.get(kind)
        return low + span * u if broken is None else np.where(u < 0.1, broken, low + span * u)


def side_by_side(arm: Embodiment, copies: int) -> Embodiment:
    """`copies` arms as one with that many times its joints."""
    vectors = {f.name: np.tile(getattr(arm, f.name), copies) for f in fields(arm) if f.type == "FloatArray"}
    names = tuple(f"{copy}.{name}" for copy in range(copies) for name in arm.joint_names)
    return replace(arm, joint_names=names, **vectors)


def narrow_bounds(rng: np.random.Generator, arm: Embodiment, copies: int) -> Bounds:
    """A workspace for each of arms side by side: the arm's own, or for one in four a narrow one around its home."""
    at = centres(arm.home)
    lower, upper = (at[-1] + side * rng.uniform(0.02, 0.4, (copies, 3)) for side in (-1, 1))
    lowest = (at[:, 2] - np.array([radius for *_, radius in SPHERES])).min()
    table, speed = lowest - rng.uniform(0.02, 0.3, copies), rng.choice([0.1, 0.25, 1.0, arm.speed_m_s], copies)
    free = np.arange(copies) % 4 > 0
    lower[free], upper[free], table[free], speed[free] = arm.workspace_lower, arm.workspace_upper, -2.0, arm.speed_m_s
    return Bounds(lower, upper, table, speed)


def fuzz_limiter(name: str, chunks: int, seed: int, copies: int = 64) -> Found:
    """Drive an arm's limiter by at least `chunks` hostile chunks, a new one every 1 to 60 ms."""
    arm, rng, steps = load_embodiment(name), np.random.default_rng([seed, embodiment_names().index(name)]), 0
    many, config = side_by_side(arm, copies), ExecutorConfig(embodiment=name)
    limits = Limits.of(many, config.velocity_scale, config.acceleration_scale, config.jerk_scale)
    bounds, command, commit_ns = narrow_bounds(rng, arm, copies), Command.rest(many.home, 0), 0
    judge, space, kept_in = Judge(many, many.home, bounds=bounds), Workspace(**vars(bounds)), 0
    hostile, stop_s, illegal, begin = HostileRows(rng, arm, copies), np.zeros(arm.joints), 0, time.process_time()
    with np.errstate(all="ignore"):
        while steps * copies < chunks:
            t0_ns, period_ns = commit_ns - int(rng.integers(50)) * MS, int(rng.choice([2, 20, 50, 67])) * MS
            curve = RowCurve(hostile.draw(int(rng.integers(1, _ROWS))), t0_ns, period_ns)
            command, why = plan_inside(limits, space, command, curve, commit_ns, int(config.span_ms * MS))
            kept_in += sum(map(bool, why))
            until_ns = commit_ns + int(rng.integers(1, 61)) * MS
            if steps % _STOP_EVERY == 0:
                stop = brake(limits, command.sample(until_ns), until_ns)
                illegal += int((~legal(limits, stop)).sum())
                stop_s = np.maximum(stop_s, stop_times(stop).reshape(copies, -1).max(axis=0))
                kept, _ = plan_inside(limits, space, command, None, until_ns, int(config.span_ms * MS))
                illegal += int((~legal(limits, kept)).sum()) + len(leaves(bounds, kept))
            times = np.arange(commit_ns, until_ns, MS)
            judge.check(times, command.positions(times))
            commit_ns, steps = until_ns, steps + 1
        times = commit_ns + MS * np.arange(_REST_MS)
        judge.check(times, command.positions(times))
    bound = arm.velocity / arm.acceleration + arm.acceleration / arm.jerk
    cpu_s = time.process_time() - begin
    return Found(steps * copies, judge.violations + illegal, kept_in, judge.samples * copies, cpu_s, stop_s, bound)


def leaves(bounds: Bounds, command: Command) -> list[Broken]:
    """What a command breaks of the workspaces until it rests, at 500 Hz."""
    times = np.arange(command.start_ns, command.end_ns, 2 * MS)
    return broken(bounds, command.positions(times).reshape(len(times), -1, 7), 2e-3)


def stop_times(stop: Command) -> FloatArray:
    """Time to rest of each joint `(n,)` [s]."""
    moving = (stop.state.velocity != 0) | (stop.state.acceleration != 0)
    rest = np.where(moving.any(axis=0), len(moving) - np.argmax(moving[::-1], axis=0), 0)
    times: FloatArray = (stop.times_ns[np.minimum(rest, len(moving) - 1)] - stop.start_ns) * 1e-9
    return times
