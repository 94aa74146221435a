"""What a privileged planner comes up with."""

from __future__ import annotations

from dataclasses import dataclass

from e0_policy.types import FloatArray, Representation

PERIOD_NS = 50_000_000


@dataclass(frozen=True)
class Demonstration:
    """A plan for one scene.

    `rows` is `(steps, joints + 1)`: absolute set-points of the joints [rad] and the gripper opening, one per control
    step of `PERIOD_NS`; or rows of a benchmark's own controller, of which the last one moves nothing. `success` says
    whether it solves the planner's own copy of the scene.
    """

    rows: FloatArray
    success: bool
    instruction: str
    representation: Representation = Representation.JOINT_POSITION
