"""A plant with no physics: the arm follows its set-point, the cameras see coloured bars. Ready in milliseconds.

It stands in for a robot or a simulator in fast tests, and later for the bench. Every picture is a function of the joint
positions, the gripper and the time, so that a frozen, late or swapped stream shows.
"""

from __future__ import annotations

import math
import re

import numpy as np
from numpy.typing import NDArray

from e0_policy.embodiment import Embodiment, load_embodiment
from e0_policy.types import FloatArray, ImageArray
from e0_ros.config import closest
from e0_ros.core.camera_model import CameraModel, pose_matrix
from sim import detour
from sim.adapter import Privileged, Scene

PHYSICS_PERIOD_NS = 1_000_000
GRIPPER_SPEED_M_S = 0.1
REACHED_RAD = 0.02
TASK = "Reach-v0"
INSTRUCTION = "move every joint to its mark"
_ON_FLANGE = (0.03, 0.0, -0.02), (0.0, 0.0, 0.0, 1.0)
_IN_FRONT = (1.2, 0.0, 0.7), (-0.596368, -0.596368, 0.379928, 0.379928)
"""Position [m] and quaternion xyzw of optical frames; the one in front looks back at the arm, 25 degrees down."""
_VIEW = re.compile(r"[a-z][a-z0-9_]{0,31}")
_BARS = np.array(
    [[230, 60, 60], [240, 150, 40], [240, 220, 60], [80, 200, 90], [70, 190, 230], [70, 90, 230], [180, 80, 220]],
    np.uint8,
)


TASKS = {TASK: INSTRUCTION, detour.TASK: detour.INSTRUCTION}
"""The instruction of every task."""


def start_positions(arm: Embodiment, seed: int) -> FloatArray:
    """Joint positions `(joints,)` [rad] after a reset: home, up to 0.02 rad off."""
    start: FloatArray = arm.home + np.random.default_rng([seed, 0]).uniform(-0.02, 0.02, arm.joints)
    return start


def reach_goal(arm: Embodiment, seed: int) -> FloatArray:
    """Goal of Reach-v0 `(joints,)` [rad]: up to 0.4 rad from home, inside the limits. Privileged."""
    offset = np.random.default_rng([seed, 1]).uniform(-0.4, 0.4, arm.joints)
    goal: FloatArray = np.clip(arm.home + offset, arm.position_lower + 0.05, arm.position_upper - 0.05)
    return goal


class Fr3Plant:
    """The adapter (`sim.adapter.SimAdapter`) of the plant.

    Args:
        views: names of the cameras, the reference view first.
        embodiment: `fr3` or `panda`.
        control_period_ns: time between images, a multiple of 1 ms.
        lag_s: time constant of a first-order lag between set-point and arm; 0 follows exactly.
        object_m: width of what the fingers close on; 0: nothing.

    Raises:
        ValueError: a view's name is malformed or given twice, or a size or period is out of range.

    """

    tasks = tuple(TASKS)
    physics_period_ns = PHYSICS_PERIOD_NS

    def __init__(
        self,
        views: tuple[str, ...] = ("base", "wrist"),
        width_px: int = 224,
        height_px: int = 224,
        embodiment: str = "fr3",
        control_period_ns: int = 50_000_000,
        lag_s: float = 0.0,
        object_m: float = 0.0,
    ) -> None:
        if not views or len(set(views)) != len(views) or not all(_VIEW.fullmatch(view) for view in views):
            raise ValueError(f"views are {views}; at least one is needed, each once, of [a-z][a-z0-9_]{{0,31}}")
        if control_period_ns <= 0 or control_period_ns % PHYSICS_PERIOD_NS:
            raise ValueError(f"control period is {control_period_ns} ns; it must be a multiple of {PHYSICS_PERIOD_NS}")
        self.embodiment, self.views, self.control_period_ns = embodiment, views, control_period_ns
        self._arm = load_embodiment(embodiment)
        self._gain = 1.0 if lag_s <= 0 else 1.0 - math.exp(-PHYSICS_PERIOD_NS / 1e9 / lag_s)
        self._gripper_step = GRIPPER_SPEED_M_S / self._arm.gripper_width_m * PHYSICS_PERIOD_NS / 1e9
        self._narrowest = object_m / self._arm.gripper_width_m
        self._pictures = [_background(index, width_px, height_px) for index in range(len(views))]
        self.reset(TASK, 0)

    def reset(self, task: str, seed: int) -> Scene:
        """Place the arm near its home and draw a goal.

        Raises:
            ValueError: unknown task.

        """
        if task not in self.tasks:
            raise ValueError(f"no task {task!r} in fr3_plant{closest(task, self.tasks)}")
        start = start_positions(self._arm, seed)
        self._positions: FloatArray = start
        self._velocities = np.zeros(self._arm.joints)
        self._efforts = np.zeros(self._arm.joints)
        self._opening = 1.0
        self._steps = 0
        self._goal = reach_goal(self._arm, seed)
        self._detour = detour.Run(detour.draw_scene(self._arm, seed), start) if task == detour.TASK else None
        self._rendering = (start, 1.0, 0)
        return Scene(task, seed, TASKS[task], detour.MAX_STEPS if self._detour else 200)

    def joint_state(self) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Positions [rad], velocities [rad/s] and efforts (all zero)."""
        return self._positions, self._velocities, self._efforts

    def gripper_opening(self) -> float:
        """Opening in [0, 1]."""
        return self._opening

    def step(self, position: FloatArray, velocity: FloatArray, gripper_opening: float) -> None:
        """Advance by 1 ms."""
        if self._gain == 1.0:
            self._positions, self._velocities = position, velocity
        else:
            change = self._gain * (position - self._positions)
            self._positions, self._velocities = self._positions + change, change / (PHYSICS_PERIOD_NS / 1e9)
        if self._detour:
            self._detour.moved(self._positions)
        change_g = gripper_opening - self._opening
        opening = self._opening + min(max(change_g, -self._gripper_step), self._gripper_step)
        self._opening = max(opening, min(self._narrowest, self._opening))
        self._steps += 1

    def start_render(self) -> None:
        """Keep what the pictures will show."""
        self._rendering = (self._positions, self._opening, self._steps)

    def pictures_ready(self) -> bool:
        """Always: they are drawn when they are asked for."""
        return True

    def finish_render(self) -> dict[str, ImageArray]:
        """Draw one bar per joint with its goal as a mark, the gripper as a gap at the top, and a moving clock.

        Detour-v0 is drawn as a scene (`sim.detour`).
        """
        if self._detour:
            sizes, positions = [picture.shape[:2] for picture in self._pictures], self._rendering[0]
            scene = self._detour.scene
            return {v: detour.draw(scene, v, positions, *size) for v, size in zip(self.views, sizes, strict=True)}
        return {view: self._draw(self._pictures[i].copy()) for i, view in enumerate(self.views)}

    def _draw(self, image: ImageArray) -> ImageArray:
        positions, opening, steps = self._rendering
        height, width, _ = image.shape
        column = width / (self._arm.joints + 1)
        bars, marks = self._rows(positions, height), self._rows(self._goal, height)
        for joint, (bar, mark) in enumerate(zip(bars, marks, strict=True)):
            left, right = int((joint + 0.5) * column), int((joint + 1.3) * column)
            image[bar - height // 40 : bar + height // 40 + 1, left:right] = _BARS[joint % len(_BARS)]
            image[mark, left:right] = 255
        gap = int((0.05 + 0.4 * opening) * width / 2)
        image[: height // 20, width // 2 - gap : width // 2 + gap] = 255
        clock = steps * 7 % width
        image[-(height // 20) :, clock : clock + width // 20] = 255
        return image

    def _rows(self, positions: FloatArray, height: int) -> list[int]:
        arm = self._arm
        part = (positions - arm.position_lower) / (arm.position_upper - arm.position_lower)
        rows: NDArray[np.int64] = (height * (0.9 - 0.8 * np.clip(part, 0.0, 1.0))).astype(np.int64)
        return [int(row) for row in rows]

    def cameras(self) -> dict[str, CameraModel]:
        """Made up, for the pictures show no scene."""
        sizes = [picture.shape[:2] for picture in self._pictures]
        return {view: made_up_camera(view, w, h) for view, (h, w) in zip(self.views, sizes, strict=True)}

    def nominal_cameras(self) -> dict[str, CameraModel]:
        """The same: nobody moves them."""
        return self.cameras()

    def privileged(self) -> Privileged:
        """Success of Reach-v0: every joint within 0.02 rad of the goal, at less than 0.05 rad/s."""
        if self._detour:
            return self._detour.privileged()
        near = np.abs(self._positions - self._goal).max() < REACHED_RAD
        return Privileged(bool(near and np.abs(self._velocities).max() < 0.05))

    def close(self) -> None:
        """Nothing to free."""


def _background(index: int, width: int, height: int) -> ImageArray:
    """A gradient with a faint texture, another one for each view."""
    if not (16 <= width <= 4096 and 16 <= height <= 4096):
        raise ValueError(f"images are {width} x {height} px; allowed is 16 to 4096")
    rows, columns = np.mgrid[0:height, 0:width]
    noise = np.random.default_rng([index, 2]).integers(0, 24, (height, width))
    channels = [40 + 60 * rows // height, 40 + 60 * columns // width, 60 + 20 * (index % 4) + 0 * rows]
    image: ImageArray = np.stack([channel + noise for channel in channels], axis=2).astype(np.uint8)
    return image


def made_up_camera(view: str, width_px: int, height_px: int) -> CameraModel:
    """A camera without a scene: `wrist` on the flange, any other 1 m in front of the base."""
    focal_px, on_flange = 0.8 * width_px, view == "wrist"
    intrinsics = np.array([[focal_px, 0.0, (width_px - 1) / 2], [0.0, focal_px, (height_px - 1) / 2], [0.0, 0.0, 1.0]])
    pose = pose_matrix(*(_ON_FLANGE if on_flange else _IN_FRONT))
    return CameraModel(width_px, height_px, intrinsics, "flange" if on_flange else "base", pose)
