"""ManiSkill's motion-planning solutions as plans of joint positions: privileged, open-loop, made before the episode."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable
from typing import Any

import numpy as np

from e0_policy.types import FloatArray
from sim.demonstration import Demonstration
from sim.maniskill import CONTROL_HZ, FRESH, check_seed, make_env
from sim.maniskill_tasks import task_named
from sim.scattered import rise, scatter
from sim.seeding import seeded


class ManiSkillPlanner:
    """Plans episodes in an environment of its own, kept while the task stays the same."""

    def __init__(self) -> None:
        self._task = ""
        self._env: Any = None

    def plan(self, task: str, seed: int) -> Demonstration:
        """Solve the scene of a task and seed. The same seed gives the same rows.

        Raises:
            ValueError: unknown task, a seed beyond 32 bits, or the solver found no motion at all.

        """
        known = task_named(task)
        check_seed(seed)
        if task != self._task:
            self.close()
            self._env = make_env(known.environment or task, "pd_joint_pos", CONTROL_HZ)
            self._task = task
        recorder = _Recorder(self._env, known.scattered)
        with quiet_and_seeded(seed):
            solution(known.solver)(recorder, seed=seed, debug=False, vis=False)
        if not recorder.actions:
            raise ValueError(f"ManiSkill's solver found no motion for {task} with seed {seed}")
        rows = np.array(recorder.actions, dtype=np.float64)
        rows[:, -1] = np.clip((rows[:, -1] + 1.0) / 2.0, 0.0, 1.0)
        return Demonstration(rows, bool(self._env.evaluate()["success"]), known.instruction)

    def close(self) -> None:
        """Free the environment."""
        if self._env is not None:
            self._env.close()
        self._env, self._task = None, ""


class _Recorder:
    """What a solver uses of an environment, writing down its actions. A scattered start is left before it begins."""

    def __init__(self, env: Any, scattered: bool) -> None:
        self.unwrapped, self._scattered = env, scattered
        self.actions: list[FloatArray] = []

    def reset(self, seed: int) -> Any:
        answer = self.unwrapped.reset(seed=seed, options=FRESH)
        if self._scattered:
            scatter(self.unwrapped, seed)
            rise(self.unwrapped, self.step)
        return answer

    def step(self, action: FloatArray) -> Any:
        self.actions.append(np.array(action, dtype=np.float64))
        return self.unwrapped.step(action)


def solution(name: str) -> Callable[..., Any]:
    """A solver by its name."""
    from mani_skill.examples.motionplanning.panda import solutions

    solver: Callable[..., Any] = getattr(solutions, name)
    return solver


@contextlib.contextmanager
def quiet_and_seeded(seed: int) -> Any:
    """Solvers print their failures and sample collision points from numpy's global generator."""
    with seeded(seed), contextlib.redirect_stdout(io.StringIO()):
        yield
