from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace

import pytest
import torch
from torch._dynamo.utils import counters

from e0_policy import cpu_training, diffusion
from e0_policy.diffusion import SamplerSettings
from e0_policy.model import E0Model
from e0_policy.model_config import preset
from tests.e0_policy.tiny import random_batch, tiny_config, tiny_model

LAYOUTS = [
    {},
    {"token_layout": "step_token"},
    {"time_cond": "concat_mlp"},
    {"proprio_form": "special", "proprio_bins": 16},
    {"proprio_form": "text"},
    {"hybrid_continuous": True, "position_embedding": False},
    {"vision": "siglip", "patch_size": 8, "vision_depth": 1},
]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def denoised(model: E0Model, batch, seed: int = 0) -> torch.Tensor:
    """Logits for one random input."""
    config = model.config
    x = torch.randn(batch.size, config.prediction_horizon, config.action_dim, config.bins, generator=generator(seed))
    clean = diffusion.clean_rows(batch.committed, config.prediction_horizon)
    with torch.no_grad():
        return model.denoise(model.prefix(batch), x, torch.full((batch.size,), 0.7), clean).logits


def behind_the_last_keys(model: E0Model) -> set[int]:
    """Weights that no action can depend on: only predictions of the backbone itself use them."""
    last, norm = model.backbone.language.blocks[-1], model.backbone.language.norm
    after = (last.self_attn.q_proj, last.self_attn.o_proj, last.post_attention_layernorm, last.mlp, norm)
    return {id(p) for module in after for p in module.parameters()}


@pytest.mark.parametrize("changes", LAYOUTS)
def test_every_layout_samples_and_learns(changes: dict[str, object]) -> None:
    """Tokens within the bins, and a gradient for every weight that the loss can reach."""
    model = tiny_model(**changes)
    config, batch = model.config, random_batch(model.config)
    settings = SamplerSettings.of(config)
    out = model.sample(batch, settings, diffusion.draw_noise(config, settings, 2, generator()))
    assert out.tokens.shape == (2, 4, 3) and out.tokens.min() >= 0 and out.tokens.max() < config.bins
    assert out.entropy.shape == (2, 4) and (out.entropy > 0).all()
    assert (out.flow is None) != config.hybrid_continuous
    model.loss(batch, generator()).total.backward()
    dead = behind_the_last_keys(model)
    for name, parameter in model.named_parameters():
        assert (parameter.grad is None) == (id(parameter) in dead), name


def test_a_missing_view_is_not_attended() -> None:
    """Alone or mixed with others, an observation without a view does not depend on that view's pixels."""
    model = tiny_model()
    batch = random_batch(model.config)
    batch.view_mask[0, 1] = False
    mixed = denoised(model, batch)
    other = replace(batch, images=batch.images.clone())
    other.images[0, 1] = 1.0
    torch.testing.assert_close(denoised(model, other), mixed)
    other.images[1, 1] = 1.0
    assert not torch.allclose(denoised(model, other)[1], mixed[1], atol=1e-4)
    alone = type(batch)(**{k: v[:1] for k, v in vars(batch).items()})
    x, mask = model.prefix_tokens(alone)
    assert x.shape[1] == mask.shape[1] == 6 + 5 + 1, "one view of six tokens, text without padding, proprioception"


def test_released_semantics_attend_black_views() -> None:
    model = tiny_model(mask_absent_views=False)
    batch = random_batch(model.config)
    batch.view_mask[0, 1] = False
    assert model.prefix_tokens(batch)[1].sum(1).tolist() == [6 + 6 + 5 + 1] * 2


def test_padding_of_the_text_is_not_attended() -> None:
    model = tiny_model()
    batch = random_batch(model.config)
    want = denoised(model, batch)
    padded = batch.text_tokens.masked_fill(~batch.text_mask, 63)
    torch.testing.assert_close(denoised(model, replace(batch, text_tokens=padded)), want)
    cut = replace(batch, text_tokens=batch.text_tokens[:, :5], text_mask=batch.text_mask[:, :5])
    torch.testing.assert_close(denoised(model, cut), want, atol=1e-4, rtol=1e-4)


def test_offsets_are_added_to_the_image_tokens() -> None:
    """Equation 9: a zero projection changes nothing, a learned one moves every token of the view alike."""
    model = tiny_model()
    batch = random_batch(model.config)
    plain = model.image_tokens(batch.images[:, 0], torch.zeros(2, 3), 0)
    moved = model.image_tokens(batch.images[:, 0], batch.view_offset[:, 0], 0)
    shift = batch.view_offset[:, 0] @ model.offset_proj.weight.T
    torch.testing.assert_close(moved - plain, shift[:, None].expand_as(plain), atol=1e-4, rtol=1e-4)


def test_insulation_stops_the_gradient_at_the_prefix() -> None:
    """Knowledge insulation: the action loss reaches the expert and nothing of the backbone or the images."""
    for insulate in (True, False):
        model = tiny_model(insulate=insulate)
        model.loss(random_batch(model.config), generator()).total.backward()
        outside = [model.vision, model.projector, model.proprio_proj, model.backbone.language.layers[0]]
        leaks = [p.grad is not None for module in outside for p in module.parameters()]
        assert any(leaks) is not insulate and all(leaks) is not insulate
        assert all(p.grad is not None for p in model.backbone.expert.parameters())


def test_committed_rows_are_read_clean_and_not_trained_on() -> None:
    """Other rows see the committed tokens; the noise and the time of committed rows do not matter."""
    model = tiny_model(committed_max=3)
    batch = replace(random_batch(model.config), committed=torch.tensor([2, 0]))
    config = model.config
    settings = SamplerSettings.of(config)
    noise = diffusion.draw_noise(config, settings, 2, generator())
    out = model.sample(batch, settings, noise)
    assert (out.tokens[0, :2] == batch.action_tokens[0, :2]).all()
    assert (out.entropy[0, :2] == 0).all() and (out.entropy[0, 2:] > 0).all()
    noise.eps[:, 0, :2] = 9.0
    assert (model.sample(batch, settings, noise).tokens == out.tokens).all()
    clean = diffusion.clean_rows(batch.committed, 4)
    x = torch.randn(2, 4, 3, 8, generator=generator())
    cache = model.prefix(batch)
    with torch.no_grad():
        logits = [model.denoise(cache, x, torch.full((2,), tau), clean).logits for tau in (0.9, 0.2)]
        whole = model.denoise(cache, x, torch.zeros(2), None).logits
    assert not torch.allclose(logits[0][0], logits[1][0], atol=1e-4)
    partly = model.denoise(cache, x, torch.zeros(2), clean).logits
    torch.testing.assert_close(partly, whole, atol=1e-4, rtol=1e-4)


def test_loss_ignores_what_the_mask_leaves_out() -> None:
    """Masked dimensions and committed rows do not count."""
    model = tiny_model(committed_max=3)
    batch = random_batch(model.config, size=3)
    batch.action_mask[:, :, 2] = False
    batch.committed[:] = 2
    batch.action_mask[:, 3] = False
    out = model.loss(batch, generator())
    out.total.backward()
    # What counts is row 2, dimensions 0 and 1: a changed target elsewhere changes the input, not the set of targets.
    with torch.no_grad():
        tau = diffusion.draw_tau(3, g := generator())
        eps = torch.randn(3, 4, 3, 8, generator=g)
        time = torch.where(diffusion.clean_rows(batch.committed, 4), 0.0, tau[:, None])[..., None, None]
        x = time * eps + (1 - time) * torch.nn.functional.one_hot(batch.action_tokens, 8)
        clean = diffusion.clean_rows(batch.committed, 4)
        log_p = model.denoise(model.prefix(batch), x, tau, clean).logits.log_softmax(-1)
    picked = log_p.gather(-1, batch.action_tokens[..., None])[:, 2, :2, 0]
    torch.testing.assert_close(out.cross_entropy, -picked.mean(), atol=1e-4, rtol=1e-4)


def test_samples_share_the_prefix_and_the_closest_to_the_plan_is_kept() -> None:
    model = tiny_model()
    config, batch = model.config, random_batch(model.config)
    settings = SamplerSettings.of(config, samples=3)
    noise = diffusion.draw_noise(config, settings, 6, generator())
    kept = model.sample(batch, settings, noise).tokens
    single = SamplerSettings.of(config)
    for row in range(2):
        one = type(batch)(**{k: v[row : row + 1] for k, v in vars(batch).items()})
        each = []
        for k in range(3):
            part = diffusion.NoiseDraw(noise.eps[:, 3 * row + k : 3 * row + k + 1])
            each.append(model.sample(one, single, part).tokens[0])
        distance = torch.stack([(t - batch.action_tokens[row]).abs().sum() for t in each])
        assert (kept[row] == each[int(distance.argmin())]).all()


def test_hybrid_blocks_see_what_the_release_lets_them() -> None:
    """Discrete tokens see the continuous ones, not the other way round; each block sees itself."""
    model = tiny_model(hybrid_continuous=True)
    batch = random_batch(model.config)
    cache = model.prefix(batch)
    x, flow = torch.randn(2, 4, 3, 8, generator=generator()), torch.randn(2, 4, 3, generator=generator(1))
    tau = torch.full((2,), 0.5)
    with torch.no_grad():
        base = model.denoise(cache, x, tau, None, flow)
        other_x = model.denoise(cache, x + 1.0, tau, None, flow)
        other_flow = model.denoise(cache, x, tau, None, flow + 1.0)
    torch.testing.assert_close(other_x.velocity, base.velocity)
    assert not torch.allclose(other_x.logits, base.logits, atol=1e-3)
    assert not torch.allclose(other_flow.logits, base.logits, atol=1e-3)
    assert not torch.allclose(other_flow.velocity, base.velocity, atol=1e-3)


def test_hybrid_flow_follows_euler_steps() -> None:
    """The continuous block integrates its velocity over N steps from its own noise."""
    model = tiny_model(hybrid_continuous=True)
    torch.nn.init.zeros_(model.flow_out.weight)
    torch.nn.init.constant_(model.flow_out.bias, 2.0)
    settings = SamplerSettings.of(model.config, steps=5)
    noise = diffusion.draw_noise(model.config, settings, 2, generator())
    out = model.sample(random_batch(model.config), settings, noise)
    torch.testing.assert_close(out.flow, noise.flow - 2.0)


@pytest.mark.parametrize("changes", [{}, {"vision": "siglip", "patch_size": 8, "vision_depth": 2}])
def test_checkpointing_computes_every_layer_again_and_changes_nothing(changes: dict[str, object]) -> None:
    model = tiny_model(**changes)
    batch, runs = random_batch(model.config), Counter[str]()
    for name, module in model.named_modules():
        if re.fullmatch(r"vision\.encoder\.layers\.\d+|backbone\.\w+\.layers\.\d+\.mlp", name):
            module.register_forward_pre_hook(lambda *_, name=name: runs.update([name]))
    found = []
    for _ in range(2):
        runs.clear()
        model.zero_grad()
        model.loss(batch, generator()).total.backward()
        found.append({name: p.grad for name, p in model.named_parameters() if p.grad is not None})
        once = dict(runs)
        model.checkpoint_activations()
    depth, views = model.config.depth, len(model.config.views)
    layers = [f"vision.encoder.layers.{i}" for i in range(model.config.vision_depth)]
    assert set(once) == {*layers, *(f"backbone.language.layers.{i}.mlp" for i in range(depth - 1))} | {
        f"backbone.expert.layers.{i}.mlp" for i in range(depth)
    }, "the last layer of the prefix stops at its keys and values"
    assert once == {name: 2 * (views if name in layers else 1) for name in once}
    torch.testing.assert_close(found[1], found[0])


@pytest.mark.parametrize(("name", "low", "high"), [("nano", 1e6, 3e6), ("small", 10e6, 25e6), ("full", 3.3e9, 3.4e9)])
def test_sizes(name: str, low: float, high: float) -> None:
    with torch.device("meta"):
        model = E0Model(preset(name))
    assert low < sum(p.numel() for p in model.parameters()) <= high


def test_tiny_config_is_valid_json() -> None:
    config = tiny_config()
    assert type(config).from_dict(config.to_dict()) == config


@pytest.mark.parametrize("changes", [{}, {"vision": "siglip", "patch_size": 8, "vision_depth": 1}])
@pytest.mark.parametrize("own_gradients", [False, True])
def test_compiled_parts_give_the_same_gradient(
    changes: dict[str, object], own_gradients: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Traced without a break, once per kind of layer, as for a GPU and with a CPU's own gradients."""
    if not own_gradients:
        monkeypatch.setattr(cpu_training, "applies", lambda x: False)
    torch._dynamo.reset()
    counters.clear()
    found = []
    for compiled in (False, True):
        model = tiny_model(**changes)
        if compiled:
            model.compile_parts("aot_eager")
        loss = model.loss(random_batch(model.config), generator()).total
        loss.backward()
        found.append((loss, torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])))
    assert 2 <= counters["stats"]["unique_graphs"] <= 3 and not counters["graph_break"]
    torch.testing.assert_close(found[1], found[0])
