from __future__ import annotations

import numpy as np
import pytest

from e0_policy.embodiment import load_embodiment
from e0_policy.types import ActionChunk, NoChunk
from sim.eval_rollouts import POLICY, SUCCESS, Job
from sim.evaluation import EvalConfig, RolloutRunner, completed
from sim.fr3_plant import Fr3Plant
from sim.raw import RawLoop

ARM = load_embodiment("fr3")
PERIOD = 50_000_000


class RawPlant(Fr3Plant):
    """The plant, taking rows; remembers them."""

    def __init__(self) -> None:
        super().__init__(("base",), 16, 16, "fr3", PERIOD)
        self.rows: list[np.ndarray] = []

    def act(self, row: np.ndarray) -> None:
        self.rows.append(row)
        for _ in range(50):
            self.step(row[:-1], np.zeros(7), float(row[-1]))

    def stand(self) -> None:
        self.act(np.append(self.joint_state()[0], self.gripper_opening()))


class Counting:
    """A chunk of rows 0 1 2 ... every `every` steps; from the second on ten more."""

    def __init__(self, every: int, rows: int) -> None:
        self.every, self.rows, self.sent = every, rows, 0
        self.in_force: list[object] = []

    def reset(self, task: str, seed: int) -> None: ...

    def close(self) -> None: ...

    def looks(self, stamp_ns: int) -> bool:
        return stamp_ns % (self.every * PERIOD) == 0

    def answer(self, observation, in_force):
        self.in_force.append(in_force)
        stamp_ns = observation.stamp_ns
        if not self.looks(stamp_ns):
            return NoChunk(stamp_ns, "", "policy", "s", 0)
        assert observation.views["base"].shape == (16, 16, 3)
        rows = np.repeat(np.arange(self.rows)[:, None] / 1000 + self.sent / 100, 8, axis=1)
        self.sent += 1
        return ActionChunk(rows, stamp_ns, PERIOD, "policy", "s", self.sent)


def test_each_step_plays_the_row_of_its_time_and_the_last_row_is_held():
    plant, source = RawPlant(), Counting(every=4, rows=3)
    episode = RawLoop(plant).run("Reach-v0", 0, source, max_steps=6)
    assert [round(float(row[0]), 6) for row in plant.rows] == [0.0, 0.001, 0.002, 0.002, 0.01, 0.011]
    assert (episode.steps, episode.success, episode.violations) == (6, False, -1)
    assert set(source.in_force) == {None}, "a plan knows nothing of the one before"


def test_without_a_plan_the_arm_stays():
    plant, source = RawPlant(), Counting(every=4, rows=3)
    source.answer = lambda observation, in_force: NoChunk(observation.stamp_ns, "error: x", "policy", "s", 0)
    RawLoop(plant).run("Reach-v0", 0, source, max_steps=3)
    assert np.ptp(plant.rows, axis=0).max() < 1e-9 and np.abs(plant.rows[0][:-1] - ARM.home).max() < 0.1


@pytest.mark.sim
@pytest.mark.slow
def test_the_expert_solves_maniskill_by_its_own_protocol_with_the_same_bits(maniskill):
    config = completed(EvalConfig(mode="raw", size=64))
    found = []
    for seeds in ((0, 1), (1, 0)):
        with RolloutRunner(config) as runner:
            found.append({seed: runner.run(Job(POLICY, "PushCube-v1", seed)) for seed in seeds})
    assert {r.outcome for r in found[0].values()} == {SUCCESS}
    assert {s: r.digest for s, r in found[0].items()} == {s: r.digest for s, r in found[1].items()}
