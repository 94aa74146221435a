"""Detour-v0: bring the tool to a target behind a post, around it on the left or on the right. Both ways are as good.

The post stands on the straight line to the target, so that neither the scene nor the start tells which way a
demonstration goes: that is drawn by a seed of its own. A policy that averages the ways runs into the post. There is no
physics: the post is drawn into the pictures, and the tool's path is known from the joint positions.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from e0_policy.embodiment import Embodiment
from e0_policy.kinematics import tcp_position_m
from e0_policy.synthetic import Window, disc, table
from e0_policy.types import FloatArray, ImageArray
from sim.adapter import Privileged

TASK = "Detour-v0"
INSTRUCTION = "go around the post to the target"
MAX_STEPS = 45
LEFT, RIGHT = "left", "right"

POST_RADIUS_M = 0.05
REACHED_M = 0.03
STRAY_M = 0.03
"""How far a path may lie on the other side of the straight line and still count as one way."""
_STEPS = 26
_CLEARANCE_M = (0.03, 0.05)
_WINDOW_M: Window = ((0.2, 0.72), (-0.26, 0.26))
_WRIST_M = 0.12
_TARGET_RGB, _POST_RGB, _TOOL_RGB = (40, 200, 60), (220, 40, 40), (250, 250, 250)


@dataclass(frozen=True)
class DetourScene:
    """Where target and post are, `(3,)` [m] in the base frame, and the tool's home."""

    home_m: FloatArray
    target_m: FloatArray
    post_m: FloatArray


def draw_scene(arm: Embodiment, seed: int) -> DetourScene:
    """A target 24 to 28 cm from the tool's home in its plane, towards the middle of the table; the post halfway."""
    rng, home = np.random.default_rng([seed, 4]), tcp_position_m(arm.home)
    inwards = 1.0 if home[0] < 0.46 else -1.0
    angle, distance = rng.uniform(-0.5, 0.5), rng.uniform(0.24, 0.28)
    target = home + distance * np.array([inwards * np.cos(angle), np.sin(angle), 0.0])
    return DetourScene(home, target, home + rng.uniform(0.47, 0.53) * (target - home))


def draw_path(scene: DetourScene, start: FloatArray, way_seed: int) -> FloatArray:
    """Tool positions `(steps, 3)` [m] from joint positions `start`, on the side that `way_seed` draws."""
    rng = np.random.default_rng([way_seed, 5])
    offset = rng.choice([-1.0, 1.0]) * (POST_RADIUS_M + rng.uniform(*_CLEARANCE_M))
    u = np.linspace(0.0, 1.0, _STEPS + 1)[1:, None]
    s, begin = u**2 * (3.0 - 2.0 * u), tcp_position_m(start)
    path: FloatArray = begin + s * (scene.target_m - begin) + offset * np.sin(np.pi * s) * _axes(scene)[1]
    return path


def follow(path: FloatArray, start: FloatArray) -> FloatArray:
    """Joint positions `(steps, 7)` [rad] whose tool is on a path `(steps, 3)`: the nearest ones, by Newton's method."""
    rows, q = [], start
    for point in path:
        for _ in range(2):
            found = tcp_position_m(np.concatenate([q[None], q + 1e-6 * np.eye(len(q))]))
            q = q + np.linalg.pinv((found[1:] - found[0]).T / 1e-6) @ (point - found[0])
        rows.append(q)
    return np.array(rows)


def draw(scene: DetourScene, view: str, positions: FloatArray, height: int, width: int) -> ImageArray:
    """The table from above `uint8 (height, width, 3)`; `wrist` is a window that follows the tool."""
    tool = tcp_position_m(positions)[:2]
    near: Window = ((tool[0] - _WRIST_M, tool[0] + _WRIST_M), (tool[1] - _WRIST_M, tool[1] + _WRIST_M))
    window, side = (near if view == "wrist" else _WINDOW_M), min(height, width)
    picture = table(window, side)
    discs = (scene.target_m, 0.03, _TARGET_RGB), (scene.post_m, POST_RADIUS_M, _POST_RGB), (tool, 0.02, _TOOL_RGB)
    for centre, radius_m, rgb in discs:
        picture = disc(picture, window, centre[:2], radius_m, rgb)
    image = np.zeros((height, width, 3), np.uint8)
    image[:side, :side] = np.rint(picture)
    return image


class Run:
    """Judges the path of one episode.

    Attributes:
        scene: where things are.

    """

    def __init__(self, scene: DetourScene, start: FloatArray) -> None:
        self.scene = scene
        self._new: list[FloatArray] = [start]
        self._entered = self._passed = self._reached = False
        self._left_m = self._right_m = 0.0

    def moved(self, positions: FloatArray) -> None:
        """The arm is at these joint positions `(7,)` now."""
        self._new.append(positions)

    def privileged(self) -> Privileged:
        """Success: at the target now, and never in the post before. The way: see `way`."""
        if self._new:
            self._judge(tcp_position_m(np.array(self._new)))
            self._new = []
        return Privileged(self._reached and not self._entered, way=self.way)

    @property
    def way(self) -> str:
        """`left` or `right` of the post, if the tool got past it outside of it and kept to that side all the way."""
        if not self._passed or self._entered:
            return ""
        if self._right_m < STRAY_M:
            return LEFT
        return RIGHT if self._left_m < STRAY_M else ""

    def _judge(self, tools: FloatArray) -> None:
        """Take in tool positions `(n, 3)`."""
        scene, (along, left) = self.scene, _axes(self.scene)
        from_post = tools - scene.post_m
        self._entered |= bool((np.hypot(*from_post[:, :2].T) < POST_RADIUS_M).any())
        self._passed |= bool((from_post @ along > 0.0).any())
        self._left_m = max(self._left_m, float((from_post @ left).max()))
        self._right_m = max(self._right_m, float((from_post @ -left).max()))
        self._reached = bool(np.linalg.norm(tools[-1] - scene.target_m) < REACHED_M)


def _axes(scene: DetourScene) -> tuple[FloatArray, FloatArray]:
    """Unit vectors from home to target, and to the left of that, both in the plane."""
    along = (scene.target_m - scene.home_m) / np.linalg.norm(scene.target_m - scene.home_m)
    return along, np.array([-along[1], along[0], 0.0])
