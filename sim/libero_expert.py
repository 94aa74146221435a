"""Privileged experts for robosuite's Lift and for LIBERO's tasks of putting things on or in others.

They know every pose, run to the end in a copy of the scene, and leave the rows that they took. What they cannot do
(doors, drawers, knobs) they say.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from e0_policy.types import FloatArray
from sim import libero_tasks
from sim.libero import LiberoAdapter
from sim.libero_tasks import LIFT
from sim.scripted import Seen

STEP_M = 0.05
"""What a delta of 1 asks for."""
OPEN, CLOSED = 1.0, 0.0
_STAND, _UP = np.zeros(6), np.array([0.0, 0.0, 1.0])


@dataclass(frozen=True)
class Grasp:
    """Where the tool takes a thing, from its origin, in the base frame [m]."""

    offset: tuple[float, float, float] = (0.0, 0.0, 0.0)


GRASPS = {"akita_black_bowl": Grasp((0.0, 0.055, 0.03)), "white_bowl": Grasp((0.0, 0.055, 0.03))}
"""Bowls by their rim; everything else at its middle."""
_CLEAR_M, _ABOVE_M = 0.16, 0.02
_DROP_M = {"on": 0.05, "in": 0.13}
"""How far above its rest a thing is let go: above a basket's rim, in which the fingers would hang."""
_CLOSING, _OPENING = 10, 8


class LiberoPlanner:
    """Plans episodes in an environment of its own, which draws nothing.

    Attributes:
        rows: `(steps, 7)` of the present episode, until they are taken.
        solved: whether they solve the copy.

    """

    def __init__(self) -> None:
        self.rows: FloatArray | None = None
        self.solved = False
        self._adapter = LiberoAdapter(views=())
        self._adapter.reset(LIFT, 0)  # numba compiles at a process's first step; that belongs to its start
        self._adapter.stand()

    def begin(self, task: str, seed: int) -> str:
        """Solve the scene of a task and seed in a copy. The same seed gives the same rows.

        Raises:
            ValueError: unknown task or initial state, missing assets, or a goal that no expert is for.

        """
        self.rows, adapter, rows = None, self._adapter, list[FloatArray]()
        scene = adapter.reset(task, seed)
        solved = False
        for row in self._script(task):
            adapter.act(row)
            rows.append(row)
            if solved := adapter.privileged().success:
                break
            if len(rows) >= scene.max_steps:
                break
        rows.append(np.append(_STAND, rows[-1][-1]))
        self.rows, self.solved = np.array(rows), solved
        return scene.instruction

    def motion(self, seen: Seen) -> FloatArray | None:
        """The whole of it, once; its last row moves nothing."""
        rows, self.rows = self.rows, None
        return rows

    def _script(self, task: str) -> Iterator[FloatArray]:
        if task == LIFT:
            return self._pick("cube", Grasp())
        return self._tidy(_goals(self._adapter.environment.parsed_problem["goal_state"], task))

    def _tidy(self, goals: list[tuple[str, str, str]]) -> Iterator[FloatArray]:
        for kind, thing, place in goals:
            yield from self._carry(thing, place, _DROP_M[kind])

    def _pick(self, thing: str, grasp: Grasp) -> Iterator[FloatArray]:
        at = self._where(thing) + np.array(grasp.offset)
        yield from self._move(at + 0.08 * _UP, OPEN, 0.01)
        yield from self._move(at, OPEN, 0.006)
        yield from self._wait(_CLOSING, CLOSED)
        yield from self._move(at + _CLEAR_M * _UP, CLOSED, 0.02)

    def _carry(self, thing: str, place: str, drop_m: float) -> Iterator[FloatArray]:
        grasp = next((grasp for kind, grasp in GRASPS.items() if thing.startswith(kind)), Grasp())
        rest_m = self._where(thing)[2]
        yield from self._pick(thing, grasp)
        held = self._where("tcp") - self._where(thing)
        x, y, z = self._adapter.place(place)
        over = np.array([x, y, max(rest_m, z + _ABOVE_M)]) + held
        yield from self._move(over + _CLEAR_M * _UP, CLOSED, 0.015)
        yield from self._move(over + drop_m * _UP, CLOSED, 0.01)
        yield from self._wait(_OPENING, OPEN)
        yield from self._move(over + _CLEAR_M * _UP, OPEN, 0.02)
        yield from self._wait(_CLOSING, OPEN)

    def _where(self, name: str) -> FloatArray:
        return self._adapter.privileged().poses[name][:3]

    def _move(self, to: FloatArray, opening: float, near_m: float, most: int = 60) -> Iterator[FloatArray]:
        """Deltas until the tool is `near_m` or `most` rows have gone."""
        for _ in range(most):
            error = to - self._where("tcp")
            if np.linalg.norm(error) < near_m:
                return
            yield np.concatenate((np.clip(error / STEP_M, -1.0, 1.0), np.zeros(3), [opening]))

    @staticmethod
    def _wait(steps: int, opening: float) -> Iterator[FloatArray]:
        for _ in range(steps):
            yield np.append(_STAND, opening)


def _goals(goal: list[list[str]], task: str) -> list[tuple[str, str, str]]:
    """`on` or `in`, the thing, its place.

    Raises:
        ValueError: a goal that is not to put one thing on or in another.

    """
    if any(len(part) != 3 or part[0] not in ("on", "in") for part in goal):
        told = libero_tasks.instructions()[task]
        raise ValueError(f"no expert for {task} ({told}): its goal is {goal}; experts put things on or in others")
    return [(kind, thing, place.removesuffix("_contain_region")) for kind, thing, place in goal]
