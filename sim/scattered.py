"""Scattered starts: the arm anywhere over the table or beside the object, the gripper as a missed grasp leaves it.

Demonstrations that start from the task's own pose never show what to do after a miss. These do, without a miss being
shown as something to imitate: the arm is put there before the episode begins, and the expert goes on from there.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from e0_policy.types import FloatArray
from sim.maniskill_arm import joint_positions, place, poses, reach
from sim.maniskill_tasks import TASKS
from sim.scene_sampling import anywhere, tool_pose

_TRIES = 50
_NEAR = 0.6  # share of the starts beside or over the object
_CLEAR_M, _CLEAR_OPEN_M, _OVER_M = 0.05, 0.05, 0.065


@dataclass(frozen=True)
class Start:
    """Tool pose `(7,)` in the base frame [m, xyzw] and gripper opening in [0, 1]."""

    tool: FloatArray
    gripper_opening: float


def draw_start(rng: np.random.Generator, thing: FloatArray, lowest_m: float = 0.0) -> Start:
    """A start around an object at `thing` `(3,)` [m], whose size is that of ManiSkill's cubes.

    The fingers are clear of it: above, or so far beside it that they would not touch it if they were turned. Where
    other things lie about, `lowest_m` keeps them above those.
    """
    opening = 1.0 if rng.random() < 0.3 else float(rng.uniform(0.0, 1.0))
    if rng.random() < _NEAR:
        clear = _CLEAR_M + _CLEAR_OPEN_M * opening
        angle, off = rng.uniform(-math.pi, math.pi), rng.uniform(0.0, clear + 0.04)
        low = 0.015 if off > clear else _OVER_M
        spot = np.array(
            [thing[0] + off * math.cos(angle), thing[1] + off * math.sin(angle), low + rng.exponential(0.02)]
        )
    else:
        spot = anywhere(rng)
        if np.hypot(*(spot - thing)[:2]) < _CLEAR_M + _CLEAR_OPEN_M * opening:
            spot[2] = max(spot[2], _OVER_M)
    spot[2] = max(spot[2], lowest_m)
    return Start(tool_pose(rng, spot, rng.uniform(-0.6, 0.6)), opening)


def scatter(env: Any, seed: int) -> None:
    """Put the arm of a fresh scene at the start of that seed.

    Raises:
        ValueError: no scattered start for this task, or none within reach.

    """
    rng = np.random.default_rng((seed, 0x57A7))
    home, known = joint_positions(env), TASKS[env.spec.id]
    thing = poses(env)[known.object_name][:3]
    lowest_m = _OVER_M if known.solver == "stack_cube" else 0.0
    for _ in range(_TRIES):
        start = draw_start(rng, thing, lowest_m)
        joints = reach(env, start.tool, home)
        if joints is not None:
            place(env, joints, start.gripper_opening, {})
            return
    raise ValueError(f"{env.spec.id}, seed {seed}: none of {_TRIES} scattered starts is within reach")
