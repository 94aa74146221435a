from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from e0_policy.dataset import ChunkDataset
from e0_policy.diffusion import Sample, SamplerSettings, closest
from e0_policy.kinematics import tcp_position_m
from e0_policy.model_config import preset
from e0_policy.synthetic import SyntheticSource
from e0_policy.train_config import TrainConfig
from e0_policy.train_setup import fit_transform
from e0_policy.validation import open_loop

CONFIG = TrainConfig(
    model=preset("nano", prediction_horizon=6, image_size=32, steps=1), constant_dimensions="hold", synthetic_episodes=4
)


class Oracle:
    """Knows the targets, and answers `shift` bins beside them."""

    config = CONFIG.model

    def __init__(self, shift: int) -> None:
        self.shift = shift

    def loss(self, batch, generator):
        return SimpleNamespace(cross_entropy=torch.tensor(2.0), accuracy=torch.tensor(0.5))

    def sample(self, batch, settings, noise):
        tokens = (batch.action_tokens + self.shift).clamp(0, self.config.bins - 1)
        return Sample(tokens, torch.zeros(tokens.shape[:2]))


@pytest.fixture(scope="module")
def dataset() -> ChunkDataset:
    source = SyntheticSource(4, image_size=32)
    return ChunkDataset(source, [2, 3], fit_transform(CONFIG, source, [0, 1, 2, 3]))


def test_the_right_tokens_are_off_by_less_than_half_a_bin(dataset):
    got = open_loop(Oracle(0), dataset, range(len(dataset)), torch.device("cpu"), batch_size=7)
    half_bin = float((dataset.transform.actions.high - dataset.transform.actions.low)[:7].max()) / 2 / 256
    assert (got.samples, got.loss, got.accuracy) == (len(dataset), 2.0, 0.5)
    assert 0 < got.joint_rad < half_bin and 0 < got.gripper < 0.5 / 256 + 1e-9 and got.tcp_m < 4 * half_bin


def test_errors_are_in_radians_and_metres_over_real_rows(dataset):
    got = open_loop(Oracle(8), dataset, [0, 5, len(dataset) - 1], torch.device("cpu"))
    wanted, predicted = [], []
    for index in (0, 5, len(dataset) - 1):
        proprioception, rows = dataset.numbers(index)
        tokens = np.clip(dataset[index][1].tokens + 8, 0, 255)
        wanted.append(rows)
        predicted.append(dataset.transform.rows(tokens, proprioception)[: len(rows)])
    assert len(wanted[-1]) == 1, "the last frame has one real row"
    a, b = np.concatenate(wanted), np.concatenate(predicted)
    assert got.joint_rad == pytest.approx(np.abs(a - b)[:, :7].mean())
    assert got.gripper == pytest.approx(np.abs(a - b)[:, 7].mean())
    assert got.tcp_m == pytest.approx(
        np.linalg.norm(tcp_position_m(a[:, :7]) - tcp_position_m(b[:, :7]), axis=1).mean()
    )


def test_a_hybrid_is_judged_by_the_average_that_it_answers_with(dataset):
    class Hybrid(Oracle):
        def sample(self, batch, settings, noise):
            drawn = super().sample(batch, settings, noise)
            values = [dataset.transform.tokenizer.decode(t.numpy()) for t in (batch.action_tokens, drawn.tokens)]
            return replace(drawn, flow=torch.from_numpy(2.0 * values[0] - values[1]))

    exact, off = (open_loop(Oracle(shift), dataset, [0, 5], torch.device("cpu")) for shift in (0, 8))
    got = open_loop(Hybrid(8), dataset, [0, 5], torch.device("cpu"))
    assert got.joint_rad == pytest.approx(exact.joint_rad) and got.joint_rad < 0.2 * off.joint_rad


def test_of_many_samples_it_is_not_the_one_nearest_to_the_truth(dataset):
    class Twice(Oracle):
        """Draws what is 8 bins off, then the truth, and keeps the one closer to the plan in force."""

        def sample(self, batch, settings, noise):
            off = super().sample(batch, settings, noise).tokens
            both = torch.stack([off, batch.action_tokens], 1).flatten(0, 1)
            drawn = Sample(both, torch.zeros(both.shape[:2]))
            return closest(drawn, settings.samples, batch.action_tokens, batch.action_mask)

    settings = SamplerSettings.of(CONFIG.model, samples=2)
    got = open_loop(Twice(8), dataset, [0, 5], torch.device("cpu"), settings=settings)
    assert got == open_loop(Oracle(8), dataset, [0, 5], torch.device("cpu"))


def test_another_arm_has_no_error_in_metres(dataset, monkeypatch):
    monkeypatch.setattr(dataset.source, "embodiment", "other", raising=False)
    got = open_loop(Oracle(0), dataset, [0, 1], torch.device("cpu"))
    assert got.tcp_m is None and got.joint_rad is None and got.gripper is not None
