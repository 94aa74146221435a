"""How the arm's own controllers turn messages into a set-point every millisecond.

`JointTrajectoryController` follows ros2_controllers' joint_trajectory_controller (`trajectory.cpp`,
`joint_trajectory_controller.cpp`; humble 2.54, jazzy 4.42, kilted 5.17) with its default parameters.
`JointImpedanceController` follows GELLO's (`franka_fr3_arm_controllers/src/joint_impedance_controller.cpp`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from e0_policy.types import FloatArray

FRESHNESS_S = 0.5
_REST_RAD_S = float(np.finfo(np.float32).eps)


@dataclass(frozen=True)
class Point:
    """A way-point of a trajectory: `(joints,)` rad, and rad/s and rad/s^2 where the message has them."""

    time_from_start_ns: int
    positions: FloatArray
    velocities: FloatArray | None = None
    accelerations: FloatArray | None = None


@dataclass(frozen=True)
class Trajectory:
    """A trajectory message as plain values. `start_ns` 0: it starts when it is received."""

    start_ns: int
    joint_names: tuple[str, ...]
    points: tuple[Point, ...]


@dataclass(frozen=True)
class Setpoints:
    """Set-points at `(m,)` times: positions [rad] and velocities [rad/s], each `(m, joints)`."""

    positions: FloatArray
    velocities: FloatArray


class JointTrajectoryController:
    """joint_trajectory_controller for one arm.

    A trajectory replaces the running one when it is received. Until its first point the set-point runs from the
    measured state at receipt to that point; after its last point it stays there. Between two points the spline is
    linear, cubic or quintic, by the fields that both points have. (ros2_controllers 6 blends by default instead, and
    starts a trajectory with a past stamp late; there `allow_trajectory_replacement` must be false.)
    """

    def __init__(self, joint_names: tuple[str, ...], positions: FloatArray) -> None:
        self._names = joint_names
        self.hold(positions)

    def hold(self, positions: FloatArray) -> None:
        """Drop the trajectory and hold a position, as on activation."""
        self._knots_ns = np.zeros(1, np.int64)
        self._coefficients = np.zeros((1, 6, len(self._names)))
        self._coefficients[0, 0] = positions

    def accept(
        self, trajectory: Trajectory, now_ns: int, positions: FloatArray, velocities: FloatArray | None = None
    ) -> str:
        """Replace the running trajectory; `positions` and `velocities` are the measured state at `now_ns`.

        Returns:
            Why the message is rejected (the running trajectory goes on), or "".

        """
        if reason := self._reject(trajectory, now_ns):
            return reason
        start_ns = trajectory.start_ns or now_ns
        order = [trajectory.joint_names.index(name) for name in self._names]
        points = [_sorted(point, order) for point in trajectory.points]
        times_ns = [start_ns + point.time_from_start_ns for point in points]
        if times_ns[0] > now_ns:
            points.insert(0, _before(points[0], positions, velocities))
            times_ns.insert(0, now_ns)
        self._knots_ns = np.array(times_ns, np.int64)
        self._coefficients = _splines(points, self._knots_ns)
        return ""

    def sample(self, times_ns: NDArray[np.int64]) -> Setpoints:
        """Set-points at `(m,)` times that are not before the last receipt."""
        index = np.clip(np.searchsorted(self._knots_ns, times_ns, side="right") - 1, 0, None)
        s = np.maximum((times_ns - self._knots_ns[index]) / 1e9, 0.0)[:, None]
        c0, c1, c2, c3, c4, c5 = np.moveaxis(self._coefficients[index], 1, 0)
        positions = c0 + s * (c1 + s * (c2 + s * (c3 + s * (c4 + s * c5))))
        velocities = c1 + s * (2 * c2 + s * (3 * c3 + s * (4 * c4 + s * 5 * c5)))
        return Setpoints(positions, velocities)

    def _reject(self, trajectory: Trajectory, now_ns: int) -> str:
        names, points = trajectory.joint_names, trajectory.points
        if sorted(names) != sorted(self._names):
            return f"joint names {list(names)} are not the controller's {list(self._names)}"
        if not points:
            return "the trajectory has no points"
        for i, point in enumerate(points):
            if reason := _reject_point(i, point, len(names)):
                return reason
            if i and point.time_from_start_ns <= points[i - 1].time_from_start_ns:
                return f"time between points {i - 1} and {i} is not strictly increasing"
        last = points[-1]
        if last.velocities is not None and (np.abs(last.velocities) > _REST_RAD_S).any():
            return f"the last point's velocity is not zero: {np.abs(last.velocities).max():.3g} rad/s"
        if trajectory.start_ns and trajectory.start_ns + last.time_from_start_ns < now_ns:
            late_ms = (now_ns - trajectory.start_ns - last.time_from_start_ns) / 1e6
            return f"the trajectory ended {late_ms:.1f} ms ago"
        return ""


def _reject_point(i: int, point: Point, joints: int) -> str:
    if point.time_from_start_ns < 0:
        return f"time_from_start of point {i} is negative"
    fields = {"positions": point.positions, "velocities": point.velocities, "accelerations": point.accelerations}
    for name, values in fields.items():
        if values is not None and values.shape != (joints,):
            return f"{name} of point {i} have {values.size} numbers for {joints} joints"
    if point.velocities is None and point.accelerations is not None:
        return f"point {i} has accelerations without velocities, which upstream samples as zeros"
    return ""


def _sorted(point: Point, order: list[int]) -> Point:
    velocities = None if point.velocities is None else point.velocities[order]
    accelerations = None if point.accelerations is None else point.accelerations[order]
    return Point(point.time_from_start_ns, point.positions[order], velocities, accelerations)


def _before(first: Point, positions: FloatArray, velocities: FloatArray | None) -> Point:
    """The state at receipt as a point with the fields of the first one; an unmeasured acceleration is zero."""
    speed = np.zeros_like(positions) if velocities is None else velocities
    rest = None if first.accelerations is None else np.zeros_like(positions)
    return Point(0, positions.copy(), None if first.velocities is None else speed.copy(), rest)


def _splines(points: list[Point], knots_ns: NDArray[np.int64]) -> FloatArray:
    """Coefficients `(k, 6, joints)` from each of `k` knots on, in powers of the time since [s]; the last one holds."""
    none = np.zeros_like(points[0].positions)
    with_v, with_a = (np.array([getattr(p, f) is not None for p in points]) for f in ("velocities", "accelerations"))
    q = np.array([p.positions for p in points])
    v = np.array([none if p.velocities is None else p.velocities for p in points])
    a = np.array([none if p.accelerations is None else p.accelerations for p in points])
    cubic = (with_v[:-1] & with_v[1:])[:, None]
    quintic = cubic & (with_a[:-1] & with_a[1:])[:, None]
    t, d = np.diff(knots_ns)[:, None] / 1e9, np.diff(q, axis=0)
    va, vb, aa, ab = v[:-1] * t, v[1:] * t, a[:-1] * t**2, a[1:] * t**2
    c = np.zeros((len(points), 6, len(none)))
    c[:, 0] = q
    c[:-1, 1] = np.where(cubic, v[:-1], d / t)
    c[:-1, 2] = np.where(quintic, a[:-1] / 2, np.where(cubic, (3 * d - 2 * va - vb) / t**2, 0.0))
    c3 = np.where(quintic, (20 * d - 12 * va - 8 * vb - 3 * aa + ab) / 2, va + vb - 2 * d)
    c[:-1, 3] = np.where(cubic, c3 / t**3, 0.0)
    c[:-1, 4] = np.where(quintic, (-30 * d + 16 * va + 14 * vb + 3 * aa - 2 * ab) / (2 * t**4), 0.0)
    c[:-1, 5] = np.where(quintic, (12 * d - 6 * va - 6 * vb - aa + ab) / (2 * t**5), 0.0)
    return c


class JointImpedanceController:
    """GELLO's joint_impedance_controller: holds the latest target, whatever its age.

    Targets are taken by order, names are not read. Freshness is checked only when a message arrives: its stamp must
    be less than 0.5 s old and the stamp before it too. Before the first fresh message a stale one is waited out; after
    it a stale one is fatal, and only `restart` brings the controller back. The slow move to the first target is left
    out: upstream times it from activation, so a target that comes late is jumped to.
    """

    def __init__(self, positions: FloatArray, now_ns: int) -> None:
        self.restart(positions, now_ns)

    def restart(self, positions: FloatArray, now_ns: int) -> None:
        """Activate anew, holding a position until the first fresh target."""
        self._target = positions.copy()
        self._last_stamp_ns = now_ns
        self._following = False
        self.dead = ""

    def accept(self, positions: FloatArray, stamp_ns: int, now_ns: int) -> str:
        """Take a target; returns what is wrong, or "" (also while a first fresh target is waited for)."""
        if self.dead:
            return self.dead
        if positions.size < self._target.size:
            return f"target has {positions.size} positions; {self._target.size} are needed"
        since_last_s, age_s = (now_ns - self._last_stamp_ns) / 1e9, (now_ns - stamp_ns) / 1e9
        self._last_stamp_ns = stamp_ns
        if since_last_s >= FRESHNESS_S or age_s >= FRESHNESS_S:
            reason = f"{since_last_s:.3f} s since the last stamp, message {age_s:.3f} s old; both must be < 0.5 s"
            self.dead = f"controller stopped: {reason}; restart it" if self._following else ""
            return self.dead
        self._following = True
        self._target = positions[: self._target.size].copy()
        return ""

    def sample(self, times_ns: NDArray[np.int64]) -> Setpoints:
        """The latest target at `(m,)` times, with zero velocity."""
        positions = np.tile(self._target, (len(times_ns), 1))
        return Setpoints(positions, np.zeros_like(positions))
