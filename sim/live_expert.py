"""ManiSkill's solutions played by the direct loop itself, each path as soon as it is planned.

`sim.planning` makes a whole plan in a copy of the scene that ManiSkill's own controller moves, and so a grasp that
settles a millimetre elsewhere in the loop is never seen. Here a solution moves the very scene that is recorded: its
next path starts from what the last one came to. What needs tight fits (PegInsertionSide, PlugCharger) succeeds so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from e0_policy.embodiment import Embodiment
from e0_policy.types import ActionChunk, FloatArray, NoChunk, Observation, Stale
from e0_ros.core.plan_keeper import InForce
from sim.demonstration import PERIOD_NS
from sim.direct import DirectEpisode, DirectLoop, Moment, Run
from sim.maniskill_arm import JOINTS
from sim.maniskill_tasks import task_named
from sim.planning import quiet_and_seeded, solution
from sim.playback import PlaybackConfig
from sim.scattered import rise
from sim.scripted import SOURCE

_SETTLE_ROWS = 20
"""The last row is held for so long, to be a success at rest."""


class GrowingPlan:
    """A `Source` whose plan is continued while the episode runs; row i is due i ticks after the first observation."""

    def __init__(self, arm: Embodiment, config: PlaybackConfig | None = None) -> None:
        self._arm, self._config = arm, config or PlaybackConfig()
        self._sequence = 0
        self.reset("", 0)

    def reset(self, task: str, seed: int) -> None:
        """No rows yet."""
        self.rows: list[FloatArray] = []
        self._start_ns: int | None = None
        self._told = self._due_row = 0
        self._seed = seed

    def looks(self, stamp_ns: int) -> bool:
        """It sees nothing."""
        return False

    def answer(self, observation: Observation | Stale, in_force: InForce | None) -> ActionChunk | NoChunk:
        """A window of the rows, when there are new ones or the one sent last is used up."""
        stamp_ns = observation.stamp_ns
        self._start_ns = stamp_ns if self._start_ns is None else self._start_ns
        row = (stamp_ns - self._start_ns) // PERIOD_NS
        self._sequence += 1
        if not self.rows or (row < self._due_row and self._told == len(self.rows)):
            return NoChunk(stamp_ns, "the chunk sent last is still good", SOURCE, "live", self._sequence, True)
        self._due_row, self._told = row + self._config.replan_rows, len(self.rows)
        first = max(0, min(row, len(self.rows) - 1) - 2)
        index = np.minimum(np.arange(first, first + self._config.window_rows), len(self.rows) - 1)
        return ActionChunk(
            np.array(self.rows)[index],
            self._start_ns + first * PERIOD_NS,
            PERIOD_NS,
            SOURCE,
            "live",
            self._sequence,
            embodiment=self._arm.name,
            joint_names=self._arm.joint_names,
            in_reply_to_ns=stamp_ns,
            seed=self._seed,
        )

    def close(self) -> None:
        """Nothing to free."""


class Over(Exception):
    """The episode has ended while a solution was moving."""


class _Scene:
    """What a solution uses of an environment; its actions become rows, and `play` runs the loop through them."""

    def __init__(self, loop: DirectLoop, run: Run, plan: GrowingPlan) -> None:
        self.unwrapped: Any = loop.adapter.environment  # type: ignore[attr-defined]
        self._loop, self._run, self._plan = loop, run, plan
        self._from = len(plan.rows)

    def reset(self, seed: int) -> None:
        """The loop has reset it."""

    def step(self, action: FloatArray) -> tuple[None, ...]:
        """Note an action of `pd_joint_pos` or `pd_joint_pos_vel`."""
        self._plan.rows.append(np.append(action[:JOINTS], np.clip((action[-1] + 1.0) / 2.0, 0.0, 1.0)).astype(float))
        return (None,) * 5

    def play(self) -> None:
        """Run through the rows noted since the last time.

        Raises:
            Over: the episode has ended.

        """
        for _ in range(len(self._plan.rows) - self._from):
            self._loop.tick(self._run)
            if not self._run.episode.running:
                raise Over
        self._from = len(self._plan.rows)

    def commanded(self, measured: Any) -> Any:
        """The robot's positions `(1, 9)` with the arm's last command, so that a path goes on where the last ended."""
        if self._plan.rows:
            row = self._plan.rows[-1]
            measured = measured.clone()
            measured[0, :JOINTS] = measured.new_tensor(row[:JOINTS])
        return measured


class _Instead:
    """Something of which a few attributes are others."""

    def __init__(self, original: Any, **others: Any) -> None:
        self._original = original
        vars(self).update(others)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._original, name)


class LiveExpert:
    """Runs episodes of ManiSkill's experts in a loop."""

    def __init__(self, loop: DirectLoop, arm: Embodiment) -> None:
        self._loop, self._plan = loop, GrowingPlan(arm)

    def run(
        self, task: str, seed: int, onlooker: Callable[[Moment], None] | None = None, max_steps: int = 0
    ) -> DirectEpisode:
        """Run an episode. A solution that finds no further path ends it without success.

        Raises:
            ValueError: unknown task.

        """
        plan, known = self._plan, task_named(task)
        plan.reset(task, seed)
        run = self._loop.begin(task, seed, plan, max_steps, onlooker)
        scene = _Scene(self._loop, run, plan)
        try:
            with quiet_and_seeded(seed), _played_at_once():
                if known.scattered:
                    rise(scene.unwrapped, scene.step)
                    scene.play()
                solution(known.solver)(scene, seed=seed, debug=False, vis=False)
            plan.rows += plan.rows[-1:] * _SETTLE_ROWS
            scene.play()
        except Over:
            pass
        return self._loop.result(run)


@contextmanager
def _played_at_once() -> Iterator[None]:
    """While it lasts, ManiSkill's motion planners play what they command before they return."""
    from mani_skill.examples.motionplanning.panda.motionplanner import PandaArmMotionPlanningSolver as Solver

    def setup_planner(solver: Any) -> Any:
        planner = type(solver).__mro__[1].setup_planner(solver)
        robot, scene = solver.robot, solver.env
        solver.robot = _Instead(robot, get_qpos=lambda: scene.commanded(robot.get_qpos()))
        solver.base_env = _Instead(solver.base_env, control_timestep=PERIOD_NS / 1e9)
        return planner

    def playing(name: str) -> Callable[..., Any]:
        def move(solver: Any, *args: Any, **kwargs: Any) -> Any:
            if name == "follow_path" and not len(args[0]["position"]):
                return None  # already there
            answer = getattr(type(solver).__mro__[1], name)(solver, *args, **kwargs)
            solver.env.play()
            return answer

        return move

    changed = {"setup_planner": setup_planner}
    changed |= {name: playing(name) for name in ("follow_path", "open_gripper", "close_gripper")}
    for name, method in changed.items():
        setattr(Solver, name, method)
    try:
        yield
    finally:
        for name in changed:
            delattr(Solver, name)
