"""Where the parts of a Franka arm are: workspace limits, errors in metres, plans in pictures."""

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
_HAND_END_M = 0.05 * np.sqrt(0.5), 0.05 * np.sqrt(0.5), _FLANGE_M + 0.04
"""One end of the hand's body; it is turned by -45 degrees on the flange (franka_description, `franka_hand.xacro`)."""

ARM_POINTS = ("elbow", "wrist", "flange", "hand, one end", "hand, other end", "tool")
POINT_RADII_M = np.array([0.06, 0.06, 0.05, 0.04, 0.04, 0.01])
"""What `arm_points_m` locates, and how far the arm, or the finger tips, reach around each (franka_description)."""
_TIPS = np.array(
    [
        [0.0, 0.0, _FLANGE_M],
        [*_HAND_END_M],
        [-_HAND_END_M[0], -_HAND_END_M[1], _HAND_END_M[2]],
        [0.0, 0.0, _FLANGE_M + _HAND_M],
    ]
)
_C = np.sqrt(0.5)
_T_LINK7_TCP = np.array([[_C, _C, 0, 0], [-_C, _C, 0, 0], [0, 0, 1, _FLANGE_M + _HAND_M], [0, 0, 0, 1.0]])
_ELBOW_JOINT, _WRIST_JOINT = 3, 4


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


def tcp_pose_and_jacobian(joint_positions: FloatArray) -> tuple[FloatArray, FloatArray]:
    """`T_base_tcp` `(..., 4, 4)` of the Franka Hand and its geometric Jacobian `(..., 6, 7)` of `(..., 7)` rad.

    Rows of the Jacobian: velocity [m/s], then angular velocity [rad/s], both in the base frame.

    Raises:
        ValueError: not seven joints.

    """
    q = _seven(joint_positions)
    pose, frames = np.eye(4), []
    for joint, (a, d, alpha) in enumerate(_LINKS):
        c, s, (ca, sa) = np.cos(q[..., joint]), np.sin(q[..., joint]), (np.cos(alpha), np.sin(alpha))
        link = np.zeros((*c.shape, 4, 4))
        link[..., 0, 0], link[..., 0, 1], link[..., 0, 3], link[..., 3, 3] = c, -s, a, 1.0
        link[..., 1, 0], link[..., 1, 1], link[..., 1, 2], link[..., 1, 3] = s * ca, c * ca, -sa, -d * sa
        link[..., 2, 0], link[..., 2, 1], link[..., 2, 2], link[..., 2, 3] = s * sa, c * sa, ca, d * ca
        pose = pose @ link
        frames.append(pose)
    pose = pose @ _T_LINK7_TCP
    axes, origins = (np.stack([frame[..., :3, k] for frame in frames], axis=-2) for k in (2, 3))
    linear = np.cross(axes, pose[..., None, :3, 3] - origins)
    return pose, np.swapaxes(np.concatenate((linear, axes), axis=-1), -1, -2)


def arm_points_m(joint_positions: FloatArray) -> FloatArray:
    """`ARM_POINTS` in the base frame [m]: joint positions `(..., 7)` [rad] to `(6, ..., 3)`.

    Raises:
        ValueError: not seven joints.

    """
    q = np.moveaxis(_seven(joint_positions), -1, 0)
    turns = np.empty(q.shape, complex)
    np.cos(q, out=turns.real)
    np.sin(q, out=turns.imag)
    plane, z = np.zeros((len(ARM_POINTS), *q.shape[1:]), complex), np.zeros((len(ARM_POINTS), *q.shape[1:]))
    tips = _TIPS.reshape(*_TIPS.shape, *(1,) * (q.ndim - 1))
    plane[-len(_TIPS) :], z[-len(_TIPS) :] = tips[:, 0] + 1j * tips[:, 1], tips[:, 2]
    for joint in reversed(range(7)):
        moved = slice(int(joint > _ELBOW_JOINT) + int(joint > _WRIST_JOINT), None)
        (a, d, alpha), xy, up = _LINKS[joint], plane[moved], z[moved]
        xy *= turns[joint]
        xy += a
        up += d
        if alpha:
            across = xy.imag.copy()
            np.multiply(up, -np.sign(alpha), out=xy.imag)
            np.multiply(across, np.sign(alpha), out=up)
    return np.stack((plane.real, plane.imag, z), -1)


def _to_base(joint_positions: FloatArray, vector: FloatArray, weight: float) -> FloatArray:
    """A point (`weight` 1) or a direction (`weight` 0) from the last joint's frame to the base frame, `(..., 3)`."""
    q = _seven(joint_positions)
    point = np.broadcast_to(vector, (*q.shape[:-1], 3))
    for joint, (a, d, alpha) in reversed(list(enumerate(_LINKS))):
        c, s = np.cos(q[..., joint]), np.sin(q[..., joint])
        x = c * point[..., 0] - s * point[..., 1] + weight * a
        y = s * point[..., 0] + c * point[..., 1]
        z = point[..., 2] + weight * d
        ca, sa = np.cos(alpha), np.sin(alpha)
        point = np.stack([x, ca * y - sa * z, sa * y + ca * z], -1)
    return point


def _seven(joint_positions: FloatArray) -> FloatArray:
    q = np.asarray(joint_positions, np.float64)
    if q.shape[-1] != 7:
        raise ValueError(f"joint positions have shape {q.shape}; a Franka arm has 7 joints")
    return q
