"""The judge: does a commanded stream keep the arm's limits, as Franka's control sees it?

It takes the set-points that the controller sends each millisecond, differentiates them by backward differences as the
robot does (libfranka, `rate_limiting.h`), and names what would have stopped the robot. It shares no code with the
executor, and plans nothing. Where the arm's parts are and how fast they move is judged by `sim.judge_workspace`.

Rounding: a float64 near 3 rad has steps of 4.4e-16, and a sampled quintic is good to about 1e-14 rad. A third
difference weighs four samples with 1, 3, 3, 1, so at 1 ms its error stays below 8e-14 / 1e-9 = 8e-5 rad/s^3, far below
any limit. `ROUNDING_RAD` grants ten times that, and limits are taken with a relative tolerance of 1e-6.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from e0_policy.embodiment import Embodiment
from e0_policy.types import FloatArray
from sim.judge_workspace import Bounds, broken

PERIOD_NS = 1_000_000
ROUNDING_RAD = 1e-13
RELATIVE = 1e-6

POSITION = "joint_position_limits_violation"
VELOCITY = "joint_motion_generator_velocity_limits_violation"
ACCELERATION = "joint_motion_generator_velocity_discontinuity"
JERK = "joint_motion_generator_acceleration_discontinuity"
NOT_FINITE = "not_finite"
TIME = "communication_constraints_violation"
NAMES = "wrong_joint_names"


@dataclass(frozen=True)
class Violation:
    """A limit broken by one joint at one sample. `error` is Franka's name for it where it has one."""

    time_ns: int
    joint: str
    error: str
    value: float
    limit: float

    def __str__(self) -> str:
        return f"{self.error}: {self.joint} at {self.time_ns} ns is {self.value:.6g}, limit {self.limit:.6g}"


class Judge:
    """Checks a stream of commanded positions, batch by batch.

    Before the first sample the arm is taken to rest at `start`. `violations` counts what was found and `samples` what
    was checked since construction. Without `derivatives` it checks positions only: what reaches an impedance
    controller is a held target, which no robot differentiates. `bounds` are those of the workspace, the arm's own if
    None; arms side by side are `7 * arms` joints. An arm whose kinematics are not known is judged by its joints alone.
    """

    def __init__(
        self, embodiment: Embodiment, start: FloatArray, derivatives: bool = True, bounds: Bounds | None = None
    ) -> None:
        self._arm = embodiment
        self._bounds = bounds or Bounds.of(embodiment)
        self._derivatives = derivatives
        self._gain = np.minimum(embodiment.envelope_gain, 1e12)
        self.violations = 0
        self.samples = 0
        self.restart(start)

    def restart(self, positions: FloatArray) -> None:
        """Take the arm to rest at `positions`, as after a reset; the counts stay."""
        self._history = np.tile(np.asarray(positions, np.float64), (3, 1))
        self._last_ns: int | None = None

    def names(self, joint_names: tuple[str, ...], now_ns: int) -> list[Violation]:
        """Check a command's joint names (any order)."""
        found = []
        if sorted(joint_names) != sorted(self._arm.joint_names):
            found.append(Violation(now_ns, ",".join(joint_names), NAMES, len(joint_names), self._arm.joints))
        self.violations += len(found)
        return found

    def check(self, times_ns: NDArray[np.int64], positions: FloatArray) -> list[Violation]:
        """Check the next samples: `(m,)` times one period apart, `(m, joints)` positions [rad]."""
        if not len(times_ns):
            return []
        found = self._check_times(times_ns)
        finite = np.isfinite(positions)
        if not finite.all():
            found += self._collect(times_ns, NOT_FINITE, ~finite, positions, np.zeros_like(positions))
            positions = self._fill(positions, finite)
        positions = np.concatenate([self._history, positions])
        found += self._check_limits(times_ns, positions) + self._check_workspace(times_ns, positions[2:])
        self._history = positions[-3:]
        self.samples += len(times_ns)
        self.violations += len(found)
        return found

    def _check_limits(self, times_ns: NDArray[np.int64], q: FloatArray) -> list[Violation]:
        """Check rows 3.. of `q`; rows 0..2 are the samples before."""
        arm, dt = self._arm, PERIOD_NS / 1e9
        max_a, max_j = arm.acceleration, arm.jerk
        found = self._outside(times_ns, POSITION, q[3:], arm.position_lower, arm.position_upper, ROUNDING_RAD)
        if not self._derivatives:
            return found
        v = (q[1:] - q[:-1]) / dt
        a = (v[1:] - v[:-1]) / dt
        j = (a[1:] - a[:-1]) / dt
        lower, upper = self._envelope(q[2:-1])
        found += self._outside(times_ns, VELOCITY, v[2:], lower, upper, 2 * ROUNDING_RAD / dt)
        found += self._outside(times_ns, ACCELERATION, a[1:], -max_a, max_a, 4 * ROUNDING_RAD / dt**2)
        return found + self._outside(times_ns, JERK, j, -max_j, max_j, 8 * ROUNDING_RAD / dt**3)

    def _check_workspace(self, times_ns: NDArray[np.int64], q: FloatArray) -> list[Violation]:
        """Check rows 1.. of `q`; row 0 is the sample before."""
        if not self._arm.has_kinematics:
            return []
        period_s = PERIOD_NS / 1e9 if self._derivatives else None
        found = broken(self._bounds, q.reshape(len(q), -1, 7), period_s)
        return [Violation(int(times_ns[b.row]), f"{b.part} of arm {b.arm}", b.error, b.value, b.limit) for b in found]

    def _envelope(self, q: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Velocity limits at the sample before, where libfranka takes them: a legal path cannot break them there."""
        arm = self._arm
        up = np.sqrt(np.maximum(0.0, self._gain * (arm.envelope_upper - q))) - arm.envelope_offset
        low = np.sqrt(np.maximum(0.0, self._gain * (q - arm.envelope_lower))) - arm.envelope_offset
        return -np.clip(low, 0.0, arm.velocity), np.clip(up, 0.0, arm.velocity)

    def _outside(
        self, times_ns: NDArray[np.int64], error: str, x: FloatArray, low: FloatArray, high: FloatArray, slack: float
    ) -> list[Violation]:
        if ((x <= high) & (x >= low)).all():
            return []
        above = x > high + RELATIVE * np.abs(high) + slack
        below = x < low - RELATIVE * np.abs(low) - slack
        return self._collect(times_ns, error, above | below, x, np.where(above, high, low))

    def _collect(
        self, times_ns: NDArray[np.int64], error: str, bad: NDArray[np.bool_], x: FloatArray, limit: FloatArray
    ) -> list[Violation]:
        return [
            Violation(
                int(times_ns[row]), self._arm.joint_names[joint], error, float(x[row, joint]), float(limit[row, joint])
            )
            for row, joint in np.argwhere(bad)
        ]

    def _check_times(self, times_ns: NDArray[np.int64]) -> list[Violation]:
        before = times_ns[0] - PERIOD_NS if self._last_ns is None else self._last_ns
        steps = np.diff(times_ns, prepend=before)
        self._last_ns = int(times_ns[-1])
        return [
            Violation(int(times_ns[row]), "", TIME, float(steps[row]), float(PERIOD_NS))
            for row in np.flatnonzero(steps != PERIOD_NS)
        ]

    def _fill(self, positions: FloatArray, finite: NDArray[np.bool_]) -> FloatArray:
        """Replace what is not finite by the sample before, so that one NaN is one violation."""
        filled = positions.copy()
        previous = self._history[-1]
        for row, ok in zip(filled, finite, strict=True):
            row[~ok] = previous[~ok]
            previous = row
        return filled
