"""Where things are in a random scene: the poses that a task comes through, and some around them.

Everything is in the base frame [m, rad]; quaternions are xyzw. A draw is a function of its generator alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from e0_policy.types import FloatArray
from e0_ros.config import closest

CENTRE_M = (0.615, 0.0)
"""Middle of ManiSkill's tables, from the base of the arm."""
_HALF_M = 0.02
_SPAWN_M, _MARGIN_M, _HIGHEST_M = 0.1, 0.02, 0.32
_ON_CUBE = 0.5  # gripper opening with a cube of 40 mm between the fingers
_PUSH_M = 0.2
_DOWN = np.array([math.sqrt(0.5), math.sqrt(0.5), 0.0, 0.0])
_TARGET = np.array([0.0, math.sqrt(0.5), 0.0, math.sqrt(0.5)])


@dataclass(frozen=True)
class Draw:
    """Poses `(7,)` x y z, quaternion of the tool, the object and the goal; `gripper_opening` in [0, 1]."""

    tool: FloatArray
    gripper_opening: float
    cube: FloatArray
    goal: FloatArray


@dataclass(frozen=True)
class Scenes:
    """What can be drawn for a task: the names of its object and its goal among the actors, and the draw."""

    object_name: str
    goal_name: str
    draw: Callable[[np.random.Generator], Draw]


def scenes_of(task: str) -> Scenes:
    """Random scenes of a task.

    Raises:
        ValueError: none for this task; says for which.

    """
    if task not in SCENES:
        raise ValueError(f"no random scenes for {task!r}{closest(task, SCENES)}")
    return SCENES[task]


def pick_cube(rng: np.random.Generator) -> Draw:
    """Arm anywhere (0.4), about to grasp (0.3), or with the cube between its fingers (0.3)."""
    phase = rng.choice(3, p=[0.4, 0.3, 0.3])
    cube = np.array([*_spot(rng), _HALF_M])
    goal = np.array([*_spot(rng), _HALF_M + rng.uniform(0.0, _HIGHEST_M)])
    yaw, opening = rng.uniform(-math.pi, math.pi), 1.0 if rng.random() < 0.8 else rng.uniform(0.0, 1.0)
    turn, tool = rng.uniform(-1.0, 1.0), anywhere(rng)
    if phase == 1:
        tool = cube + np.append(rng.normal(0.0, rng.choice([0.004, 0.02]), 2), rng.exponential(0.03))
        opening = max(opening, _ON_CUBE)
        turn = _nearest_quarter(yaw) + rng.normal(0.0, 0.06)
    elif phase == 2:
        tool[2] = _HALF_M if rng.random() < 0.25 else tool[2]
        yaw = turn + rng.integers(4) * math.pi / 2 + rng.normal(0.0, 0.02)
        across, along = rng.normal(0.0, 0.001), rng.normal(0.0, 0.004)
        cube = tool + np.append(_turned(across, along, turn), rng.normal(0.0, 0.004))
        cube[2] = max(cube[2], _HALF_M)
        opening = float(np.clip(_ON_CUBE + rng.normal(0.0, 0.01), 0.0, 1.0))
        if rng.random() < 0.4:
            goal = cube + rng.normal(0.0, 0.03, 3)
            goal[2] = max(goal[2], _HALF_M)
    upright = np.array([0.0, 0.0, 0.0, 1.0])
    return Draw(tool_pose(rng, tool, turn), opening, _turn_pose(cube, yaw, upright), np.concatenate([goal, upright]))


def push_cube(rng: np.random.Generator) -> Draw:
    """Cube at its start (0.5) or on its way to the target; arm anywhere (0.4) or behind the cube."""
    start = np.array([*_spot(rng), _HALF_M])
    goal = np.array([start[0] + _PUSH_M, start[1], 1e-3])
    pushed = 0.0 if rng.random() < 0.5 else rng.uniform(0.0, 0.25)
    cube = start + np.array([pushed, rng.normal(0.0, 0.1 * pushed + 1e-3), 0.0])
    yaw = rng.normal(0.0, 0.02 + 0.5 * pushed)
    tool = anywhere(rng)
    if rng.random() < 0.6:
        tool = cube + np.append(-rng.uniform(0.025, 0.09), rng.normal(0.0, 0.012, 2))
    opening = 0.0 if rng.random() < 0.85 else rng.uniform(0.0, 1.0)
    pose = _turn_pose(cube, yaw, np.array([0.0, 0.0, 0.0, 1.0]))
    return Draw(tool_pose(rng, tool, rng.normal(0.0, 0.08)), opening, pose, np.concatenate([goal, _TARGET]))


def _spot(rng: np.random.Generator) -> FloatArray:
    """On the table, where tasks put things, and a margin around."""
    reach = _SPAWN_M + _MARGIN_M
    return np.add(CENTRE_M, rng.uniform(-reach, reach, 2))


def anywhere(rng: np.random.Generator) -> FloatArray:
    """A place for the tool, low ones as likely as all others."""
    height = rng.uniform(0.02, 0.1) if rng.random() < 0.4 else rng.uniform(0.02, _HIGHEST_M)
    return np.array([*np.add(CENTRE_M, rng.uniform(-0.16, 0.16, 2)), height])


def tool_pose(rng: np.random.Generator, place: FloatArray, turn: float) -> FloatArray:
    """Tool pose looking down, turned about the vertical, tilted a little, never below the table."""
    tilt = np.array([*rng.normal(0.0, 0.04, 2), 0.0])
    pose = _turn_pose(np.array([*place[:2], max(place[2], 0.008)]), turn, _DOWN)
    pose[3:] = _times(np.append(tilt / 2.0, math.sqrt(1.0 - tilt @ tilt / 4.0)), pose[3:])
    return pose


def _nearest_quarter(yaw: float) -> float:
    """The turn within 45 degrees that is parallel to a cube's sides."""
    return (yaw + math.pi / 4) % (math.pi / 2) - math.pi / 4


def _turned(x: float, y: float, yaw: float) -> tuple[float, float]:
    c, s = math.cos(yaw), math.sin(yaw)
    return c * x - s * y, s * x + c * y


def _turn_pose(place: FloatArray, yaw: float, quaternion: FloatArray) -> FloatArray:
    turn = np.array([0.0, 0.0, math.sin(yaw / 2), math.cos(yaw / 2)])
    return np.concatenate([place, _times(turn, quaternion)])


def _times(a: FloatArray, b: FloatArray) -> FloatArray:
    """Product of two quaternions xyzw."""
    u, v = a[:3], b[:3]
    return np.append(a[3] * v + b[3] * u + np.cross(u, v), a[3] * b[3] - u @ v)


SCENES = {
    "PickCube-v1": Scenes("cube", "goal_site", pick_cube),
    "PushCube-v1": Scenes("cube", "goal_region", push_cube),
}
