"""Where the arm may be, and how fast its parts may move: a box for the tool, a table for all of the arm, a top speed.

`plan_inside` is `limiter.plan` under these rules. Every command is checked as a whole, its braking included, so the arm
comes to rest inside; what cannot be had so is braked, and at last the motion goes on that was checked when it was made.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from e0_policy.embodiment import Embodiment
from e0_policy.kinematics import ARM_POINTS, POINT_RADII_M, arm_points_m
from e0_policy.types import FloatArray
from e0_ros.config import ConfigError, setting
from e0_ros.core.command import Command, State, TimeArray
from e0_ros.core.limiter import STEP_NS, Limits, Target, brake, plan

_JOINTS = 7
_TOOL = ARM_POINTS.index("tool")
_CHECK_NS = 4_000_000
_MARGIN_M = 2e-4  # what a point that turns back between two checks may go further: 80 m/s^2 * (4 ms)^2 / 8
_SPEED_SHARE, _SPEED_MARGIN_M_S = 0.99, 0.02  # what 10,000 m/s^3 add within 2 ms
_WITHIN = 0.375  # a speed over 1 ms at the end of 4 ms is off by 1.5 ms of the acceleration, of which 4 ms are known
_SLOWER, _CAUTION = 0.5, 0.9  # shares of speed for a second attempt: near a bound, and above the top speed
_SLOWING, _RAMP_S = 1.1, 0.01  # braking along a path: by the time of the slowest joint alone, and its ramps


@dataclass(frozen=True)
class WorkspaceConfig:
    """What a lab narrows; wider than the embodiment has no effect."""

    workspace_lower_m: tuple[float, ...] = setting(
        (-2.0, -2.0, -2.0), "the tool stays above these x, y, z of the base frame", unit="m", low=-2.0, high=2.0
    )
    workspace_upper_m: tuple[float, ...] = setting(
        (2.0, 2.0, 2.0), "the tool stays below these x, y, z of the base frame", unit="m", low=-2.0, high=2.0
    )
    table_height_m: float = setting(
        -2.0, "nothing of the arm comes below this z of the base frame", unit="m", low=-2.0, high=2.0
    )
    max_speed_m_s: float = setting(3.0, "no part of the arm moves faster", unit="m/s", low=0.05, high=3.0)


def narrowed(config: WorkspaceConfig) -> list[str]:
    """Settings that are not at their defaults, which narrow nothing."""
    names, wide = (f.name for f in fields(WorkspaceConfig)), WorkspaceConfig()
    return [name for name in names if not np.array_equal(getattr(config, name), getattr(wide, name))]


class Motion(NamedTuple):
    """How far a command goes beyond each bound `(12, arms)` [m], above 0 if it does, and top speeds `(arms,)` [m/s]."""

    beyond: FloatArray
    speed: FloatArray


@dataclass(frozen=True)
class Workspace:
    """A box for the tool, a table for everything, a speed for everything.

    Args:
        lower: corner of the box `(3,)` [m] in the base frame; or `(arms, 3)` for arms side by side.
        upper: the other corner.
        table_m: height of the table, or `(arms,)`.
        speed_m_s: top speed, or `(arms,)`.

    """

    lower: FloatArray
    upper: FloatArray
    table_m: FloatArray
    speed_m_s: FloatArray

    @classmethod
    def of(cls, arm: Embodiment, config: WorkspaceConfig) -> Workspace:
        """The arm's own, narrowed.

        Raises:
            ConfigError: not three numbers, nothing is left of the box, or the arm's kinematics are not known.

        """
        if not arm.has_kinematics:
            raise ConfigError(f"no workspace can be kept for {arm.name}, whose kinematics are {arm.kinematics}")
        lower, upper = (np.array(v) for v in (config.workspace_lower_m, config.workspace_upper_m))
        if lower.shape != (3,) or upper.shape != (3,):
            raise ConfigError("workspace_lower_m and workspace_upper_m need three numbers each: x, y, z")
        lower, upper = np.maximum(lower, arm.workspace_lower), np.minimum(upper, arm.workspace_upper)
        if not (lower < upper).all():
            raise ConfigError(f"nothing is left of the workspace: it is from {lower.tolist()} to {upper.tolist()} m")
        speed = min(arm.speed_m_s, config.max_speed_m_s)
        return cls(lower, upper, np.array(config.table_height_m), np.array(speed))

    def outside(self, joint_positions: FloatArray) -> str:
        """How the first of positions `(rows, 7)` [rad] that is outside is so, in words; empty if none is."""
        beyond = self._beyond(arm_points_m(joint_positions)) + _MARGIN_M
        bad = (beyond > 0).any(axis=0)
        if not bad.any():
            return ""
        row = int(bad.argmax())
        return self.reason(beyond[:, row])

    def motion(self, command: Command) -> Motion:
        """Where a command takes the arms, until it rests."""
        times = _checked(command)
        points = arm_points_m(command.positions(times).reshape(len(times), -1, _JOINTS))
        velocities = np.diff(points, axis=1) / (_CHECK_NS * 1e-9)
        speed, change = (np.sqrt(np.einsum("pmac,pmac->pma", v, v)) for v in (velocities, np.diff(velocities, axis=1)))
        fastest = np.maximum(speed[:, :-1], speed[:, 1:]) + _WITHIN * change
        return Motion(self._beyond(points).max(axis=1) + _MARGIN_M, fastest.max(axis=(0, 1), initial=0.0))

    @property
    def planned_speed(self) -> FloatArray:
        """What planning aims at: a little below the top speed, for what happens between two checks."""
        return np.maximum(_SPEED_SHARE * self.speed_m_s - _SPEED_MARGIN_M_S, 1e-3)

    def reason(self, beyond: FloatArray, arm: int = 0) -> str:
        """How an arm leaves, from `(12,)` beyond each bound [m], in words; empty if it does not."""
        if not (beyond > 0).any():
            return ""
        worst = int(beyond.argmax())
        if worst < len(ARM_POINTS):
            table = float(np.ravel(self.table_m)[arm if np.ndim(self.table_m) else 0])
            return f"the {ARM_POINTS[worst]} would be {beyond[worst]:.3f} m below the table, z = {table:.3f} m"
        side, axis = divmod(worst - len(ARM_POINTS), 3)
        corner = np.atleast_2d((self.lower, self.upper)[side])[arm if self.lower.ndim > 1 else 0]
        bound = f"{'xyz'[axis]} {'<' if side else '>'} {corner[axis]:.3f} m"
        return f"the tool would be {beyond[worst]:.3f} m outside of the workspace, {bound}"

    def part(self, arms: NDArray[np.intp]) -> Workspace:
        """The workspace of some of the arms."""
        if self.lower.ndim == 1:
            return self
        return Workspace(self.lower[arms], self.upper[arms], self.table_m[arms], self.speed_m_s[arms])

    def _beyond(self, points: FloatArray) -> FloatArray:
        """`(12, ...)`: each point below the table, the tool below the lower and above the upper corner [m]."""
        radii = POINT_RADII_M.reshape(-1, *(1,) * (points.ndim - 2))
        below = np.moveaxis(self.lower - points[_TOOL], -1, 0)
        above = np.moveaxis(points[_TOOL] - self.upper, -1, 0)
        return np.concatenate((self.table_m + radii - points[..., 2], below, above))


def plan_inside(
    limits: Limits, workspace: Workspace, last: Command, target: Target | None, commit_ns: int, span_ns: int
) -> tuple[Command, list[str]]:
    """As `limiter.plan`, inside the workspace; arms side by side are `7 * arms` joints.

    First as asked, then with slower joints, then braking as fast as each joint can, then braking along the path of
    `last`, which was checked when it was made, then as `last` has it: for each arm the first that is inside.

    Returns:
        The command, and for each arm why it would have left the workspace and brakes instead; empty while it goes on.

    """
    waiting = np.arange(last.state.position.shape[1] // _JOINTS)
    why, pace = [""] * len(waiting), limits
    parts: list[tuple[NDArray[np.intp], Command]] = []
    for aim, length_ns in _ways(limits, last, target, commit_ns, span_ns):
        here, before = workspace, last
        if parts or pace is not limits:
            joints = _joints(waiting)
            here, before, aim = workspace.part(waiting), last.of(joints), _of(aim, joints)
        command = plan(pace, before, aim, commit_ns, length_ns)
        motion = here.motion(command)
        fast = motion.speed > here.planned_speed
        good = (motion.beyond <= 0).all(axis=0) & ~fast
        if asked := target and length_ns == span_ns:
            for k, arm in enumerate(waiting):
                why[arm] = "" if good[k] else here.reason(motion.beyond[:, k], k)
        if good.all() and not parts:
            return command, why
        if good.any():
            parts.append((_joints(waiting[good]), command.of(_joints(np.flatnonzero(good)))))
        share = np.where(fast, _CAUTION * here.planned_speed / np.maximum(motion.speed, 1e-9), _SLOWER)
        rest, waiting = _joints(np.flatnonzero(~good)), waiting[~good]
        if not len(waiting):
            return Command.together(parts), why
        slower = _slower(pace.part(rest), command.of(rest), share[~good])
        pace = slower if asked else limits.part(_joints(waiting))
    joints = _joints(waiting)
    return Command.together([*parts, (joints, last.since(commit_ns).of(joints))]), why


def _ways(
    limits: Limits, last: Command, target: Target | None, commit_ns: int, span_ns: int
) -> Iterator[tuple[Target | None, int]]:
    """What to try one after the other: what to follow, and for how long."""
    if target:
        yield target, span_ns
        yield target, span_ns
    yield None, 0
    stop = brake(limits, last.sample(commit_ns), commit_ns)
    slow_ns = -(-int(_SLOWING * (stop.end_ns - commit_ns) + 4e9 * _RAMP_S) // STEP_NS) * STEP_NS
    yield Slowing(last, commit_ns, slow_ns), slow_ns


@dataclass(frozen=True)
class Slowing:
    """The motion of a command, slower and slower from `start_ns` on: along its path, at rest after `duration_ns`.

    The pace falls from the command's own to none, evenly but for a ramp of `_RAMP_S` at both ends. All joints share it,
    so that no point of the arm leaves the path.
    """

    command: Command
    start_ns: int
    duration_ns: int

    def __call__(self, times_ns: TimeArray) -> State:
        """Target at times `(m,)`, each part `(m, n)`."""
        end_s = self.duration_ns * 1e-9
        even, elapsed = 1 / (end_s - _RAMP_S), (times_ns - self.start_ns)[:, None] * 1e-9
        since = np.maximum(elapsed - [0.0, _RAMP_S, end_s - _RAMP_S, end_s], 0.0)
        change, lost, behind = (even * (since**k) @ [1.0, -1.0, -1.0, 1.0] / _RAMP_S for k in (1, 2, 3))
        position, velocity, acceleration = self.command.sample(self.start_ns + 1e9 * (elapsed[:, 0] - behind / 6))
        pace, change = (1 - lost / 2)[:, None], change[:, None]
        return State(position, pace * velocity, pace**2 * acceleration - change * velocity)


def _slower(limits: Limits, command: Command, share: FloatArray) -> Limits:
    """Limits with which the arms reach no more than their shares of a command's joint speeds."""
    peak = np.abs(command.sample(_checked(command)).velocity).max(axis=0)
    return replace(limits, velocity=np.minimum(limits.velocity, peak * np.repeat(share, _JOINTS)))


def _checked(command: Command) -> TimeArray:
    """The times at which a command is looked at, to its end."""
    return np.arange(command.start_ns, command.end_ns + _CHECK_NS, _CHECK_NS)


def _joints(arms: NDArray[np.intp]) -> NDArray[np.intp]:
    return (arms[:, None] * _JOINTS + np.arange(_JOINTS)).ravel()


def _of(target: Target | None, joints: NDArray[np.intp]) -> Target | None:
    """The target of some joints."""
    if target is None:
        return None

    def some(times: TimeArray) -> State:
        return State(*(part[:, joints] for part in target(times)))

    return some
