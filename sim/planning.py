"""The experts of ManiSkill's tasks: `sim.solutions` as rows of joint positions, one motion at a time."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from e0_policy.embodiment import Embodiment
from e0_policy.kinematics import tcp_pose_and_jacobian
from e0_policy.types import FloatArray
from e0_ros.core.camera_model import pose_matrix
from sim import solutions
from sim.maniskill_tasks import Task, task_named
from sim.scripted import Seen
from sim.solutions import Grip, Motion, View
from sim.straight import straight_rows

_SETTLE_ROWS = 20
"""The last row is held for so long, to be a success at rest."""


class ManiSkillPlanner:
    """Plans the next motion from where the last one has led to. It needs no simulator."""

    def __init__(self, arm: Embodiment) -> None:
        self._arm = arm
        self._motions: Iterator[Motion] = iter(())

    def begin(self, task: str, seed: int) -> str:
        """Forget the episode before; the instruction of this one. What the seed holds is seen then.

        Raises:
            ValueError: unknown task.

        """
        known = task_named(task)
        self._view, self._reference = View(), None
        self._motions = self._solve(known)
        return known.instruction

    def _solve(self, task: Task) -> Iterator[Motion]:
        if task.scattered:
            yield from solutions.rise(self._view)
        yield from getattr(solutions, task.solver)(self._view)
        yield Grip(self._view.opening, _SETTLE_ROWS)

    def motion(self, seen: Seen) -> FloatArray | None:
        """Rows `(n, 8)` of joints [rad] and opening for the next motion; None when there is none, or no way to it."""
        view = self._view
        if self._reference is None:
            self._reference, view.opening = seen.joint_positions, seen.gripper_opening
        view.poses = {name: pose_matrix(pose[:3], pose[3:]) for name, pose in seen.poses.items()}
        view.tool = tcp_pose_and_jacobian(self._reference)[0]
        motion = next(self._motions, None)
        rows = None if motion is None else self._rows(motion, self._reference)
        if rows is None:
            self._motions = iter(())
            return None
        self._reference = rows[-1]
        return np.column_stack([rows, np.full(len(rows), view.opening)])

    def _rows(self, motion: Motion, reference: FloatArray) -> FloatArray | None:
        if isinstance(motion, Grip):
            self._view.opening = motion.opening
            return np.tile(reference, (motion.rows, 1))
        rows = straight_rows(self._arm, reference, motion.tool, motion.speed)
        return None if rows is None else np.vstack([rows, *[rows[-1:]] * motion.rest])
