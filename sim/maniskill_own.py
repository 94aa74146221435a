"""ManiSkill's example loop, `env.reset` and `env.step` with its own observations: what our loops are timed beside."""

from __future__ import annotations

import time

import numpy as np

from e0_policy.embodiment import load_embodiment
from e0_policy.types import ActionChunk, Observation
from sim import maniskill_shaders
from sim.maniskill import CONTROL_HZ, SIDE_CAMERA, make_env
from sim.maniskill_arm import FINGER_OPEN_M, JOINTS
from sim.maniskill_tasks import task_named
from sim.raw import row_in_force
from sim.sources import Source

_CAMERAS = {"base": "base_camera", "side": SIDE_CAMERA, "wrist": "hand_camera"}
_PERIOD_NS = 1_000_000_000 // CONTROL_HZ


class OwnLoop:
    """One environment of a task with the robot, cameras and size of `sim.maniskill`; a picture of each every step."""

    def __init__(self, task: str, views: tuple[str, ...], size_px: int) -> None:
        self._known, self._views, self._arm = task_named(task), views, load_embodiment("panda")
        size = {"width": size_px, "height": size_px, "shader_pack": maniskill_shaders.NAME}
        self._env = make_env(
            self._known.environment or task, "pd_joint_pos", CONTROL_HZ, obs_mode="rgb", sensor_configs=size
        )
        maniskill_shaders.choose_formats()

    def run(self, seed: int, source: Source, max_steps: int) -> tuple[int, float]:
        """Steps of an episode, which ends with success or the limit, and the time that it took [s]."""
        begin, chunk = time.perf_counter(), None
        seen, _ = self._env.reset(seed=seed)
        for step in range(max_steps):
            now_ns = step * _PERIOD_NS
            observation = self._observation(seen, now_ns)
            answer = source.answer(observation, None)
            chunk = answer if isinstance(answer, ActionChunk) else chunk
            row = row_in_force(chunk, now_ns)
            row = np.append(observation.joint_positions, observation.gripper_opening) if row is None else row
            action = np.append(row[:-1], 2.0 * np.clip(row[-1], 0.0, 1.0) - 1.0).astype(np.float32)
            seen, _, _, _, told = self._env.step(action)
            if bool(told["success"]):
                return step + 1, time.perf_counter() - begin
        return max_steps, time.perf_counter() - begin

    def _observation(self, seen: dict, now_ns: int) -> Observation:  # type: ignore[type-arg]
        pictures = seen["sensor_data"]
        views = {view: pictures[_CAMERAS[view]]["rgb"][0].numpy() for view in self._views}
        qpos = seen["agent"]["qpos"][0].double().numpy()
        opening = float(np.clip(qpos[JOINTS:].mean() / FINGER_OPEN_M, 0.0, 1.0))
        text, arm = self._known.instruction, self._arm
        return Observation(now_ns, views, qpos[:JOINTS], opening, text, arm.name, arm.joint_names)

    def close(self) -> None:
        """Free the environment."""
        self._env.close()
