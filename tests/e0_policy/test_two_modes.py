"""Two ways to do a task, equally often shown: who averages, who mixes, who commits (section 1 and appendix K.1)."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from e0_policy import diffusion
from e0_policy.diffusion import SamplerSettings
from e0_policy.model import E0Model
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
    torch.manual_seed(0)
    model = E0Model(CONFIG)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, 300)
    g = torch.Generator().manual_seed(0)
    for _ in range(300):
        optimizer.zero_grad()
        committed = diffusion.draw_committed(64, CONFIG.committed_max, g)
        model.loss(replace(demonstrations, committed=committed), g).total.backward()
        optimizer.step()
        schedule.step()
    return model.eval()


def sides(tokens: Tensor) -> tuple[float, float, float]:
    """Share of chunks wholly on the left, wholly on the right, and neither."""
    left = ((tokens - LEFT).abs() <= 1).flatten(1).all(1).float().mean().item()
    right = ((tokens - RIGHT).abs() <= 1).flatten(1).all(1).float().mean().item()
    return left, right, 1.0 - left - right


def drawn(policy: E0Model, demonstrations, count: int = 128, **changes: object) -> Tensor:
    settings = SamplerSettings.of(CONFIG, **changes)
    noise = diffusion.draw_noise(CONFIG, settings, count, torch.Generator().manual_seed(1))
    batch = demonstrations
    return policy.sample(
        type(batch)(**{k: v[:1] for k, v in vars(batch).items()}).repeat(count), settings, noise
    ).tokens


def test_regression_averages(demonstrations) -> None:
    """A head trained with squared error answers what lies between the two ways: the obstacle."""
    x, y = demonstrations.proprio, demonstrations.action_tokens.flatten(1).float()
    head = torch.nn.Linear(x.shape[1], y.shape[1])
    optimizer = torch.optim.Adam(head.parameters(), lr=0.3)
    for _ in range(200):
        optimizer.zero_grad()
        (head(x) - y).square().mean().backward()
        optimizer.step()
    assert (head(x[:1]) - (LEFT + RIGHT) / 2).abs().max() < 1.0


def test_one_categorical_step_mixes(policy: E0Model, demonstrations) -> None:
    """At tau = 1 the input says nothing, so every token chooses its side alone: 2 * 0.5^8 of the chunks are whole."""
    _, _, neither = sides(drawn(policy, demonstrations, steps=1, sampling="sampled"))
    assert neither > 0.8


@pytest.mark.parametrize("noise", ["fixed", "redraw"])
def test_e0_commits_to_one_whole_chunk(policy: E0Model, demonstrations, noise: str) -> None:
    left, right, neither = sides(drawn(policy, demonstrations, steps=10, noise=noise))
    assert neither < 0.15
    assert min(left, right) > 0.15, "both ways are taken"


def first(batch):
    return type(batch)(**{k: v[:1] for k, v in vars(batch).items()})


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
