"""Joint positions by name: order and completeness are checked, never assumed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from e0_policy.types import FloatArray


def pick_joints(names: Sequence[str], positions: Sequence[float], wanted: Sequence[str]) -> FloatArray:
    """Positions `(len(wanted),)` in the wanted order out of a message that may hold others in any order.

    Raises:
        ValueError: a wanted name is absent or repeated, lengths differ, or a number is not finite.

    """
    if len(names) != len(positions):
        raise ValueError(f"{len(names)} joint names for {len(positions)} positions")
    if len(set(names)) != len(names):
        raise ValueError(f"repeated joint names in {', '.join(names)[:200]}")
    place = {name: i for i, name in enumerate(names)}
    if missing := [name for name in wanted if name not in place]:
        raise ValueError(f"no joint {', '.join(missing)}; got {', '.join(names)[:200] or 'none'}")
    picked = np.array([positions[place[name]] for name in wanted], dtype=np.float64)
    if not np.isfinite(picked).all():
        raise ValueError(f"positions are {picked.tolist()}; every number must be finite")
    return picked


def gripper_opening(names: Sequence[str], positions: Sequence[float], wanted: Sequence[str], width_m: float) -> float:
    """Opening in [0, 1] from finger joints [m], each half of the width (franka_gripper).

    Raises:
        ValueError: as `pick_joints`.

    """
    return float(np.clip(pick_joints(names, positions, wanted).sum() / width_m, 0.0, 1.0))
