"""LIBERO, and robosuite's Lift, behind the row protocol: a Panda moved by deltas of OSC_POSE at 20 Hz.

A row is what robosuite's controller takes (`OSC_POSE`): three translations and three rotations in [-1, 1] (0.05 m and
0.5 rad at 1), then the gripper's opening. One environment per process: robosuite 1.4 spoils pictures when it frees a
renderer after the next one exists, so the old environment goes first.
"""

from __future__ import annotations

import gc
import os
from typing import Any

import numpy as np

from e0_policy.types import FloatArray, ImageArray
from e0_ros.config import ConfigError, closest
from e0_ros.core.camera_model import CameraModel
from e0_ros.core.step_rows import OSC_POSE
from sim import libero_tasks
from sim.adapter import Privileged, Scene
from sim.libero_tasks import LIFT
from sim.mujoco_camera import FLANGE_ON_LINK7, camera, matrix, pose
from sim.seeding import seeded

CAMERAS = {"base": "agentview", "wrist": "robot0_eye_in_hand"}
"""Views by robosuite's names."""
CONTROL_HZ = 20
FINGER_OPEN_M = 0.04
SETTLING = 10
"""Control steps after an initial state in which objects come to rest, as in the evaluations of OpenVLA and openpi."""


class LiberoAdapter:
    """`sim.adapter.RowAdapter` over one robosuite environment at a time.

    Tasks are `<suite>/<number>` of LIBERO, whose seed is the number of an initial state (or, from 100000 on, of a scene
    that the environment draws), and `Lift`. `base` is LIBERO's agentview, `wrist` its eye in hand, both upright.

    Raises:
        ConfigError: unknown view, or robosuite is not installed.

    """

    embodiment = "panda"
    columns = len(OSC_POSE)
    control_period_ns = 1_000_000_000 // CONTROL_HZ

    def __init__(self, views: tuple[str, ...] = ("base", "wrist"), width_px: int = 224, height_px: int = 224) -> None:
        for view in views:
            if view not in CAMERAS:
                raise ConfigError(f"LIBERO has no view {view!r}{closest(view, CAMERAS)}")
        os.environ.setdefault("MUJOCO_GL", "egl")
        try:
            import robosuite  # noqa: F401
        except ImportError as error:
            raise ConfigError(f"robosuite cannot be imported ({error}); {libero_tasks.missing()}") from None
        self.views, self._size = views, (width_px, height_px)
        self._task, self._gripper = "", -1.0
        self._env: Any = None

    @property
    def tasks(self) -> tuple[str, ...]:
        """LIBERO's tasks, then Lift."""
        return tuple(libero_tasks.instructions())

    def reset(self, task: str, seed: int) -> Scene:
        """Build the scene of a task anew: the environment's own reset, the initial state if it is one of the
        benchmark's, then time to settle.

        Raises:
            ValueError: unknown task or initial state, or assets are missing; nothing has changed then.

        """
        libero_tasks.check_task(task, seed)
        if task != LIFT:
            libero_tasks.prepare()
        self.close()
        with seeded(0):
            self._env = make_env(task, bool(self.views), self._size)
        drawn = task == LIFT or seed >= libero_tasks.FIRST_DRAWN
        with seeded(seed if drawn else 0):  # LIBERO's evaluation seeds its made environment with 0
            self._env.reset()
        self._task, self._gripper = task, -1.0
        if not drawn:
            set_state(self._env, libero_tasks.initial_states(task)[seed])
        if task != LIFT:
            for _ in range(SETTLING):
                self.stand()
        return Scene(task, seed, libero_tasks.instructions()[task], libero_tasks.official_steps(task))

    @property
    def environment(self) -> Any:
        """The environment of the present task."""
        return self._env

    def act(self, row: FloatArray) -> None:
        """One control step with a row `(7,)`; robosuite's gripper opens at -1.

        Raises:
            ValueError: another number of columns.

        """
        if np.shape(row) != (self.columns,):
            raise ValueError(f"a row of LIBERO has {self.columns} numbers, got {np.shape(row)}")
        self._gripper = gripper_command(row[-1])
        self._env.step(np.append(row[:-1], self._gripper))

    def stand(self) -> None:
        """One control step without a delta; the gripper goes on."""
        self._env.step(np.append(np.zeros(self.columns - 1), self._gripper))

    def joint_state(self) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Positions, velocities, and the torques of the last physics step."""
        robot, data = self._env.robots[0], self._env.sim.data
        where, speeds = robot._ref_joint_pos_indexes, robot._ref_joint_vel_indexes
        return np.array(data.qpos[where]), np.array(data.qvel[speeds]), np.array(data.qfrc_actuator[speeds])

    def gripper_opening(self) -> float:
        """Mean of both fingers."""
        fingers = self._env.sim.data.qpos[self._env.robots[0]._ref_gripper_joint_pos_indexes]
        return float(np.clip(np.abs(fingers).mean() / FINGER_OPEN_M, 0.0, 1.0))

    def start_render(self) -> None:
        """Nothing: MuJoCo draws in the calling thread."""

    def pictures_ready(self) -> bool:
        """They are made when they are asked for."""
        return True

    def finish_render(self) -> dict[str, ImageArray]:
        """Draw; MuJoCo's first line is the lowest."""
        width, height = self._size
        render = self._env.sim.render
        return {
            view: np.ascontiguousarray(render(camera_name=CAMERAS[view], width=width, height=height)[::-1])
            for view in self.views
        }

    def cameras(self) -> dict[str, CameraModel]:
        """Intrinsics by the field of view; the eye in hand is given on the flange."""
        sim, flange = self._env.sim, self._body("robot0_link7") @ FLANGE_ON_LINK7
        parents = {"base": ("base", self._body("robot0_link0")), "wrist": ("flange", flange)}
        numbers = {view: sim.model.camera_name2id(CAMERAS[view]) for view in self.views}
        return {view: camera(sim.model, sim.data, n, self._size, *parents[view]) for view, n in numbers.items()}

    def nominal_cameras(self) -> dict[str, CameraModel]:
        """The same: cameras are never moved here."""
        return self.cameras()

    def privileged(self) -> Privileged:
        """Success by the environment's own predicate; pose of the tool and of every object."""
        env, base = self._env, np.linalg.inv(self._body("robot0_link0"))
        bodies = {"cube": env.cube_body_id} if self._task == LIFT else env.obj_body_id
        data, site = env.sim.data, env.robots[0].eef_site_id
        world = {"tcp": matrix(data.site_xpos[site], data.site_xmat[site])}
        world |= {name: matrix(data.body_xpos[i], data.body_xmat[i]) for name, i in bodies.items()}
        return Privileged(bool(env._check_success()), {name: pose(base @ there) for name, there in world.items()})

    def place(self, name: str) -> FloatArray:
        """Position `(3,)` [m] of an object or of a region by LIBERO's name, in the base frame; privileged."""
        known = self.privileged().poses
        if name in known:
            return known[name][:3]
        world = self._env.sim.data.get_site_xpos(name)
        point: FloatArray = (np.linalg.inv(self._body("robot0_link0")) @ np.append(world, 1.0))[:3]
        return point

    def _body(self, name: str) -> FloatArray:
        number = self._env.sim.model.body_name2id(name)
        return matrix(self._env.sim.data.body_xpos[number], self._env.sim.data.body_xmat[number])

    def close(self) -> None:
        """Free the environment and its renderer at once; the next `reset` builds another."""
        if self._env is not None:
            self._env.close()
        self._env, self._task = None, ""
        gc.collect()


def gripper_command(opening: float) -> float:
    """Robosuite's number for an opening in [0, 1]."""
    return 1.0 - 2.0 * float(np.clip(opening, 0.0, 1.0))


def set_state(env: Any, state: FloatArray) -> None:
    """As LIBERO's `set_init_state`, without its pictures."""
    env.sim.set_state_from_flattened(state)
    env.sim.forward()
    env._check_success()  # it also notes what objects were in
    env._post_process()
    env._update_observables(force=True)


def make_env(task: str, draws: bool, size_px: tuple[int, int], observes: bool = False) -> Any:
    """The bare environment of a task, which renders only when it is asked to (or `observes`) and knows no end.

    Raises:
        ConfigError: LIBERO or its assets are missing.

    """
    options: dict[str, Any] = {
        "use_camera_obs": observes,
        "has_renderer": False,
        "has_offscreen_renderer": draws,
        "camera_names": list(CAMERAS.values()),
        "camera_widths": size_px[0],
        "camera_heights": size_px[1],
        "control_freq": CONTROL_HZ,
        "ignore_done": True,
    }
    if task == LIFT:
        import robosuite

        controller = robosuite.load_controller_config(default_controller="OSC_POSE")
        return robosuite.make(LIFT, robots="Panda", controller_configs=controller, **options)
    folder = libero_tasks.prepare()
    import libero.libero

    if hasattr(libero.libero, "get_assets_path"):  # a package without assets of its own; a clone has them beside
        libero.libero._assets_path_cache = str(folder)
    from libero.libero.envs.env_wrapper import ControlEnv

    return ControlEnv(bddl_file_name=str(libero_tasks.problem_file(task)), **options).env
