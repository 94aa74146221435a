"""What an expert does when ManiSkill's solution ended without success: it looks where things are and tries again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

_TRIES = 2
_CORRECTIONS = 3
_BACK_M = 0.05


def plug_again(env: Any) -> None:
    """Draw the charger back, bring it before the receptacle by where it really is in the hand, and push it in.

    ManiSkill's solution aligns it once, by the measured tool; the arm's own error under load stays in. Here each
    correction moves what is commanded, as its solution of PegInsertionSide does.
    """
    import sapien
    from mani_skill.examples.motionplanning.panda.motionplanner import PandaArmMotionPlanningSolver as Solver

    scene = env.unwrapped
    planner = Solver(env, False, False, scene.agent.robot.pose, False, False, 0.5, 0.5)
    planner.gripper_state = planner.CLOSED
    goal = scene.goal_pose.sp
    before = goal * sapien.Pose([-_BACK_M, 0.0, 0.0])
    tool = scene.agent.tcp.pose.sp
    for _ in range(_TRIES):
        for _ in range(1 + _CORRECTIONS):
            if not bool(scene.agent.is_grasping(scene.charger)):
                return
            tool = before * scene.charger.pose.sp.inv() * tool
            planner.move_to_pose_with_screw(tool, refine_steps=5)
        tool = goal * before.inv() * tool
        planner.move_to_pose_with_screw(tool, refine_steps=5)


AGAIN: dict[str, Callable[[Any], None]] = {"solvePlugCharger": plug_again}
"""By the name of a solution."""
