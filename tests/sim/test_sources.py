from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from e0_policy.embodiment import load_embodiment
from e0_policy.policy import Plan, PolicyOutput
from e0_policy.types import ActionChunk, NoChunk, Observation
from e0_ros.config import ConfigError
from sim.direct import DirectLoop
from sim.eval_graph import graph_settings, rollout_of
from sim.eval_rollouts import BLANK, ERROR, OTHER, POLICY, Job
from sim.evaluation import EvalConfig, disguise, other_instruction
from sim.evaluator import Episode
from sim.fr3_plant import Fr3Plant
from sim.simulators import instructions
from sim.sources import PolicySource

ARM = load_embodiment("fr3")


class Wanderer:
    """Moves the first joint a little from where it is; remembers what it was given."""

    embodiment, checkpoint, execution_horizon = "fr3", "w", 5

    def __init__(self) -> None:
        self.seen: list[Observation] = []
        self.plans: list[Plan | None] = []
        self.fault_at = -1

    def reset(self) -> None:
        self.seen.clear()
        self.plans.clear()

    def infer(self, observation: Observation, plan: Plan | None) -> PolicyOutput:
        self.seen.append(observation)
        self.plans.append(plan)
        if len(self.seen) == self.fault_at:
            raise ZeroDivisionError("bad weights")
        rows = np.tile(np.append(observation.joint_positions, 1.0), (10, 1))
        rows[:, 0] += np.linspace(0.0, 0.05, 10)
        return PolicyOutput(rows, 50_000_000)


def run(policy: Wanderer, **values: object):
    source, loop = PolicySource(policy, ARM), DirectLoop(Fr3Plant(("base", "wrist"), 32, 32, "fr3", 50_000_000))
    for name, value in values.items():
        setattr(source, name, value)
    source.reset("Reach-v0", 0)
    return source, loop.run("Reach-v0", 0, source, max_steps=12)


def test_a_policy_plans_when_due_on_the_plan_in_force_and_only_then_sees_pictures():
    policy = Wanderer()
    source, episode = run(policy)
    assert [o.stamp_ns - policy.seen[0].stamp_ns for o in policy.seen] == [0, 250_000_000, 500_000_000]
    assert all(view.shape == (32, 32, 3) and view.any() for o in policy.seen for view in o.views.values())
    assert policy.plans[0] is None
    assert [p.t0_ns for p in policy.plans[1:] if p] == [o.stamp_ns for o in policy.seen[:2]]
    assert len(source.latencies_ms) == 3 and source.fault == "" and episode.steps == 12


def test_an_onlooker_sees_every_step_and_changes_nothing():
    moments = []
    first = run(Wanderer())[1]
    source, loop = PolicySource(Wanderer(), ARM), DirectLoop(Fr3Plant(("base", "wrist"), 32, 32, "fr3", 50_000_000))
    source.reset("Reach-v0", 0)
    second = loop.run("Reach-v0", 0, source, 12, moments.append)
    assert second.digest == first.digest
    assert [m.step for m in moments] == list(range(13))
    assert all(m.images["wrist"].shape == (32, 32, 3) for m in moments)
    assert all(isinstance(m.chunk, ActionChunk) for m in moments)


def test_controls_take_pictures_or_the_instruction_away():
    policy = Wanderer()
    run(policy, disguise=disguise("maniskill", Job(BLANK, "PickCube-v1", 0)))
    assert not any(view.any() for o in policy.seen for view in o.views.values())
    assert policy.seen[0].instruction == "move every joint to its mark"
    run(policy, disguise=disguise("maniskill", Job(OTHER, "PickCube-v1", 0)))
    assert policy.seen[0].instruction == "push the blue cube onto the red and white target"
    assert policy.seen[0].views["base"].any()
    run(policy, disguise=disguise("maniskill", Job(POLICY, "PickCube-v1", 0)))
    assert policy.seen[0].instruction == "move every joint to its mark"


@pytest.mark.parametrize("simulator", ["maniskill", "fr3_plant", "libero"])
def test_the_other_instruction_is_another_though_two_tasks_are_told_the_same(simulator: str) -> None:
    known = instructions(simulator)
    others = {task: other_instruction(simulator, task) for task in known}
    assert all(others.values()) == (len(set(known.values())) > 1)
    assert not any(others[task] == text for task, text in known.items())


def test_what_a_policy_raises_is_told_and_is_an_error_of_the_rollout():
    policy = Wanderer()
    policy.fault_at = 2
    source, _ = run(policy)
    assert source.fault == "ZeroDivisionError: bad weights"
    assert isinstance(source.answer(policy.seen[-1], None), (ActionChunk, NoChunk))
    job = Job(POLICY, "Reach-v0", 0)
    over_graph = rollout_of(job, Episode(0, "Reach-v0", 0, fault="error: bad", success=True), 0, 1.0)
    assert (over_graph.outcome, over_graph.error) == (ERROR, "the policy: error: bad")


def test_violations_over_the_graph_are_those_of_the_rollout_alone():
    job = Job(POLICY, "Reach-v0", 0)
    assert rollout_of(job, Episode(0, "Reach-v0", 0, violations=5), 3, 1.0).violations == 2
    assert rollout_of(job, Episode(0, "Reach-v0", 0, violations=-1), 3, 1.0).violations == -1


def test_a_policy_in_doubt_plans_more_often() -> None:
    class Doubting(Wanderer):
        def infer(self, observation: Observation, plan: Plan | None) -> PolicyOutput:
            output = super().infer(observation, plan)
            return replace(output, uncertainty=np.linspace(0.0, 2.0, len(output.rows), dtype=np.float32))

    plans = []
    for doubt_nats in (100.0, 0.5):
        policy = Doubting()
        source = PolicySource(policy, ARM, doubt_nats)
        source.reset("Reach-v0", 0)
        DirectLoop(Fr3Plant(("base", "wrist"), 32, 32, "fr3", 50_000_000)).run("Reach-v0", 0, source, 12)
        plans.append(len(source.latencies_ms))
    assert 0 < plans[0] < plans[1]
    with pytest.raises(ConfigError, match="the scripted expert has no doubt"):
        EvalConfig(doubt_nats=1.0)
    policy_node = graph_settings(EvalConfig(checkpoint="config/checkpoint/pick_push", doubt_nats=0.7))["policy"]
    assert policy_node["doubt_nats"] == 0.7
