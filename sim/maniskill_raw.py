"""ManiSkill as its benchmark runs it: one row, one `env.step` of its own `pd_joint_pos` controller at 20 Hz."""

from __future__ import annotations

import numpy as np

from e0_policy.types import FloatArray
from sim.maniskill import CONTROL_HZ, ManiSkillAdapter
from sim.maniskill_arm import JOINTS


class ManiSkillRaw(ManiSkillAdapter):
    """The same scenes, pictures and verdicts as `ManiSkillAdapter`, moved by the benchmark's own controller."""

    drive = ("pd_joint_pos", CONTROL_HZ)
    columns = JOINTS + 1

    def act(self, row: FloatArray) -> None:
        """One control step towards a row `(8,)`: joint positions [rad], gripper opening in [0, 1]."""
        action = np.append(row[:-1], 2.0 * np.clip(row[-1], 0.0, 1.0) - 1.0)
        self._env.step(action.astype(np.float32))

    def stand(self) -> None:
        """One control step towards where the arm is."""
        self.act(np.append(self.joint_state()[0], self.gripper_opening()))
