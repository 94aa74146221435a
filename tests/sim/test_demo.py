from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from e0_policy.embodiment import load_embodiment
from e0_policy.resources import config_dir
from e0_policy.types import Observation
from e0_ros.config import ConfigError
from e0_ros.policies import load_checkpoint
from sim.demo import SHIPPED, evaluation, parser, source_line

MAX_BYTES = 12_000_000


@pytest.mark.parametrize(
    ("words", "policy"),
    [
        ([], True),
        (["--task", "PushCube-v1"], True),
        (["--task", "PushCube-v1", "--expert"], False),
        (["--task", "StackCube-v1"], False),
        (["--simulator", "fr3_plant", "--task", "Reach-v0"], False),
    ],
)
def test_the_shipped_policy_plans_what_it_can_do_and_the_expert_the_rest(words: list[str], policy: bool) -> None:
    config = evaluation(parser().parse_args(words))
    assert bool(config.checkpoint) == policy
    assert source_line(config).startswith("policy, E0 checkpoint" if policy else "scripted (a privileged")
    assert config.views == (("base", "side", "wrist") if policy else ("base", "wrist"))
    assert config.size == (128 if policy else 224)


def test_a_checkpoint_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nowhere holds no checkpoint"):
        evaluation(parser().parse_args(["--checkpoint", str(tmp_path / "nowhere")]))


def test_the_shipped_checkpoint_is_small_and_plans_for_a_panda() -> None:
    folder = config_dir() / SHIPPED
    assert sum(path.stat().st_size for path in folder.iterdir()) <= MAX_BYTES
    policy, arm = load_checkpoint(str(folder), "cpu", {"threads": 1}), load_embodiment("panda")
    views = {name: np.zeros((128, 128, 3), np.uint8) for name in ("base", "side", "wrist")}
    words = "push the blue cube onto the red and white target"
    seen = Observation(0, views, arm.home, 1.0, instruction=words, embodiment=arm.name, joint_names=arm.joint_names)
    policy.reset()
    output = policy.infer(seen, None)
    assert output is not None and output.rows.shape == (8, 8) and np.isfinite(output.rows).all()
    assert np.abs(output.rows[:, :7] - arm.home).max() < 0.5 and policy.execution_horizon == 4
