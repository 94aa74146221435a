"""The judge's own look at where the arm is: frames multiplied out as a URDF has them, nothing shared with the executor.

Origins are those of franka_description (`robots/fr3/kinematics.yaml`; the Panda's are the same), spheres those of its
self-collision capsules, and of the finger tips.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from e0_policy.embodiment import Embodiment
from e0_policy.types import FloatArray

ROUNDING_M = 1e-9

_QUARTER = np.pi / 2
_ORIGINS = (
    ((0.0, 0.0, 0.333), 0.0),
    ((0.0, 0.0, 0.0), -_QUARTER),
    ((0.0, -0.316, 0.0), _QUARTER),
    ((0.0825, 0.0, 0.0), _QUARTER),
    ((-0.0825, 0.384, 0.0), -_QUARTER),
    ((0.0, 0.0, 0.0), _QUARTER),
    ((0.088, 0.0, 0.0), _QUARTER),
)
"""Of joints 1 to 7 in the link before: xyz [m] and roll [rad]; each turns about its own z."""
_LINK8_M, _HAND_YAW, _TCP_M = 0.107, -np.pi / 4, 0.1034
SPHERES = (
    ("link4", 4, (0.0, 0.0, 0.0), 0.06),
    ("link5", 5, (0.0, 0.0, 0.0), 0.06),
    ("link8", 7, (0.0, 0.0, _LINK8_M), 0.05),
    ("hand, left", 8, (0.0, 0.05, 0.04), 0.04),
    ("hand, right", 8, (0.0, -0.05, 0.04), 0.04),
    ("tcp", 8, (0.0, 0.0, _TCP_M), 0.01),
)
"""Name, link (8 is the hand), centre in it [m], radius [m]; the last one is the tool."""


@dataclass(frozen=True)
class Bounds:
    """Corners of the tool's box `(3,)` [m], height of the table [m], top speed [m/s]; or `(arms, 3)` and `(arms,)`."""

    lower: FloatArray
    upper: FloatArray
    table_m: FloatArray
    speed_m_s: FloatArray

    @classmethod
    def of(cls, arm: Embodiment) -> Bounds:
        """The arm's own; it has no table."""
        return cls(arm.workspace_lower, arm.workspace_upper, np.array(-np.inf), np.array(arm.speed_m_s))


@dataclass(frozen=True)
class Broken:
    """A bound broken at one row by one arm."""

    row: int
    arm: int
    part: str
    error: str
    value: float
    limit: float


WORKSPACE, TABLE = "workspace_left", "table_touched"
SPEED = "cartesian_motion_generator_velocity_limits_violation"


def centres(joint_positions: FloatArray) -> FloatArray:
    """Centres of `SPHERES` in the base frame: `(..., 7)` rad to `(..., 6, 3)` m."""
    frame = np.broadcast_to(np.eye(4), (*joint_positions.shape[:-1], 4, 4))
    frames = []
    for joint, (xyz, roll) in enumerate(_ORIGINS):
        frame = frame @ _fixed(xyz, roll) @ _turned(joint_positions[..., joint])
        frames.append(frame)
    frames.append(frame @ _fixed((0.0, 0.0, _LINK8_M), 0.0) @ _turned(np.array(_HAND_YAW)))
    points = [(frames[link - 1] @ np.array([*centre, 1.0]))[..., :3] for _, link, centre, _ in SPHERES]
    return np.stack(points, axis=-2)


def broken(bounds: Bounds, joint_positions: FloatArray, period_s: float | None) -> list[Broken]:
    """What rows 1.. of `(m, arms, 7)` break; row 0 is the sample before. Without a period speeds do not count."""
    at = centres(joint_positions)
    tool, radii = at[1:, :, -1], np.array([radius for *_, radius in SPHERES])
    lowest, table = at[1:, :, :, 2] - radii, np.reshape(bounds.table_m, (-1, 1))
    parts, axes = [name for name, *_ in SPHERES], [f"tcp {axis}" for axis in "xyz"]
    found = _over(WORKSPACE, tool - bounds.upper > ROUNDING_M, tool, bounds.upper, axes)
    found += _over(WORKSPACE, bounds.lower - tool > ROUNDING_M, tool, bounds.lower, axes)
    found += _over(TABLE, table - lowest > ROUNDING_M, lowest, table, parts)
    if period_s:
        speed, top = np.linalg.norm(np.diff(at, axis=0), axis=-1) / period_s, np.reshape(bounds.speed_m_s, (-1, 1))
        found += _over(SPEED, speed > top * (1 + 1e-6) + ROUNDING_M, speed, top, parts)
    return found


def _over(error: str, bad: FloatArray, value: FloatArray, limit: FloatArray, parts: Sequence[str]) -> list[Broken]:
    limits = np.broadcast_to(limit, value.shape)
    return [
        Broken(int(row), int(arm), parts[part], error, float(value[row, arm, part]), float(limits[row, arm, part]))
        for row, arm, part in np.argwhere(bad)
    ]


def _fixed(xyz: tuple[float, float, float], roll: float) -> FloatArray:
    c, s = np.cos(roll), np.sin(roll)
    return np.array([[1, 0, 0, xyz[0]], [0, c, -s, xyz[1]], [0, s, c, xyz[2]], [0, 0, 0, 1.0]])


def _turned(angle: FloatArray) -> FloatArray:
    turn = np.zeros((*angle.shape, 4, 4))
    c, s = np.cos(angle), np.sin(angle)
    turn[..., 0, 0], turn[..., 0, 1], turn[..., 1, 0], turn[..., 1, 1] = c, -s, s, c
    turn[..., 2, 2] = turn[..., 3, 3] = 1.0
    return turn
