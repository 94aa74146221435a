"""Motions of the tool along a straight line, from rest to rest, as rows of joint positions.

Poses become joints by Newton's method, whose least step keeps the elbow where it is: first at a few places, one after
the other, which tell how long the slowest joint needs, then at the instants of a quintic time law, without velocity and
acceleration at both ends.
"""

from __future__ import annotations

import cv2
import numpy as np

from e0_policy.embodiment import Embodiment
from e0_policy.kinematics import tcp_pose_and_jacobian
from e0_policy.types import FloatArray
from e0_ros.core.inverse_kinematics import pose_errors
from sim.demonstration import PERIOD_NS

VELOCITY_RAD_S, ACCELERATION_RAD_S2 = 0.9, 1.5
"""Of every joint at full speed: a fraction of what the arm can do, so that what is held does not slip."""
_PEAK_VELOCITY, _PEAK_ACCELERATION = 1.875, 5.7735
"""Largest first and second derivative of the quintic over the unit interval."""
_COARSE = 24
_STEPS, _NEAR, _DAMPING = 30, 1e-9, 1e-8


def straight_rows(arm: Embodiment, start: FloatArray, tool: FloatArray, speed: float = 1.0) -> FloatArray | None:
    """Joint positions `(rows, 7)` [rad] after each control period of the way to a tool pose.

    Args:
        arm: whose limits count.
        start: joint positions `(7,)` [rad], at rest.
        tool: `T_base_tcp` `(4, 4)` of the Franka Hand, at rest.
        speed: share of the full one, in (0, 1].

    Returns:
        One row or more; None if a part of the line is out of reach.

    """
    line = _Line(tcp_pose_and_jacobian(start)[0], tool)
    coarse = [np.asarray(start, np.float64)]
    for share in np.linspace(0.0, 1.0, _COARSE + 1)[1:]:
        found = _solve(arm, coarse[-1][None], line, np.array([share]))
        if found is None:
            return None
        coarse.append(found[0])
    way = np.array(coarse)
    time = np.linspace(0.0, 1.0, _periods(way, speed) + 1)[1:]
    shares = time**3 * (10.0 - 15.0 * time + 6.0 * time**2)
    places = np.linspace(0.0, 1.0, _COARSE + 1)
    near = np.column_stack([np.interp(shares, places, joint) for joint in way.T])
    return _solve(arm, near, line, shares)


class _Line:
    """Poses from one to another: the position on a straight line, the orientation about one axis."""

    def __init__(self, first: FloatArray, last: FloatArray) -> None:
        self._first, self._way = first, last[:3, 3] - first[:3, 3]
        turn = cv2.Rodrigues(last[:3, :3] @ first[:3, :3].T)[0].ravel()
        self._angle = float(np.linalg.norm(turn))
        x, y, z = turn / max(self._angle, 1e-12)
        self._cross = np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])

    def at(self, shares: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Positions `(n, 3)` and rotations `(n, 3, 3)` (Rodrigues) at shares `(n,)` of the way."""
        angle = (shares * self._angle)[:, None, None]
        turns = np.eye(3) + np.sin(angle) * self._cross + (1.0 - np.cos(angle)) * (self._cross @ self._cross)
        return self._first[:3, 3] + shares[:, None] * self._way, turns @ self._first[:3, :3]


def _solve(arm: Embodiment, near: FloatArray, line: _Line, shares: FloatArray) -> FloatArray | None:
    """Joint positions `(n, 7)` at shares of the line, by least steps from those near; None if one is out of reach."""
    q, (positions, turns) = near, line.at(shares)
    for _ in range(_STEPS):
        error, jacobian = pose_errors(q, positions, turns)
        if np.abs(error).max() < _NEAR:
            inside = (q >= arm.position_lower).all() and (q <= arm.position_upper).all()
            return q if inside else None
        transposed = np.swapaxes(jacobian, -1, -2)
        q = q + (transposed @ np.linalg.solve(jacobian @ transposed + _DAMPING * np.eye(6), error[..., None]))[..., 0]
    return None


def _periods(rows: FloatArray, speed: float) -> int:
    """Control periods in which no joint exceeds the limits on rows `(n + 1, 7)` at equal shares of a line.

    With q(s(t)): q' = q_s s', q'' = q_ss s'^2 + q_s s'', each at its largest.
    """
    count = len(rows) - 1
    slope = np.abs(np.diff(rows, axis=0)).max() * count
    bend = np.abs(np.diff(rows, 2, axis=0)).max() * count**2
    velocity_s = slope * _PEAK_VELOCITY / VELOCITY_RAD_S
    acceleration_s = np.sqrt((slope * _PEAK_ACCELERATION + bend * _PEAK_VELOCITY**2) / ACCELERATION_RAD_S2)
    return max(1, int(np.ceil(max(velocity_s, acceleration_s) / speed * 1e9 / PERIOD_NS)))
