"""An E0 checkpoint in the graph: served over topics, with the answer that it gives without them."""

from __future__ import annotations

from pathlib import Path

import pytest

from e0_ros.core.bag_reader import Bag
from sim.runs import over_graph

pytestmark = pytest.mark.ros
torch = pytest.importorskip("torch", reason="torch is not installed (extra [policy])")


def test_a_checkpoint_drives_the_arm_legally_and_with_the_same_bits(tmp_path: Path) -> None:
    from tests.e0_policy.tiny import tiny_checkpoint

    checkpoint = tiny_checkpoint(tmp_path / "tiny")
    arguments = {
        "simulator": "fr3_plant", "embodiment": "panda", "task": "Reach-v0", "size": 32, "mode": "lockstep",
        "source": "policy", "checkpoint": str(checkpoint),
    }  # fmt: skip
    settings = {"bridge": {"judge": True, "timeout_s": 60.0}}
    runs = [over_graph(arguments, range(1), tmp_path / str(i), 24, settings)[0] for i in range(2)]
    for episode in runs:
        assert (episode.error, episode.steps, episode.violations, episode.refused) == ("", 24, 0, 0)
    assert runs[0].digest == runs[1].digest
    bag = Bag(Path(runs[0].bag))
    chunks = [bag.decode(m) for m in bag.messages(["/e0/action_chunk"])]
    assert {c.reason for c in chunks} <= {"", "the plan in force goes on"}
    plans = [chunk for chunk in chunks if chunk.status == 0]
    assert len(chunks) == 25
    assert 10 <= len(plans) <= 13, "a new plan every execution_horizon rows"
    assert all(len(plan.uncertainty) == plan.rows and plan.checkpoint and plan.source == "policy" for plan in plans)
    moved = max(abs(a - b) for a, b in zip(plans[0].data[:7], plans[-1].data[:7], strict=True))
    assert moved > 0.01
