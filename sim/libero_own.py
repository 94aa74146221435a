"""LIBERO's example loop: `env.reset`, an initial state and `env.step` with its own observations; ours are timed by it.

As `libero/lifelong/metric.py` has it: the environment of a task is made before, and draws every camera at every step.
"""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from e0_policy.embodiment import load_embodiment
from e0_policy.types import ActionChunk, Observation
from sim import libero_tasks
from sim.libero import CAMERAS, CONTROL_HZ, FINGER_OPEN_M, SETTLING, gripper_command, make_env, set_state
from sim.libero_tasks import LIFT
from sim.raw import row_in_force
from sim.seeding import seeded
from sim.sources import Source

_PERIOD_NS = 1_000_000_000 // CONTROL_HZ


class OwnLoop:
    """One environment of a task with the robot, cameras and size of `sim.libero`."""

    def __init__(self, task: str, views: tuple[str, ...], size_px: int) -> None:
        os.environ.setdefault("MUJOCO_GL", "egl")
        self._task, self._views, self._arm = task, views, load_embodiment("panda")
        self._instruction = libero_tasks.instructions()[task]
        self._size = (size_px, size_px)
        self._env: Any = None

    def run(self, seed: int, source: Source, max_steps: int) -> tuple[int, float]:
        """Steps of an episode, which ends with success or the limit, and the time that it took [s]."""
        self.open()
        begin, chunk, opening = time.perf_counter(), None, 0.0
        seen = self._reset(seed)
        for step in range(max_steps):
            now_ns = step * _PERIOD_NS
            answer = source.answer(self._observation(seen, now_ns), None)
            chunk = answer if isinstance(answer, ActionChunk) else chunk
            row = row_in_force(chunk, now_ns)
            row = np.append(np.zeros(6), opening) if row is None else row
            opening = float(row[-1])
            seen, *_ = self._env.step(np.append(row[:-1], gripper_command(opening)))
            if self._env._check_success():
                return step + 1, time.perf_counter() - begin
        return max_steps, time.perf_counter() - begin

    def open(self) -> Any:
        """The environment, made anew: one of another loop may have been freed meanwhile (`sim.libero`)."""
        self.close()
        with seeded(0):
            self._env = make_env(self._task, True, self._size, observes=True)
        return self._env

    def _reset(self, seed: int) -> Mapping[str, Any]:
        drawn = self._task == LIFT or seed >= libero_tasks.FIRST_DRAWN
        with seeded(seed if drawn else 0):
            seen: Mapping[str, Any] = self._env.reset()
        if not drawn:
            set_state(self._env, libero_tasks.initial_states(self._task)[seed])
        for _ in range(SETTLING * (self._task != LIFT)):
            seen, *_ = self._env.step(np.append(np.zeros(6), gripper_command(1.0)))
        return seen

    def _observation(self, seen: Mapping[str, Any], now_ns: int) -> Observation:
        views = {view: np.ascontiguousarray(seen[f"{CAMERAS[view]}_image"][::-1]) for view in self._views}
        opening = float(np.clip(np.abs(seen["robot0_gripper_qpos"]).mean() / FINGER_OPEN_M, 0.0, 1.0))
        arm, joints = self._arm, np.arctan2(seen["robot0_joint_pos_sin"], seen["robot0_joint_pos_cos"])
        return Observation(now_ns, views, joints, opening, self._instruction, arm.name, arm.joint_names)

    def close(self) -> None:
        """Free the environment."""
        if self._env is not None:
            self._env.close()
        self._env = None
        gc.collect()
