"""The configurations in config/train: their models as they are (without memory), and two steps of each at toy size."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from e0_policy.dataset import write_packed
from e0_policy.inference import load_policy
from e0_policy.model import E0Model
from e0_policy.resources import config_dir
from e0_policy.synthetic import SyntheticSource
from e0_policy.train import train
from e0_policy.train_config import load_config
from e0_ros.core.step_rows import OSC_POSE

PARAMETERS_M = {"nano": (1, 3), "synthetic": (1, 3), "small": (10, 25), "full": (3200, 3500)}
TOY = {
    "model.vision_width": 16, "model.vision_heads": 2, "model.vision_mlp": 32, "model.width": 16, "model.mlp": 32,
    "model.expert_width": 16, "model.expert_mlp": 32, "model.depth": 2, "model.heads": 2, "model.head_dim": 8,
    "model.bins": 32, "model.vocab_size": 384, "batch_size": 4, "steps": 2, "warmup_steps": 1, "workers": 0,
    "initial_weights": "", "text_tokenizer": "", "validation_samples": 2, "device": "cpu", "compiled": False,
}  # fmt: skip
"""Sizes, no minutes of compiling, and files that are not here; precision, augmentation and the rest stay as shipped."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Packed demonstrations in which every joint moves, longer than any horizon."""
    source, random = SyntheticSource(6, image_size=48), np.random.default_rng(0)
    moved = []
    for episode in source.episodes:
        proprioception, actions = (np.repeat(t, 4, axis=0) for t in (episode.proprioception, episode.actions))
        walk = np.append(random.normal(0.0, 0.01, (len(actions) + 1, 7)).cumsum(0), np.zeros((len(actions) + 1, 1)), 1)
        moved.append(replace(episode, proprioception=proprioception + walk[:-1], actions=actions + walk[1:]))
    source.episodes = moved
    packed = tmp_path_factory.mktemp("demonstrations") / "packed"
    write_packed(source, packed)
    return packed


@pytest.mark.parametrize("name", PARAMETERS_M)
def test_model_has_the_size_that_its_name_promises(name: str) -> None:
    config = load_config(config_dir() / "train" / f"{name}.yaml")
    with torch.device("meta"):
        model = E0Model(config.model)
    low, high = PARAMETERS_M[name]
    assert low < sum(p.numel() for p in model.parameters()) / 1e6 < high


def test_every_policy_learns_to_keep_committed_rows() -> None:
    """Without them real-time chunking is off, and nobody is told while training."""
    policies = {path for path in (config_dir() / "train").glob("*.yaml") if path.stem != "pretrain"}
    assert len(policies) >= 8
    for path in policies:
        config = load_config(path)
        assert config.model.committed_max >= min(config.execution_horizon, config.model.prediction_horizon // 4), path


def test_libero_is_for_the_rows_of_its_controller() -> None:
    config = load_config(config_dir() / "train" / "libero.yaml")
    assert (config.model.action_dim, config.drop_idle_rad) == (len(OSC_POSE), 0.0)


@pytest.mark.parametrize("name", ["nano", "small", "full"])
def test_two_steps_and_a_policy(name: str, folder: Path, tmp_path: Path) -> None:
    toy = {**TOY, "data": str(folder), "output": str(tmp_path / "run")}
    toy["model.image_size"] = 28 if name == "full" else 32
    config = load_config(config_dir() / "train" / f"{name}.yaml", toy)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        result = train(config)
    finally:
        torch.set_num_threads(threads)
    assert result.step == 2 and np.isfinite(result.loss)
    assert result.validation is not None and result.validation.joint_rad is not None
    assert load_policy(str(tmp_path / "run" / "checkpoint"), "cpu", steps=1).embodiment == "panda"
