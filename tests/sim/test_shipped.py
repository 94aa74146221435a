"""The shipped checkpoint does what it is shipped for."""

from __future__ import annotations

import pytest

from e0_policy.resources import config_dir
from sim.demo import SHIPPED
from sim.eval_rollouts import POLICY, SUCCESS, Job
from sim.evaluation import EvalConfig, RolloutRunner, completed


@pytest.mark.sim
@pytest.mark.usefixtures("maniskill")
@pytest.mark.parametrize("task", ["PushCube-v1", "PickCube-v1"])
def test_it_solves_its_task_in_one_of_three_scenes(task: str) -> None:
    """Processors round differently, and with that it fails in some scenes: it solves nine of ten."""
    config = completed(EvalConfig(checkpoint=str(config_dir() / SHIPPED), mode="direct", max_steps=100))
    with RolloutRunner(config) as runner:
        rollouts = (runner.run(Job(POLICY, task, seed)) for seed in (101, 102, 103))
        found = next((rollout for rollout in rollouts if rollout.outcome == SUCCESS), None)
    assert found is not None and found.violations == 0 and found.plans > 5
