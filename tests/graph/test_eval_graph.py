"""`e0 eval` over the graph and in one process: the same checkpoint and seeds agree to the bit."""

from __future__ import annotations

from pathlib import Path

import pytest

from sim.eval_pictures import video_path
from sim.eval_rollouts import POLICY, Job, RolloutStore
from sim.eval_run import Plan, evaluate
from sim.evaluation import EvalConfig, completed, identity

pytestmark = pytest.mark.ros
torch = pytest.importorskip("torch", reason="torch is not installed (extra [policy])")


def rollouts(config: EvalConfig, folder: Path) -> dict[Job, tuple[object, ...]]:
    done = RolloutStore(folder, identity(completed(config))).rollouts
    return {j: (r.outcome, r.steps, r.digest, r.plans, r.violations, r.jerk_rad_s3) for j, r in done.items()}


def test_lockstep_and_direct_agree_to_the_bit_and_controls_are_made(tmp_path: Path) -> None:
    from tests.e0_policy.tiny import tiny_checkpoint

    values = {"simulator": "fr3_plant", "checkpoint": str(tiny_checkpoint(tmp_path / "tiny")), "max_steps": 20}
    lockstep, direct = EvalConfig(mode="lockstep", **values), EvalConfig(mode="direct", **values)
    told = evaluate(lockstep, Plan(("Reach-v0",), range(2), controls=1, videos=1), tmp_path / "lockstep")
    assert (told["episodes"], told["errors"], told["violations"], told["missing"]) == (2, 0, 0, 0)
    evaluate(direct, Plan(("Reach-v0",), range(2), controls=1), tmp_path / "direct")
    over_graph, in_process = rollouts(lockstep, tmp_path / "lockstep"), rollouts(direct, tmp_path / "direct")
    assert over_graph == in_process and len(over_graph) == 4
    assert len({digest for _, _, digest, *_ in over_graph.values()}) == 4, "seeds and controls differ"
    assert video_path(tmp_path / "lockstep", Job(POLICY, "Reach-v0", 0)).is_file(), "the rollout run again is the same"
