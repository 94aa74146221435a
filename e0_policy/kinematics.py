"""Where the flange and the tool of a Franka arm are: errors in metres, plans in pictures."""

from __future__ import annotations

import numpy as np

from e0_policy.types import FloatArray

# Craig's parameters (a, d, alpha) of Panda and FR3, frankaemika/docs "Denavit-Hartenberg parameters".
_LINKS = (
    (0.0, 0.333, 0.0),
    (0.0, 0.0, -np.pi / 2),
    (0.0, 0.316, np.pi / 2),
    (0.0825, 0.0, np.pi / 2),
    (-0.0825, 0.384, -np.pi / 2),
    (0.0, 0.0, np.pi / 2),
    (0.088, 0.0, np.pi / 2),
)
_FLANGE_M = 0.107
_HAND_M = 0.1034
"""Seventh joint to flange, and flange to the Franka Hand's tool centre, along the last joint's axis."""


def tcp_position_m(joint_positions: FloatArray) -> FloatArray:
    """Position of the Franka Hand's tool centre in the base frame: `(..., 7)` rad to `(..., 3)` m.

    Raises:
        ValueError: not seven joints.

    """
    return _to_base(joint_positions, np.array([0.0, 0.0, _FLANGE_M + _HAND_M]), 1.0)


def flange_pose(joint_positions: FloatArray) -> FloatArray:
    """`T_base_flange` `(..., 4, 4)` [m] of joint positions `(..., 7)` [rad]; the flange is Franka's `link8`.

    Raises:
        ValueError: not seven joints.

    """
    q = np.asarray(joint_positions, np.float64)
    pose = np.broadcast_to(np.eye(4), (*q.shape[:-1], 4, 4)).copy()
    pose[..., :3, 3] = _to_base(q, np.array([0.0, 0.0, _FLANGE_M]), 1.0)
    for axis in range(3):
        pose[..., :3, axis] = _to_base(q, np.eye(3)[axis], 0.0)
    return pose


def _to_base(joint_positions: FloatArray, vector: FloatArray, weight: float) -> FloatArray:
    """A point (`weight` 1) or a direction (`weight` 0) from the last joint's frame to the base frame, `(..., 3)`."""
    q = np.asarray(joint_positions, np.float64)
    if q.shape[-1] != 7:
        raise ValueError(f"joint positions have shape {q.shape}; a Franka arm has 7 joints")
    point = np.broadcast_to(vector, (*q.shape[:-1], 3))
    for joint, (a, d, alpha) in reversed(list(enumerate(_LINKS))):
        c, s = np.cos(q[..., joint]), np.sin(q[..., joint])
        x = c * point[..., 0] - s * point[..., 1] + weight * a
        y = s * point[..., 0] + c * point[..., 1]
        z = point[..., 2] + weight * d
        ca, sa = np.cos(alpha), np.sin(alpha)
        point = np.stack([x, ca * y - sa * z, sa * y + ca * z], -1)
    return point
