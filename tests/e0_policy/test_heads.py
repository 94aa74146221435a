"""Heads of one pass: same network, their own loss, no noise, committed rows kept."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from e0_policy import diffusion, heads
from e0_policy.diffusion import SamplerSettings
from e0_policy.engine import Engine, supports
from e0_policy.model import E0Model
from e0_policy.model_config import ModelConfigError
from tests.e0_policy.tiny import random_batch, tiny_config, tiny_model

ONE_PASS = ("categorical", "l1", "l2")


def config(head: str, **changes: object):
    return tiny_config(head=head, steps=1, committed_max=2, **changes)


def sample(model: E0Model, batch, seed: int = 0, **changes: object):
    settings = SamplerSettings.of(model.config, **changes)
    noise = diffusion.draw_noise(model.config, settings, batch.size, torch.Generator().manual_seed(seed))
    return model.sample(batch, settings, noise)


@pytest.mark.parametrize("head", ONE_PASS)
@pytest.mark.parametrize("layout", ["dim_token", "step_token"])
def test_it_learns_its_targets_and_answers_them_without_noise(head: str, layout: str) -> None:
    torch.manual_seed(0)
    model, batch = E0Model(config(head, token_layout=layout)), random_batch(config(head), 4)
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    first = model.loss(batch, torch.Generator()).cross_entropy
    for _ in range(150):
        optimizer.zero_grad()
        model.loss(batch, torch.Generator()).total.backward()
        optimizer.step()
    last = model.eval().loss(batch, torch.Generator())
    assert last.cross_entropy < 0.2 * first and last.accuracy > 0.9
    drawn = sample(model, batch)
    assert (drawn.tokens == batch.action_tokens).float().mean() > 0.9
    assert torch.equal(drawn.tokens, sample(model, batch, seed=1).tokens)


def test_a_validation_under_autocast_reads_its_answer_in_float32() -> None:
    """In bfloat16 likely bins tie, argmax takes the lowest, and an expectation has three digits."""
    torch.manual_seed(0)
    out, hidden = torch.nn.Linear(16, 2048), torch.randn(1, 40, 16)
    torch.nn.init.constant_(out.bias, 12.0)
    with torch.no_grad():
        plain = heads.project(out, hidden, True).unflatten(1, (10, 4))
        with torch.autocast("cpu", torch.bfloat16):
            got = heads.project(out, hidden, True).unflatten(1, (10, 4))
            rough = heads.project(out, hidden, False)
            means = [diffusion.decoded(got, got.argmax(-1), decode) for decode in ("mean", "expectation")]
    assert rough.dtype == torch.bfloat16 and torch.equal(got, plain)
    for mean, decode in zip(means, ("mean", "expectation"), strict=True):
        wanted = diffusion.decoded(plain, plain.argmax(-1), decode)
        assert mean is not None and wanted is not None and mean.dtype == torch.float32 and torch.equal(mean, wanted)


@pytest.mark.parametrize("head", ONE_PASS)
def test_committed_rows_are_kept_do_not_count_and_are_seen(head: str) -> None:
    torch.manual_seed(0)
    model = tiny_model(head=head, steps=1, committed_max=2)
    batch = replace(random_batch(model.config), committed=torch.tensor([2, 0]))
    tokens = batch.action_tokens
    other = replace(batch, action_tokens=torch.cat([(tokens[:, :2] + 3) % 8, tokens[:, 2:]], 1))
    answers = [sample(model, b) for b in (batch, other)]
    for b, found in zip((batch, other), answers, strict=True):
        assert torch.equal(found.tokens[0, :2], b.action_tokens[0, :2])
    numbers = [model.denoise(model.prefix(b), heads.start(model.config, b.action_tokens, clean), torch.ones(2), clean)
               for b in (batch, other) for clean in [diffusion.clean_rows(b.committed, 4)]]  # fmt: skip
    assert not torch.allclose(numbers[0].logits[0, 2:], numbers[1].logits[0, 2:])
    assert torch.allclose(numbers[0].logits[1], numbers[1].logits[1], atol=1e-5), (
        "rows that are not committed are hidden"
    )


def test_a_regression_is_the_mean_or_the_median_of_two_ways() -> None:
    """Three of four demonstrations say the first bin, one the last."""
    for head, wanted in (("l2", -0.4375), ("l1", -0.875)):
        torch.manual_seed(0)
        model, one = E0Model(config(head)), random_batch(config(head), 1)
        batch = replace(one.repeat(4), action_tokens=torch.tensor([0, 0, 0, 7])[:, None, None].expand(4, 4, 3))
        optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
        for _ in range(200):
            optimizer.zero_grad()
            model.loss(batch, torch.Generator()).total.backward()
            optimizer.step()
        found = sample(model.eval(), one).mean
        assert found is not None
        assert (found - wanted).abs().max() < 0.05


def test_all_heads_have_the_same_network_up_to_its_last_layer() -> None:
    shapes = [{n: p.shape for n, p in E0Model(tiny_config()).named_parameters() if not n.startswith("action_out")}]
    shapes += [{n: p.shape for n, p in E0Model(config(head)).named_parameters() if not n.startswith("action_out")}
               for head in ONE_PASS]  # fmt: skip
    assert all(found == shapes[0] for found in shapes)


def test_the_categorical_head_runs_on_the_fast_path_and_a_regression_does_not() -> None:
    model, batch = tiny_model(head="categorical", steps=1, committed_max=2), random_batch(config("categorical"), 1)
    settings = SamplerSettings.of(model.config)
    noise = diffusion.draw_noise(model.config, settings, 1, torch.Generator().manual_seed(0))
    assert torch.equal(Engine(model, settings).sample(batch, noise).tokens, model.sample(batch, settings, noise).tokens)
    assert not supports(config("l1")) and not supports(config("l2"))


def test_more_steps_than_one_are_refused() -> None:
    with pytest.raises(ModelConfigError, match="1 with head 'l2'"):
        tiny_config(head="l2", steps=4)
    with pytest.raises(ModelConfigError, match="answers in 1"):
        SamplerSettings.of(config("categorical"), steps=4)
