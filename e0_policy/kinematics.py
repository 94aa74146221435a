"""Where the tool of a Franka arm is, for errors in metres."""

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
_TCP_M = 0.107 + 0.1034
"""Flange and Franka Hand, along the last joint's axis."""


def tcp_position_m(joint_positions: FloatArray) -> FloatArray:
    """Position of the Franka Hand's tool centre in the base frame: `(..., 7)` rad to `(..., 3)` m.

    Raises:
        ValueError: not seven joints.

    """
    q = np.asarray(joint_positions, np.float64)
    if q.shape[-1] != 7:
        raise ValueError(f"joint positions have shape {q.shape}; a Franka arm has 7 joints")
    point = np.broadcast_to(np.array([0.0, 0.0, _TCP_M]), (*q.shape[:-1], 3))
    for joint, (a, d, alpha) in reversed(list(enumerate(_LINKS))):
        c, s = np.cos(q[..., joint]), np.sin(q[..., joint])
        x = c * point[..., 0] - s * point[..., 1] + a
        y = s * point[..., 0] + c * point[..., 1]
        z = point[..., 2] + d
        ca, sa = np.cos(alpha), np.sin(alpha)
        point = np.stack([x, ca * y - sa * z, sa * y + ca * z], -1)
    return point
