"""The expert of the plant without physics: a minimum-jerk move for Reach-v0, a way around the post for Detour-v0."""

from __future__ import annotations

import numpy as np

from e0_policy.embodiment import Embodiment
from e0_policy.types import FloatArray
from e0_ros.config import closest
from sim import detour
from sim.demonstration import PERIOD_NS
from sim.fr3_plant import TASK, TASKS, reach_goal, start_positions
from sim.scripted import Seen

_MEAN_SPEED_RAD_S = 0.4


class PlantPlanner:
    """Plans the tasks of fr3_plant."""

    def __init__(self, arm: Embodiment) -> None:
        self._arm = arm
        self._rows: FloatArray | None = None

    def begin(self, task: str, seed: int) -> str:
        """Plan the whole of a task, from rest to rest; which way, where there are two, is drawn by the same seed.

        Raises:
            ValueError: unknown task.

        """
        if task not in ("", *TASKS):
            raise ValueError(f"fr3_plant has no task {task!r}{closest(task, TASKS)}")
        rows = plan_detour(self._arm, seed, seed) if task == detour.TASK else self._reach(seed)
        self._rows = np.column_stack([rows, np.ones(len(rows))])
        return TASKS[task or TASK]

    def motion(self, seen: Seen) -> FloatArray | None:
        """The whole of it, once."""
        rows, self._rows = self._rows, None
        return rows

    def _reach(self, seed: int) -> FloatArray:
        """A straight line in joint space from home (Flash and Hogan, 1985)."""
        start, goal = self._arm.home, reach_goal(self._arm, seed)
        steps = 1 + int(np.ceil(np.abs(goal - start).max() / _MEAN_SPEED_RAD_S * 1e9 / PERIOD_NS))
        s = np.linspace(0.0, 1.0, steps + 1)[1:, None]
        rows: FloatArray = start + (goal - start) * s**3 * (10.0 - 15.0 * s + 6.0 * s**2)
        return rows


def plan_detour(arm: Embodiment, seed: int, way_seed: int) -> FloatArray:
    """Joint positions `(steps, joints)` [rad] of one way through the scene of `seed`; `way_seed` draws which."""
    start = start_positions(arm, seed)
    return detour.follow(detour.draw_path(detour.draw_scene(arm, seed), start, way_seed), start)
