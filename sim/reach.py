"""The expert of the plant without physics: a minimum-jerk move to the goal of Reach-v0."""

from __future__ import annotations

import numpy as np

from e0_policy.embodiment import Embodiment
from sim.demonstration import PERIOD_NS, Demonstration
from sim.fr3_plant import INSTRUCTION, TASK, reach_goal

_MEAN_SPEED_RAD_S = 0.4


class ReachPlanner:
    """Plans Reach-v0 for an arm that starts at home."""

    def __init__(self, arm: Embodiment) -> None:
        self._arm = arm

    def plan(self, task: str, seed: int) -> Demonstration:
        """A straight line in joint space, at rest at both ends (Flash and Hogan, 1985).

        Raises:
            ValueError: another task than Reach-v0.

        """
        if task not in ("", TASK):
            raise ValueError(f"fr3_plant has no task {task!r}; it has {TASK}")
        start, goal = self._arm.home, reach_goal(self._arm, seed)
        steps = 1 + int(np.ceil(np.abs(goal - start).max() / _MEAN_SPEED_RAD_S * 1e9 / PERIOD_NS))
        s = np.linspace(0.0, 1.0, steps + 1)[1:, None]
        joints = start + (goal - start) * s**3 * (10.0 - 15.0 * s + 6.0 * s**2)
        return Demonstration(np.column_stack([joints, np.ones(steps)]), True, INSTRUCTION)

    def close(self) -> None:
        """Nothing to free."""
