"""A row serves the control step that it is for, and every other step is one in which the arm stands."""

from __future__ import annotations

import numpy as np
import pytest

from e0_policy.types import ActionChunk, NoChunk, Observation, Representation
from sim.adapter import Privileged, Scene
from sim.bridge.settings import BridgeConfig
from sim.collect_config import CollectConfig
from sim.collect_episode import frames_of
from sim.direct import DirectLoop, Moment
from sim.simulators import STEPPED
from sim.step_rig import Row, StepRig

PERIOD = 50_000_000


class Steps:
    """Writes down what it is asked to do."""

    embodiment, views, tasks, columns, control_period_ns = "panda", ("base",), ("a",), 7, PERIOD

    def __init__(self) -> None:
        self.done: list[object] = []

    def reset(self, task: str, seed: int) -> Scene:
        if task != "a":
            raise ValueError(f"no task {task}")
        return Scene(task, seed, "", 5)

    def act(self, row: np.ndarray) -> None:
        if row.shape != (7,):
            raise ValueError("7 numbers")
        self.done.append(row.tolist())

    def stand(self) -> None:
        self.done.append("stand")

    def joint_state(self):
        return np.full(7, len(self.done)), np.zeros(7), np.zeros(7)

    def gripper_opening(self) -> float:
        return 0.25

    def privileged(self) -> Privileged:
        return Privileged(False)


class Watched(Steps):
    """The same with a camera."""

    pictures_ready = start_render = lambda self: None

    def finish_render(self) -> dict[str, np.ndarray]:
        return {"base": np.full((8, 8, 3), len(self.done), np.uint8)}

    def cameras(self) -> dict[str, object]:
        return {}

    nominal_cameras = cameras


class TwoRows:
    """One plan of two rows."""

    def looks(self, stamp_ns: int) -> bool:
        return False

    def answer(self, observation: Observation, in_force: object) -> ActionChunk | NoChunk:
        if in_force is not None:
            return NoChunk(observation.stamp_ns, "", "policy", "s", 9, keep=True)
        rows = np.arange(14.0).reshape(2, 7) / 14
        how = {"representation": Representation.EE_DELTA_STEP, "embodiment": "panda"}
        return ActionChunk(rows, observation.stamp_ns, PERIOD, "policy", "s", 1, **how)


def test_an_onlooker_sees_the_row_of_each_step_and_none_where_the_simulator_stands() -> None:
    """So a collected frame has the row that it was fed, and not the joints of an executor that holds."""
    adapter, seen = Watched(), list[Moment]()
    episode = DirectLoop(adapter, "a").run("a", 0, TwoRows(), onlooker=seen.append)
    assert episode.steps == 5 and len(episode.holds) == 1 and "plan exhausted" in episode.holds[0]
    rows = [None if moment.row is None else moment.row.tolist() for moment in seen[:-1]]
    assert rows == [[i / 14 for i in range(7)], [i / 14 for i in range(7, 14)], None, None, None]
    assert [row or "stand" for row in rows] == adapter.done
    taken = frames_of(CollectConfig(("Lift",), ("base",)), "Lift", 0, seen[:-1])
    assert taken is not None and taken.episode.actions.tolist() == rows[:2] and taken.labels is None
    assert taken.images[0, :, 0, 0, 0].tolist() == [0, 1]


def test_a_row_is_used_once_and_only_for_its_own_step() -> None:
    rig = StepRig(Steps(), 0)
    rig.command(Row(0, np.arange(7.0)), 0)
    played = rig.advance(2 * PERIOD)
    assert rig.adapter.done == [list(range(7)), "stand"]
    assert [(s.stamp_ns, s.positions[0]) for s in played.samples] == [(PERIOD, 1), (2 * PERIOD, 2)]
    for row, reason in (
        (Row(PERIOD, np.zeros(7)), f"a row of {PERIOD} ns came to the step of {2 * PERIOD} ns"),
        (Row(3 * PERIOD, np.zeros(8)), "7 numbers"),
    ):
        rig.command(row, 0)
        played = rig.advance(rig.now_ns + PERIOD)
        assert played.refused == [reason] and rig.adapter.done[-1] == "stand"
    rig.command(Row(rig.now_ns, None), 0)
    assert rig.advance(rig.now_ns + PERIOD).refused == [] and rig.adapter.done[-1] == "stand"
    assert rig.advance(rig.now_ns + PERIOD - 1).samples == [], "no part of a step is played"


def test_a_reset_forgets_the_row_and_a_refused_one_changes_nothing() -> None:
    rig = StepRig(Steps(), 0)
    rig.command(Row(0, np.zeros(7)), 0)
    with pytest.raises(ValueError, match="no task b"):
        rig.reset("b", 0, 10 * PERIOD)
    assert rig.now_ns == 0
    rig.reset("a", 1, 10 * PERIOD)
    rig.advance(11 * PERIOD)
    assert rig.adapter.done == ["stand"] and rig.gripper_target == 0.25


@pytest.mark.parametrize("simulator", STEPPED)
def test_the_bridge_steps_stepped_simulators_in_lockstep_and_no_others(simulator: str) -> None:
    BridgeConfig(simulator=simulator, controller="step", mode="lockstep")
    for wrong in (
        {"simulator": simulator, "mode": "lockstep"},
        {"simulator": simulator, "controller": "step"},
        {"simulator": "fr3_plant", "controller": "step", "mode": "lockstep"},
        {"simulator": simulator, "controller": "step", "mode": "lockstep", "disturbance_rad": 0.1},
    ):
        with pytest.raises(ValueError, match=r"step|disturbance"):
            BridgeConfig(**wrong)
