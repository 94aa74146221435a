"""What a privileged planner comes up with."""

from __future__ import annotations

from dataclasses import dataclass

from e0_policy.types import FloatArray

PERIOD_NS = 50_000_000


@dataclass(frozen=True)
class Demonstration:
    """A plan for one scene.

    `rows` is `(steps, joints + 1)`: absolute set-points of the joints [rad] and the gripper opening, one per control
    step of `PERIOD_NS`. `success` says whether it solves the planner's own copy of the scene.
    """

    rows: FloatArray
    success: bool
    instruction: str
