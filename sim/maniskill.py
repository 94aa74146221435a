"""ManiSkill 3 behind the adapter protocol: a Panda with a wrist camera in any task of `sim.maniskill_tasks`.

The adapter knows no task: cameras, actors, goals and success come from the environment. Physics runs on the CPU.
"""

from __future__ import annotations

import gc
import os
import warnings
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from e0_policy.types import FloatArray, ImageArray
from e0_ros.config import closest
from e0_ros.core.camera_model import FLANGE, CameraModel, pose_matrix
from sim import maniskill_arm, maniskill_ground, maniskill_shaders
from sim.adapter import Privileged, Scene
from sim.camera_shift import CameraShift
from sim.maniskill_arm import FINGER_OPEN_M, JOINTS
from sim.maniskill_tasks import TASKS, task_named
from sim.robot_visuals import light_panda
from sim.scattered import scatter
from sim.threads import any_at_work, threads, yield_to_others
from sim.vulkan import activate

PHYSICS_HZ = 100
CONTROL_HZ = 20
VIEWS = ("base", "side", "wrist")
FRESH = {"reconfigure": True}
"""Options of a reset that leaves nothing of the episode before."""
_ROBOT = "panda_wristcam"
SIDE_CAMERA = "side_camera"
_OPTICAL = np.array([[0.0, 0.0, 1.0, 0.0], [-1.0, 0.0, 0.0, 0.0], [0.0, -1.0, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0]])
"""SAPIEN's cameras look along x with z up."""
_SQUEEZE_M = -0.01
_RENDER_THREADS = 4
_BUSY = 2
"""Cores that the rest of a real-time graph takes. Without a thread of its own (0) a picture costs a tenth less."""
_RENDER_NICE = 10
_NS = 1_000_000_000


class ManiSkillAdapter:
    """`sim.adapter.SimAdapter` over one ManiSkill environment at a time.

    `base` is the task's own camera in front of the robot, `side` looks across the table, `wrist` is the one on its
    hand. Goal markers are visible.

    Raises:
        ValueError: unknown view.
        sim.vulkan.VulkanError: no usable Vulkan driver.

    """

    embodiment = "panda"
    tasks = tuple(TASKS)
    control_period_ns = _NS // CONTROL_HZ
    physics_period_ns = _NS // PHYSICS_HZ
    drive = ("pd_joint_pos_vel", PHYSICS_HZ)
    """ManiSkill's control mode and rate."""
    renderers: ClassVar[set[int]] = set()
    """Threads of the renderer, which all environments of a process share."""

    def __init__(
        self,
        views: tuple[str, ...] = ("base", "wrist"),
        width_px: int = 224,
        height_px: int = 224,
        realtime: bool = False,
        shift: CameraShift | None = None,
    ) -> None:
        for view in views:
            if view not in VIEWS:
                raise ValueError(f"ManiSkill has no view {view!r}{closest(view, VIEWS)}")
        if realtime:
            os.environ.setdefault("LP_NUM_THREADS", str(min(_RENDER_THREADS, max(0, (os.cpu_count() or 1) - _BUSY))))
        activate()
        self.views = views
        self._size = {"width": width_px, "height": height_px, "shader_pack": maniskill_shaders.NAME}
        self._realtime, self._shift = realtime, shift
        self._moved: dict[str, FloatArray] = {}
        self._task = ""
        self._env: Any = None
        self._cameras: dict[str, Any] = {}

    def reset(self, task: str, seed: int) -> Scene:
        """Build the scene of a task anew, so that nothing depends on the episodes before.

        Raises:
            ValueError: unknown task, or a seed beyond 32 bits; nothing has changed then.

        """
        known = task_named(task)
        check_seed(seed)
        fresh, before = task != self._task, threads()
        if fresh:
            self.close()
            self._env = make_env(known.environment or task, *self.drive, sensor_configs=self._size)
            self._task = task
        maniskill_shaders.choose_formats()
        self._env.reset(seed=seed, options=FRESH)
        if self._realtime:
            maniskill_ground.coarsen(self._env)
        if known.scattered:
            scatter(self._env, seed)
        self._robot = self._env.agent.robot
        self._target = self._robot.get_qpos()[0, :JOINTS].double().numpy()
        self._target_velocity = np.zeros(JOINTS)
        self._joints = self._robot._objs[0].get_active_joints()
        cameras = self._env.scene.sensors
        fixed = next(camera for camera in cameras.values() if camera.config.mount is None)
        self._cameras = {"base": fixed, "side": cameras[SIDE_CAMERA], "wrist": cameras["hand_camera"]}
        if self._shift:
            self._move_cameras(self._shift, seed)
        if fresh:
            self._compile_shaders()
            now = threads()
            self.renderers.intersection_update(now)
            self.renderers.update(now - before)
            if self._realtime:
                yield_to_others(self.renderers, _RENDER_NICE)
        return Scene(task, seed, known.instruction, known.max_steps)

    @property
    def environment(self) -> Any:
        """ManiSkill's environment of the present task."""
        return self._env

    def joint_state(self) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Positions, velocities, and efforts as the joint drives compute them."""
        body = self._robot._objs[0]  # through torch it takes six times as long
        position, velocity = (part[:JOINTS].astype(np.float64) for part in (body.qpos, body.qvel))
        agent = self._env.agent
        effort = agent.arm_stiffness * (self._target - position)
        effort += agent.arm_damping * (self._target_velocity - velocity)
        return position, velocity, np.clip(effort, -agent.arm_force_limit, agent.arm_force_limit)

    def gripper_opening(self) -> float:
        """Mean of both fingers."""
        fingers = self._robot._objs[0].qpos[JOINTS:].astype(np.float64)
        return float(np.clip(fingers.mean() / FINGER_OPEN_M, 0.0, 1.0))

    def step(self, position: FloatArray, velocity: FloatArray, gripper_opening: float) -> None:
        """One physics step; an opening of 0 is ManiSkill's -1, which squeezes, 1 is its +1.

        The drive targets are those of ManiSkill's controllers `pd_joint_pos_vel` and the gripper's `pd_joint_pos`; set
        one by one they cost a tenth of an action through torch.
        """
        self._target, self._target_velocity = np.array(position), np.array(velocity)
        targets = [*position.tolist(), *[_SQUEEZE_M + gripper_opening * (FINGER_OPEN_M - _SQUEEZE_M)] * 2]
        for joint, target in zip(self._joints, targets, strict=True):
            joint.set_drive_target(target)
        for joint, speed in zip(self._joints, velocity.tolist(), strict=False):
            joint.set_drive_velocity_target(speed)
        self._env.scene.step()

    def reach(self, tool: FloatArray, near: FloatArray) -> FloatArray | None:
        """As `sim.maniskill_arm.reach`."""
        return maniskill_arm.reach(self._env, tool, near)

    def place(self, position: FloatArray, gripper_opening: float, poses: Mapping[str, FloatArray]) -> None:
        """As `sim.maniskill_arm.place`."""
        maniskill_arm.place(self._env, position, gripper_opening, poses)
        self._target, self._target_velocity = np.array(position), np.zeros(JOINTS)

    def start_render(self) -> None:
        """Hand the present poses to the renderer, which works in threads of its own."""
        self._env.scene.update_render(update_human_render_cameras=False)
        for view in self.views:
            self._cameras[view].capture()

    def pictures_ready(self) -> bool:
        """Whether no thread of a renderer on the processor is at work; one on a graphics card answers in no time.

        SAPIEN itself can only wait, and nothing else in Python runs meanwhile.
        """
        return not any_at_work(self.renderers)

    def finish_render(self) -> dict[str, ImageArray]:
        """Wait for the images."""
        return {view: self._image(self._cameras[view]) for view in self.views}

    def _move_cameras(self, shift: CameraShift, seed: int) -> None:
        import sapien

        self._moved = shift.poses(self.nominal_cameras(), self.privileged().poses["tcp"][:3], seed)
        base = self._robot._objs[0].root_pose
        for view, pose in self._moved.items():
            camera = self._cameras[view]
            world = base * sapien.Pose(pose @ _OPTICAL.T)
            mount = camera.config.mount
            camera.camera.set_local_pose(world if mount is None else mount._objs[0].pose.inv() * world)

    def _compile_shaders(self) -> None:
        """The first picture of a process takes seconds; that belongs to the reset."""
        self.start_render()
        self.finish_render()

    @staticmethod
    def _image(camera: Any) -> ImageArray:
        picture = camera.get_obs(rgb=True, depth=False, position=False, segmentation=False)["rgb"]
        return np.ascontiguousarray(picture[0].numpy())

    def cameras(self) -> dict[str, CameraModel]:
        """Intrinsics as the renderer has them; a camera on a moving link is given on the flange."""
        nominal = self.nominal_cameras()
        return self._shift.told(nominal, self._moved) if self._shift else nominal

    def nominal_cameras(self) -> dict[str, CameraModel]:
        """The same without a shift."""
        base = self._robot._objs[0].root_pose.inv()
        flange = next(link for link in self._robot.get_links() if link.name.endswith(FLANGE))
        models = {}
        for view in self.views:
            camera = self._cameras[view]
            mount = camera.config.mount
            world = camera.config.pose.sp if mount is None else mount._objs[0].pose * camera.config.pose.sp
            on_flange = mount is not None and mount.name != "panda_link0"
            pose = (flange._objs[0].pose.inv() if on_flange else base) * world
            models[view] = CameraModel(
                camera.config.width,
                camera.config.height,
                _intrinsics(camera),
                "flange" if on_flange else "base",
                _matrix(pose) @ _OPTICAL,
            )
        return models

    def privileged(self) -> Privileged:
        """Success by the environment's own predicate; pose of the tool and of every actor but the scenery."""
        return Privileged(bool(self._env.evaluate()["success"]), maniskill_arm.poses(self._env))

    def close(self) -> None:
        """Free the environment; the next `reset` builds another."""
        if self._env is not None:
            self._env.close()
        self._env, self._task, self._cameras = None, "", {}


def make_env(task: str, control_mode: str, control_hz: int, **kwargs: Any) -> Any:
    """The bare environment of a task with the light robot, without rewards, time limit and, unless asked, observations.

    Raises:
        sim.vulkan.VulkanError: no usable Vulkan driver; ManiSkill needs one even without cameras.

    """
    driver = activate()
    os.environ.setdefault("LP_NUM_THREADS", str(min(_RENDER_THREADS, os.cpu_count() or 1)))
    import gymnasium
    import mani_skill.envs  # noqa: F401  registers the tasks
    from mani_skill import logger
    from mani_skill.agents.robots.panda.panda_wristcam import PandaWristCam

    maniskill_shaders.register()
    _spare_collections()
    PandaWristCam.urdf_path = str(light_panda())  # its uid must stay: tasks choose initial joint positions by it
    _add_side_camera(PandaWristCam)
    logger.setLevel("ERROR")
    light = {"shader_pack": maniskill_shaders.NAME}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return gymnasium.make(
            task,
            robot_uids=_ROBOT,
            reward_mode="none",
            control_mode=control_mode,
            sim_backend="physx_cpu",
            render_backend="cpu" if driver.cpu else "gpu",
            sim_config={"sim_freq": PHYSICS_HZ, "control_freq": control_hz},
            **({"obs_mode": "none"} | dict.fromkeys(("sensor_configs", "human_render_camera_configs"), light) | kwargs),
        ).unwrapped


def _spare_collections() -> None:
    """Let no collection of garbage walk through what was imported: 0.15 s at every reset of ManiSkill."""
    if not gc.get_freeze_count():
        gc.collect()
        gc.freeze()


def _add_side_camera(robot: Any) -> None:
    """Give the robot a second fixed camera, beside its workspace; it stands still because the robot's base does."""
    if hasattr(robot, SIDE_CAMERA):
        return
    from mani_skill.sensors.camera import CameraConfig
    from mani_skill.utils.sapien_utils import look_at

    own = robot._sensor_configs.fget

    def sensors(agent: Any) -> list[Any]:
        pose = look_at(eye=[0.6, -0.5, 0.35], target=[0.6, 0.0, 0.16])
        side = CameraConfig(SIDE_CAMERA, pose, 128, 128, 1.2, 0.01, 100, mount=agent.robot.links_map["panda_link0"])
        return [*own(agent), side]

    robot._sensor_configs = property(sensors)
    setattr(robot, SIDE_CAMERA, True)


def check_seed(seed: int) -> None:
    """Refuse a seed that ManiSkill's generators cannot take.

    Raises:
        ValueError: what was got and what is allowed.

    """
    if not 0 <= seed < 2**32:
        raise ValueError(f"seed is {seed}; ManiSkill takes 0 to {2**32 - 1}")


def _intrinsics(camera: Any) -> FloatArray:
    """SAPIEN counts pixels from the first one's corner, camera models from its centre."""
    intrinsics: FloatArray = camera.camera.get_intrinsic_matrix()[0].double().numpy().copy()
    intrinsics[:2, 2] -= 0.5
    return intrinsics


def _matrix(pose: Any) -> FloatArray:
    return pose_matrix(pose.p.tolist(), pose.q[[1, 2, 3, 0]].tolist())
