"""Two ways to do a task, equally often shown: who averages, who mixes, who commits (section 1 and appendix K.1)."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from e0_policy import diffusion
from e0_policy.diffusion import Sample, SamplerSettings
from e0_policy.model import E0Model
from e0_policy.model_config import E0Config
from tests.e0_policy.tiny import random_batch, tiny_config

LEFT, RIGHT = 2, 13
CONFIG = tiny_config(bins=16, prediction_horizon=4, action_dim=2, views=["base"], image_size=16, committed_max=2)


@pytest.fixture(scope="module")
def demonstrations():
    """One scene; half of the chunks pass the obstacle on the left, half on the right, with a bin of jitter."""
    batch = random_batch(CONFIG, 1).repeat(64)
    g = torch.Generator().manual_seed(0)
    side = torch.where(torch.arange(64) % 2 == 0, LEFT, RIGHT)[:, None, None]
    jitter = torch.randint(-1, 2, batch.action_tokens.shape, generator=g)
    return replace(batch, action_tokens=side + jitter)


@pytest.fixture(scope="module")
def policy(demonstrations) -> E0Model:
    return trained(CONFIG, demonstrations, 300)


def trained(config: E0Config, demonstrations, steps: int) -> E0Model:
    torch.manual_seed(0)
    model = E0Model(config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, steps)
    g = torch.Generator().manual_seed(0)
    for _ in range(steps):
        optimizer.zero_grad()
        committed = diffusion.draw_committed(demonstrations.size, config.committed_max, g)
        model.loss(replace(demonstrations, committed=committed), g).total.backward()
        optimizer.step()
        schedule.step()
    return model.eval()


def sides(tokens: Tensor) -> tuple[float, float, float]:
    """Share of chunks wholly on the left, wholly on the right, and neither."""
    left = ((tokens - LEFT).abs() <= 1).flatten(1).all(1).float().mean().item()
    right = ((tokens - RIGHT).abs() <= 1).flatten(1).all(1).float().mean().item()
    return left, right, 1.0 - left - right


def drawn(policy: E0Model, demonstrations, count: int = 128, **changes: object) -> Sample:
    settings = SamplerSettings.of(policy.config, **changes)
    noise = diffusion.draw_noise(policy.config, settings, count, torch.Generator().manual_seed(1))
    return policy.sample(first(demonstrations).repeat(count), settings, noise)


def test_a_regression_head_averages(demonstrations) -> None:
    """The same network trained with squared error answers what lies between the two ways: the obstacle."""
    model = trained(replace(CONFIG, head="l2", steps=1), demonstrations, 100)
    mean = drawn(model, demonstrations, 1).mean
    assert mean is not None
    bins = (mean + 1.0) / 2.0 * CONFIG.bins - 0.5
    assert (bins - (LEFT + RIGHT) / 2).abs().max() < 1.0


def test_a_categorical_head_mixes(demonstrations) -> None:
    """The same network, one pass, one distribution per token: each token takes a side that was shown, for itself."""
    model = trained(replace(CONFIG, head="categorical", steps=1), first(demonstrations, 16), 80)
    tokens = drawn(model, demonstrations, sampling="sampled").tokens
    left, right = ((tokens - side).abs() <= 1 for side in (LEFT, RIGHT))
    assert (left | right).float().mean() > 0.95 and 0.4 < left.float().mean() < 0.6
    assert sides(tokens)[2] > 0.8, "2 * 0.5^8 of the chunks are whole"


def test_one_step_of_e0_mixes(policy: E0Model, demonstrations) -> None:
    """At tau = 1 the input says nothing, so every token chooses its side alone: 2 * 0.5^8 of the chunks are whole."""
    _, _, neither = sides(drawn(policy, demonstrations, steps=1, sampling="sampled").tokens)
    assert neither > 0.8


@pytest.mark.parametrize("noise", ["fixed", "redraw"])
def test_e0_commits_to_one_whole_chunk(policy: E0Model, demonstrations, noise: str) -> None:
    left, right, neither = sides(drawn(policy, demonstrations, steps=10, noise=noise).tokens)
    assert neither < 0.15
    assert min(left, right) > 0.15, "both ways are taken"


def first(batch, count: int = 1):
    return type(batch)(**{k: v[:count] for k, v in vars(batch).items()})


@pytest.mark.parametrize("side", [LEFT, RIGHT])
def test_committed_rows_decide_the_way(policy: E0Model, demonstrations, side: int) -> None:
    """Real-time chunking in token space: the rest of the chunk follows the row that cannot be changed any more."""
    batch = first(demonstrations).repeat(128)
    plan = replace(
        batch, action_tokens=torch.full_like(batch.action_tokens, side), committed=torch.ones(128, dtype=torch.long)
    )
    settings = SamplerSettings.of(CONFIG)
    noise = diffusion.draw_noise(CONFIG, settings, 128, torch.Generator().manual_seed(2))
    tokens = policy.sample(plan, settings, noise).tokens
    assert (tokens[:, 0] == side).all()
    assert ((tokens - side).abs() <= 1).flatten(1).all(1).float().mean() > 0.95


@pytest.mark.parametrize("side", [LEFT, RIGHT])
def test_one_of_many_samples_keeps_to_the_plan(policy: E0Model, demonstrations, side: int) -> None:
    plan = first(demonstrations)
    plan = replace(plan, action_tokens=torch.full_like(plan.action_tokens, side))
    settings = SamplerSettings.of(CONFIG, samples=12)
    noise = diffusion.draw_noise(CONFIG, settings, 12, torch.Generator().manual_seed(2))
    assert ((policy.sample(plan, settings, noise).tokens - side).abs() <= 1).all()
