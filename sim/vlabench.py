"""VLABench behind the adapter protocols: a Franka that follows joint positions at 10 Hz in dm_control.

Written against VLABench's `load_env` and its `Evaluator` (github.com/OpenMOSS/VLABench at 47b04bf): one set-point, one
`env.step` of seven joints and two fingers; the task's own conditions end an episode, which is success. Scenes are those
of its track 1 (in distribution), fifty a task. Its objects could not be had here: no episode of it was ever run.
"""

from __future__ import annotations

import importlib
import json
import os
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from e0_policy.types import FloatArray, ImageArray
from e0_ros.config import ConfigError, closest
from e0_ros.core.camera_model import CameraModel
from sim.adapter import Privileged, Scene
from sim.mujoco_camera import FLANGE_ON_LINK7, camera, matrix, pose

TASKS = ("select_toy", "select_fruit", "select_painting", "select_poker", "select_mahjong")
"""Those of the E0 paper."""
CAMERAS = {"right": 0, "left": 1, "base": 2, "wrist": 3}
"""Views by VLABench's numbers; `base` is its front camera."""
TRACK = "configs/evaluation/tracks/track_1_in_distribution.json"
MAX_STEPS = {"select_painting": 100, "select_poker": 100}
"""Where VLABench's configuration says so; its evaluator has 200 otherwise."""
FINGER_OPEN_M, JOINTS = 0.04, 7
_CURE = (
    "clone github.com/OpenMOSS/VLABench into an interpreter of its own (mujoco 3.2.2, dm_control 1.0.22, numpy 1.25, "
    "open3d), run its scripts/download_assets.py, set VLABENCH_ROOT to the clone's VLABench folder, PYTHONPATH to the "
    "clone, and name the interpreter with sim_python"
)


def missing() -> str:
    """What of VLABench is not here, with the cure; empty if nothing."""
    if find_spec("VLABench") is None:
        return f"VLABench is not installed: {_CURE}"
    root = os.environ.get("VLABENCH_ROOT", "")
    if not (Path(root) / TRACK).is_file():
        return f"VLABENCH_ROOT is {root!r}, where no {TRACK} is: {_CURE}"
    if not (Path(root) / "assets" / "obj").is_dir():
        return f"its objects are missing ({root}/assets/obj): {_CURE}"
    return ""


class VlabenchAdapter:
    """`sim.adapter.SimAdapter` and `RowAdapter` over one VLABench environment; a seed is the number of a scene.

    Raises:
        ConfigError: unknown view, or something is missing.

    """

    embodiment = "panda"
    columns = JOINTS + 1
    tasks = TASKS
    control_period_ns = physics_period_ns = 100_000_000

    def __init__(self, views: tuple[str, ...] = ("base", "wrist"), width_px: int = 224, height_px: int = 224) -> None:
        for view in views:
            if view not in CAMERAS:
                raise ConfigError(f"VLABench has no view {view!r}{closest(view, CAMERAS)}")
        if lacking := missing():
            raise ConfigError(lacking)
        os.environ.setdefault("MUJOCO_GL", "egl")
        self.views, self._size = views, (width_px, height_px)
        self._env: Any = None
        self._done, self._target = False, np.zeros(JOINTS + 2)

    def reset(self, task: str, seed: int) -> Scene:
        """Build a scene of the track.

        Raises:
            ValueError: unknown task or scene; nothing has changed then.
            ConfigError: the environment steps at another rate than this adapter was written for.

        """
        if task not in TASKS:
            raise ValueError(f"VLABench has no task {task!r}{closest(task, TASKS)}")
        scenes = _track()[task]
        if not 0 <= seed < len(scenes):
            raise ValueError(f"seed is {seed}; {task} has the scenes 0 to {len(scenes) - 1}")
        self.close()
        for module in ("VLABench.tasks", "VLABench.robots"):  # they register themselves
            importlib.import_module(module)
        load_env = importlib.import_module("VLABench.envs").load_env
        self._env = load_env(task, episode_config=scenes[seed], random_init=False, eval=False, run_mode="eval")
        self._env.reset()
        if round(self._env.control_timestep() * 1e9) != self.control_period_ns:
            raise ConfigError(f"VLABench steps every {self._env.control_timestep()} s; 0.1 s was expected")
        self._done, self._target = False, np.append(self.joint_state()[0], [FINGER_OPEN_M] * 2)
        return Scene(task, seed, str(self._env.task.get_instruction() or ""), MAX_STEPS.get(task, 200))

    def step(self, position: FloatArray, velocity: FloatArray, gripper_opening: float) -> None:
        """One `env.step` towards a set-point; VLABench takes positions alone."""
        self._target = np.append(position, [np.clip(gripper_opening, 0.0, 1.0) * FINGER_OPEN_M] * 2)
        self.stand()

    def act(self, row: FloatArray) -> None:
        """One `env.step` towards a row `(8,)`: joint positions [rad], opening.

        Raises:
            ValueError: another number of columns.

        """
        if np.shape(row) != (self.columns,):
            raise ValueError(f"a row of VLABench has {self.columns} numbers, got {np.shape(row)}")
        self.step(row[:-1], np.zeros(JOINTS), float(row[-1]))

    def stand(self) -> None:
        """One `env.step` towards the last set-point; a scene that was solved stays as it is."""
        if not self._done:
            self._done = bool(self._env.step(self._target).last())

    def joint_state(self) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Positions and velocities as VLABench tells them; it tells no efforts."""
        robot, physics = self._env.robot, self._env.physics
        position, velocity = (np.asarray(get(physics), np.float64) for get in (robot.get_qpos, robot.get_qvel))
        return position, velocity, np.full(JOINTS, np.nan)

    def gripper_opening(self) -> float:
        """Mean of both fingers."""
        robot, physics = self._env.robot, self._env.physics
        fingers = [physics.bind(robot.mjcf_model.find("joint", f"finger_joint{i}")).qpos for i in (1, 2)]
        return float(np.clip(np.mean(fingers) / FINGER_OPEN_M, 0.0, 1.0))

    def start_render(self) -> None:
        """Nothing: MuJoCo draws in the calling thread."""

    def pictures_ready(self) -> bool:
        """They are made when they are asked for."""
        return True

    def finish_render(self) -> dict[str, ImageArray]:
        """Draw every view."""
        width, height = self._size
        draw = self._env.render
        return {v: np.ascontiguousarray(draw(camera_id=CAMERAS[v], height=height, width=width)) for v in self.views}

    def cameras(self) -> dict[str, CameraModel]:
        """The wrist's camera on the flange, the others on the base."""
        physics, flange = self._env.physics, self._body("link7") @ FLANGE_ON_LINK7
        parents = dict.fromkeys(CAMERAS, ("base", self._body("link0"))) | {"wrist": ("flange", flange)}
        model, data = physics.model, physics.data
        return {view: camera(model, data, CAMERAS[view], self._size, *parents[view]) for view in self.views}

    def nominal_cameras(self) -> dict[str, CameraModel]:
        """The same: cameras are never moved here."""
        return self.cameras()

    def privileged(self) -> Privileged:
        """Success once the task's conditions were met; pose of the tool alone."""
        robot, physics = self._env.robot, self._env.physics
        site = physics.bind(robot.end_effector_site)
        tcp = np.linalg.inv(self._body("link0")) @ matrix(np.asarray(site.xpos), np.asarray(site.xmat))
        return Privileged(self._done, {"tcp": pose(tcp)})

    def _body(self, name: str) -> FloatArray:
        bound = self._env.physics.bind(self._env.robot.mjcf_model.find("body", name))
        return matrix(np.asarray(bound.xpos), np.asarray(bound.xmat))

    def close(self) -> None:
        """Free the environment."""
        if self._env is not None:
            self._env.close()
        self._env = None


@cache
def _track() -> dict[str, list[Any]]:
    path = Path(os.environ["VLABENCH_ROOT"]) / TRACK
    found: dict[str, list[Any]] = json.loads(path.read_text(encoding="utf-8"))
    return found
