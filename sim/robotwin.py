"""RoboTwin 2.0 behind the row protocol: two arms that follow joint positions, one `take_action` a row.

Written against RoboTwin's tasks and its evaluation script (github.com/RoboTwin-Platform/RoboTwin at cf47ab5): rows are
its `qpos` actions, left arm, left gripper, right arm, right gripper. A row takes as much physics as RoboTwin's own time
parametrisation wants, so the time of a control step is nominal. Its assets come from a hub: no episode was ever run.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from e0_policy.embodiment import load_embodiment
from e0_policy.types import FloatArray, ImageArray
from e0_ros.config import ConfigError, closest
from e0_ros.core.camera_model import CameraModel
from e0_ros.core.decode import resize_with_pad
from e0_ros.core.step_rows import TWO_ARMS
from sim.adapter import Privileged, Scene
from sim.paper import AVERAGE, paper_tables

CAMERAS = {"base": "head_camera", "left_wrist": "left_camera", "right_wrist": "right_camera"}
"""Views by RoboTwin's names."""
FIRST_SEED = 100_000
"""RoboTwin's evaluation counts its seeds from here."""
_LIMITS, _SCRIPT = "env_cfg/task_config/_eval_step_limit.yml", "scripts/eval_policy_xpolicylab.py"
_CURE = (
    "clone github.com/RoboTwin-Platform/RoboTwin, make an interpreter by its scripts/_install.sh (sapien 3.0.0b1, "
    "mplib 0.2.1, torch 2.4.1, pytorch3d, curobo, a GPU), fetch its assets by scripts/_download_assets.sh, copy "
    "env_cfg/task_config/demo_clean.yml there to e0.yml with `embodiment: [franka-panda, franka-panda, 0.8]`, set "
    "ROBOTWIN_ROOT to the clone, and name the interpreter with sim_python"
)


def tasks() -> tuple[str, ...]:
    """The fifty tasks of the paper's table."""
    return tuple(column for column in paper_tables()["13"].columns if not column.startswith(AVERAGE))


def missing() -> str:
    """What of RoboTwin is not here, with the cure; empty if nothing."""
    root = os.environ.get("ROBOTWIN_ROOT", "")
    if not root or not (Path(root) / _SCRIPT).is_file():
        return f"ROBOTWIN_ROOT is {root!r}, where no {_SCRIPT} is: {_CURE}"
    if not (Path(root) / "assets" / "embodiments").is_dir():
        return f"its assets are missing ({root}/assets/embodiments): {_CURE}"
    if not (Path(root) / "env_cfg" / "task_config" / f"{_config()}.yml").is_file():
        return f"it has no task configuration {_config()!r} (ROBOTWIN_TASK_CONFIG): {_CURE}"
    return ""


class RoboTwinAdapter:
    """`sim.adapter.RowAdapter` over one RoboTwin task at a time.

    The grippers count as joints of the embodiment `dual_panda`, in RoboTwin's order; `gripper_opening` is the right
    one's, which is a row's last number.

    Raises:
        ConfigError: unknown view, or something is missing.

    """

    embodiment = "dual_panda"
    columns = len(TWO_ARMS)
    control_period_ns = 50_000_000

    def __init__(self, views: tuple[str, ...] = tuple(CAMERAS), width_px: int = 224, height_px: int = 224) -> None:
        for view in views:
            if view not in CAMERAS:
                raise ConfigError(f"RoboTwin has no view {view!r}{closest(view, CAMERAS)}")
        if lacking := missing():
            raise ConfigError(lacking)
        self.views, self._size = views, (width_px, height_px)
        self._root = Path(os.environ["ROBOTWIN_ROOT"]).resolve()
        self._env: Any = None
        self._seen: dict[str, Any] = {}

    @property
    def tasks(self) -> tuple[str, ...]:
        """RoboTwin's tasks."""
        return tasks()

    def reset(self, task: str, seed: int) -> Scene:
        """Solve the scene by RoboTwin's expert, as its evaluation does, then build it again.

        Raises:
            ValueError: unknown task, a scene that RoboTwin's evaluation would skip, or an arm with other joints.

        """
        if task not in self.tasks:
            raise ValueError(f"RoboTwin has no task {task!r}{closest(task, self.tasks)}")
        self.close()
        with self._inside():
            script = importlib.import_module(Path(_SCRIPT).stem)
            arguments, _ = script.load_task_args({"task_name": task, "task_config": _config(), "policy_name": "e0"})
            arguments |= {"eval_mode": True, "render_freq": 0, "eval_video_save_dir": None}
            how = {"now_ep_num": 0, "seed": FIRST_SEED + seed, "is_test": True, **arguments}
            env = script.class_decorator(task)
            info = _solved(env, how, f"{task} seed {seed}")
            env.setup_demo(**how)
            instruction = str(script.build_instruction(arguments, info, arguments["eval_instruction"], 1))
            env.set_instruction(instruction=instruction)
            limit = int(yaml.safe_load((self._root / _LIMITS).read_text(encoding="utf-8"))[task])
        self._env, self._seen = env, {}
        if len(self._vector()) != self.columns:
            names = ", ".join(load_embodiment(self.embodiment).joint_names)
            raise ValueError(f"the arms have {len(self._vector())} joints and grippers; needed are {names}: {_CURE}")
        return Scene(task, seed, instruction, limit)

    def act(self, row: FloatArray) -> None:
        """One `take_action` with a row `(16,)` of positions [rad] and openings.

        Raises:
            ValueError: another number of columns.

        """
        if np.shape(row) != (self.columns,):
            raise ValueError(f"a row of RoboTwin has {self.columns} numbers, got {np.shape(row)}")
        self._seen = {}
        self._env.take_action(np.asarray(row, np.float64), action_type="qpos")

    def stand(self) -> None:
        """One `take_action` towards where the arms are."""
        self.act(self._vector())

    def joint_state(self) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Positions as RoboTwin tells them; it tells neither velocities, which count as 0, nor efforts."""
        position = self._vector()
        return position, np.zeros_like(position), np.full_like(position, np.nan)

    def gripper_opening(self) -> float:
        """The right gripper's."""
        return float(np.clip(self._vector()[-1], 0.0, 1.0))

    def start_render(self) -> None:
        """Nothing: RoboTwin draws with its observation."""

    def pictures_ready(self) -> bool:
        """They are made when they are asked for."""
        return True

    def finish_render(self) -> dict[str, ImageArray]:
        """RoboTwin's pictures, brought to the asked size as the policy's own are."""
        shown = self._observe()["observation"]
        pictures = {view: np.ascontiguousarray(shown[CAMERAS[view]]["rgb"]) for view in self.views}
        return {view: resize_with_pad(picture, self._size[1], self._size[0]) for view, picture in pictures.items()}

    def cameras(self) -> dict[str, CameraModel]:
        """On the world's frame, in the wrists' case as they stand now."""
        shown, models = self._observe()["observation"], {}
        for view in self.views:
            told = shown[CAMERAS[view]]
            height, width = told["rgb"].shape[:2]
            scale = min(self._size[0] / width, self._size[1] / height)
            intrinsics = np.array(told["intrinsic_cv"], np.float64)
            intrinsics[:2] *= scale
            intrinsics[:2, 2] += [(self._size[0] - width * scale) / 2 - 0.5, (self._size[1] - height * scale) / 2 - 0.5]
            extrinsic = np.vstack((np.asarray(told["extrinsic_cv"], np.float64)[:3], [0.0, 0.0, 0.0, 1.0]))
            models[view] = CameraModel(*self._size, intrinsics, "base", np.linalg.inv(extrinsic))
        return models

    def nominal_cameras(self) -> dict[str, CameraModel]:
        """The same: cameras are never moved here."""
        return self.cameras()

    def privileged(self) -> Privileged:
        """Success as `take_action` found it; poses of both tools."""
        ends = self._observe()["endpose"]
        poses = {f"{side}_tcp": np.asarray(ends[f"{side}_endpose"], np.float64)[_XYZW] for side in ("left", "right")}
        return Privileged(bool(self._env.eval_success), poses)

    def close(self) -> None:
        """Free the scene."""
        if self._env is not None:
            self._env.close_env()
        self._env, self._seen = None, {}

    def _observe(self) -> dict[str, Any]:
        self._seen = self._seen or self._env.get_obs()
        return self._seen

    def _vector(self) -> FloatArray:
        return np.asarray(self._observe()["joint_action"]["vector"], np.float64)

    @contextlib.contextmanager
    def _inside(self) -> Iterator[None]:
        """RoboTwin's paths are relative to its root."""
        before = Path.cwd()
        for folder in (self._root, self._root / "scripts"):
            if str(folder) not in sys.path:
                sys.path.insert(0, str(folder))
        os.chdir(self._root)
        try:
            yield
        finally:
            os.chdir(before)


_XYZW = [0, 1, 2, 4, 5, 6, 3]
"""SAPIEN's quaternions have w first."""


def _config() -> str:
    return os.environ.get("ROBOTWIN_TASK_CONFIG", "e0")


def _solved(env: Any, how: dict[str, Any], what: str) -> dict[str, Any]:
    """What the expert tells of a scene that it solves.

    Raises:
        ValueError: it does not, or the scene is not stable: RoboTwin's evaluation goes on with the next seed then.

    """
    try:
        env.setup_demo(**how)
        info: dict[str, Any] = env.play_once()
        if not (env.plan_success and env.check_success()):
            raise ValueError("its expert does not solve it")
    except Exception as error:
        raise ValueError(f"RoboTwin's evaluation skips {what}: {error}") from error
    finally:
        env.close_env()
    return info
