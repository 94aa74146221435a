from __future__ import annotations

import numpy as np

from e0_policy.embodiment import load_embodiment
from e0_policy.policy import Plan, PolicyOutput
from e0_policy.types import ActionChunk, NoChunk, Observation
from sim.direct import DirectLoop
from sim.eval_graph import rollout_of
from sim.eval_rollouts import BLANK, ERROR, OTHER, POLICY, Job
from sim.evaluation import disguise
from sim.evaluator import Episode
from sim.fr3_plant import Fr3Plant
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


def test_it_prepares_for_the_next_plan_after_each_answer():
    class Preparing(Wanderer):
        def prepare(self) -> None:
            self.ahead.append(len(self.seen))

    policy = Preparing()
    policy.ahead = []
    assert run(policy)[1].digest == run(Wanderer())[1].digest
    assert policy.ahead[:6] == [1, 1, 1, 1, 1, 2]


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
