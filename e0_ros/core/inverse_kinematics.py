"""Tool poses to joint rows: damped least squares from where the reference is, and reasons where that must not be.

Every row is solved from the same start, all at once. A step is the least one that helps, so neighbouring poses get
neighbouring joints, and the elbow stays where it is as far as it can. The damping grows with the error that is left
(Sugihara 2011, "Solvability-unconcerned inverse kinematics by the Levenberg-Marquardt method"): near a singularity and
out of reach the arm goes as near as it can, and what is left says that the pose cannot be had.
"""

from __future__ import annotations

import numpy as np

from e0_policy.embodiment import Embodiment
from e0_policy.kinematics import tcp_pose_and_jacobian
from e0_policy.types import FloatArray

MAX_ROWS = 64
POSE_COLUMNS = 8
_STEPS = 30
_STEP_RAD = 0.2
_DAMPING = 1e-6
_NEAR_M, _NEAR_RAD = 5e-4, 2e-3
_FURTHEST_TURN_RAD, _FURTHEST_M = 2.8, 10.0
_UNIT = 1e-2


def joint_rows(arm: Embodiment, start: FloatArray, rows: FloatArray, period_ns: int) -> FloatArray | str:
    """Rows of joints `(r, 8)` [rad, opening] for rows of poses `(r, 8)` (x y z [m], quaternion xyzw, opening).

    Args:
        arm: whose limits count.
        start: joint positions `(7,)` [rad] to begin from.
        rows: `T_base_tcp` of the Franka Hand's tool.
        period_ns: between rows; from one to the next no joint may have to move faster than it can.

    Returns:
        The rows, or why there are none, in words.

    """
    if len(rows) > MAX_ROWS:
        return f"{len(rows)} rows of poses; at most {MAX_ROWS} are solved"
    if (far := np.abs(rows[:, :3]).max(axis=1)).max() > _FURTHEST_M:
        row = int(far.argmax())
        return f"row {row}: the pose lies {far[row]:.3g} m from the base; no arm reaches {_FURTHEST_M:g} m"
    norms = np.linalg.norm(rows[:, 3:7], axis=1)
    if (off := np.abs(norms - 1.0)).max() > _UNIT:
        row = int(off.argmax())
        return f"row {row}: the quaternion has length {norms[row]:.3f}; 1 is needed"
    turns = _rotations(rows[:, 3:7] / norms[:, None])
    q = np.tile(start, (len(rows), 1))
    error, jacobian = pose_errors(q, rows[:, :3], turns)
    if (angle := np.linalg.norm(error[:, 3:], axis=1)).max() > _FURTHEST_TURN_RAD:
        row = int(angle.argmax())
        return f"row {row} turns the tool by {angle[row]:.2f} rad; allowed is {_FURTHEST_TURN_RAD}"
    for _ in range(_STEPS):
        if not _left(error).any():
            break
        transposed = np.swapaxes(jacobian, -1, -2)
        damping = (np.minimum((error**2).sum(axis=1), 1.0) + _DAMPING)[:, None, None] * np.eye(6)
        step = (transposed @ np.linalg.solve(jacobian @ transposed + damping, error[..., None]))[..., 0]
        step *= np.minimum(1.0, _STEP_RAD / np.maximum(np.abs(step).max(axis=1, keepdims=True), 1e-12))
        q = np.clip(q + step, arm.position_lower, arm.position_upper)
        error, jacobian = pose_errors(q, rows[:, :3], turns)
    return _unfit(arm, q, error, period_ns) or np.column_stack((q, rows[:, 7]))


def _unfit(arm: Embodiment, q: FloatArray, error: FloatArray, period_ns: int) -> str:
    """What is wrong with a solution, in words; empty if nothing is."""
    if (left := _left(error)).any():
        row = int(left.argmax())
        far_m, far_rad = np.linalg.norm(error[row, :3]), np.linalg.norm(error[row, 3:])
        return f"row {row}: the pose cannot be reached; the nearest is {far_m:.3f} m and {far_rad:.2f} rad off"
    speed = np.abs(np.diff(q, axis=0)) / (period_ns * 1e-9)
    if (speed > arm.velocity).any():
        row, joint = divmod(int((speed / arm.velocity).argmax()), speed.shape[1])
        return (
            f"row {row + 1}: {arm.joint_names[joint]} would have to move at {speed[row, joint]:.1f} rad/s; "
            f"allowed is {arm.velocity[joint]:g} (near a singularity, or the pose jumps)"
        )
    return ""


def _left(error: FloatArray) -> FloatArray:
    """Which rows are not near enough `(r,)`; what is no number is not."""
    near_m, near_rad = (np.linalg.norm(part, axis=1) for part in (error[:, :3], error[:, 3:]))
    left: FloatArray = ~((near_m <= _NEAR_M) & (near_rad <= _NEAR_RAD))
    return left


def pose_errors(q: FloatArray, positions: FloatArray, turns: FloatArray) -> tuple[FloatArray, FloatArray]:
    """What is left to the poses `(r, 6)` [m, rad] in the base frame, and the Jacobian `(r, 6, 7)`."""
    pose, jacobian = tcp_pose_and_jacobian(q)
    between = turns @ np.swapaxes(pose[:, :3, :3], -1, -2)
    axis = np.stack([between[:, k, j] - between[:, j, k] for j, k in ((1, 2), (2, 0), (0, 1))], axis=1) / 2
    sine, cosine = np.linalg.norm(axis, axis=1), (np.trace(between, axis1=1, axis2=2) - 1) / 2
    angle = np.arctan2(sine, cosine)
    axis *= np.where(sine > 1e-9, angle / np.maximum(sine, 1e-9), 1.0)[:, None]
    axis[(sine <= 1e-9) & (cosine < 0)] = [np.pi, 0.0, 0.0]
    return np.concatenate((positions - pose[:, :3, 3], axis), axis=1), jacobian


def _rotations(quaternions: FloatArray) -> FloatArray:
    """Matrices `(r, 3, 3)` of unit quaternions xyzw `(r, 4)`."""
    x, y, z, w = quaternions.T
    rows = (
        (1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)),
        (2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)),
        (2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)),
    )
    return np.moveaxis(np.array(rows), -1, 0)
