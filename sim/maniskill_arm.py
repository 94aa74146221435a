"""Where the arm and the things of a ManiSkill environment are, and putting them elsewhere. Poses are in the base frame.

Poses are `(7,)`: x y z [m], quaternion xyzw.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from e0_policy.types import FloatArray
from e0_ros.config import closest

JOINTS = 7
FINGER_OPEN_M = 0.04
_TOOL = "panda_hand_tcp"
_FRAMES = {"goal": "goal_pose", "peg_head": "peg_head_pose"}
"""What some environments tell of besides their actors: where the actor that is moved has to go, and an end of it."""
_SCENERY = ("ground", "table-workspace")


def joint_positions(env: Any) -> FloatArray:
    """Positions of the arm's joints `(7,)` [rad]."""
    positions: FloatArray = env.agent.robot.get_qpos()[0, :JOINTS].double().numpy()
    return positions


def poses(env: Any) -> dict[str, FloatArray]:
    """Pose of the tool (`tcp`), of every actor but the scenery, and of `_FRAMES`."""
    base = env.agent.robot._objs[0].root_pose.inv()
    found = {"tcp": _pose(base * env.agent.tcp._objs[0].entity_pose)}
    for name, actor in env.scene.actors.items():
        if name not in _SCENERY:
            found[name] = _pose(base * actor._objs[0].pose)
    for name, attribute in _FRAMES.items():
        if hasattr(env, attribute):
            found[name] = _pose(base * getattr(env, attribute).sp)
    return found


def reach(env: Any, tool: FloatArray, near: FloatArray) -> FloatArray | None:
    """Joint positions `(7,)`, inside the limits, with the tool at this pose; None if there are none.

    Found from the joint positions `near`. Nothing moves.
    """
    import sapien

    robot = env.agent.robot._objs[0]
    link = next(i for i, one in enumerate(robot.get_links()) if one.name.endswith(_TOOL))
    goal = sapien.Pose(tool[:3], tool[[6, 3, 4, 5]])
    start, mask = np.concatenate([near, [0.0, 0.0]]), [1] * JOINTS + [0, 0]
    solve = robot.create_pinocchio_model().compute_inverse_kinematics
    found, solved, _ = solve(link, goal, initial_qpos=start, active_qmask=mask, max_iterations=200)
    low, high = robot.get_qlimits()[:JOINTS].T
    joints: FloatArray = np.asarray(found, np.float64)[:JOINTS]
    return joints if solved and ((low <= joints) & (joints <= high)).all() else None


def place(env: Any, position: FloatArray, gripper_opening: float, things: Mapping[str, FloatArray]) -> None:
    """Put arm and actors somewhere at rest, without a step of physics; the drives hold the arm there.

    Raises:
        ValueError: no such actor; the closest one is named.

    """
    import sapien

    robot, actors = env.agent.robot, env.scene.actors
    for name in things:
        if name not in actors:
            raise ValueError(f"{env.spec.id} has no actor {name!r}{closest(name, actors)}")
    body, whole = robot._objs[0], np.array([*position, *[gripper_opening * FINGER_OPEN_M] * 2], np.float32)
    body.set_qpos(whole)
    body.set_qvel(np.zeros_like(whole))
    for joint, target in zip(body.get_active_joints(), whole.tolist(), strict=True):
        joint.set_drive_target(target)
    for name, pose in things.items():
        actors[name]._objs[0].set_pose(body.root_pose * sapien.Pose(pose[:3], pose[[6, 3, 4, 5]]))


def _pose(pose: Any) -> FloatArray:
    """From SAPIEN's quaternion wxyz."""
    return np.concatenate([pose.p, pose.q[[1, 2, 3, 0]]], dtype=np.float64)
