from __future__ import annotations

import torch
from transformers import GemmaConfig, GemmaModel, PaliGemmaConfig
from transformers.models.paligemma.modeling_paligemma import PaliGemmaMultiModalProjector

from e0_policy.backbone import Backbone
from e0_policy.gemma import Condition, RmsNorm, attend
from e0_policy.model import E0Model
from tests.e0_policy.tiny import tiny_config


def gemma(config) -> GemmaModel:
    model = GemmaModel(
        GemmaConfig(
            vocab_size=config.vocab_size,
            hidden_size=config.width,
            intermediate_size=config.mlp,
            num_hidden_layers=config.depth,
            num_attention_heads=config.heads,
            num_key_value_heads=config.kv_heads,
            head_dim=config.head_dim,
            rope_theta=config.rope_theta,
            hidden_activation="gelu_pytorch_tanh",
            pad_token_id=None,
        )
    ).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model


def copied(theirs: GemmaModel, config) -> Backbone:
    ours = Backbone(config).eval()
    state = theirs.state_dict()
    ours.embed_tokens.weight.data = state.pop("embed_tokens.weight")
    ours.language.load_state_dict(state)
    return ours


def test_prefix_equals_transformers_with_full_attention() -> None:
    for kv_heads in (1, 2):
        config = tiny_config(kv_heads=kv_heads, depth=3)
        theirs = gemma(config)
        ours = copied(theirs, config)
        tokens = torch.randint(0, config.vocab_size, (2, 7))
        mask = torch.arange(7).expand(2, 7) < torch.tensor([[7], [4]])
        full = mask[:, None, None].expand(2, 1, 7, 7)
        bias = torch.zeros(full.shape).masked_fill(~full, torch.finfo(torch.float32).min)
        with torch.no_grad():
            positions = (mask.cumsum(1) - 1).clamp(min=0)
            want = theirs(tokens, attention_mask=bias, position_ids=positions, use_cache=True).past_key_values
            got = ours.prefix(ours.embed(tokens), mask)
        seen = mask[:, None, :, None].expand(-1, kv_heads, -1, config.head_dim)
        for index, layer in enumerate(want.layers):
            torch.testing.assert_close(got.keys[index][seen], layer.keys[seen], atol=1e-4, rtol=1e-4)
            torch.testing.assert_close(got.values[index][seen], layer.values[seen], atol=1e-4, rtol=1e-4)


def test_generation_equals_transformers_with_causal_attention() -> None:
    """Tokens behind a one-token prefix see what came before, as in a causal model."""
    config = tiny_config()
    theirs = gemma(config)
    ours = copied(theirs, config)
    tokens = torch.randint(0, config.vocab_size, (2, 6))
    with torch.no_grad():
        want = theirs(tokens).last_hidden_state
        cache = ours.prefix(ours.embed(tokens[:, :1]), torch.ones(2, 1, dtype=torch.bool))
        got = ours.generate(ours.embed(tokens[:, 1:]), torch.ones(2, 5, dtype=torch.bool), cache)
    torch.testing.assert_close(got, want[:, 1:], atol=1e-4, rtol=1e-4)


def test_projector_equals_transformers() -> None:
    config = tiny_config(vision="siglip")
    vision = {"model_type": "siglip_vision_model", "hidden_size": config.vision_width, "projection_dim": config.width}
    theirs = PaliGemmaMultiModalProjector(PaliGemmaConfig(vision_config=vision, projection_dim=config.width))
    ours = E0Model(config).projector
    ours.load_state_dict(theirs.linear.state_dict())
    x = torch.randn(2, 4, config.vision_width)
    torch.testing.assert_close(ours(x), theirs(x))


def test_adaptive_norm_scales_shifts_and_gates() -> None:
    norm = RmsNorm(4, 3)
    torch.nn.init.normal_(norm.dense.weight)
    x, embedding = torch.randn(2, 5, 4), torch.randn(2, 2, 3)
    clean = torch.arange(5).expand(2, 5) < 2
    y, gate = norm(x, Condition(embedding, torch.stack([~clean, clean], -1).float()))
    for token, which in ((0, 1), (4, 0)):
        scale, shift, want = norm.dense(embedding[:, which]).chunk(3, -1)
        rms = x[:, token].square().mean(-1, keepdim=True).sqrt()
        torch.testing.assert_close(y[:, token], x[:, token] / rms * (1 + scale) + shift, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(gate[:, token], want)


def test_attention_is_the_same_with_and_without_gradient() -> None:
    q, k, v = torch.randn(2, 4, 5, 8), torch.randn(2, 2, 6, 8), torch.randn(2, 2, 6, 8)
    for mask in (None, torch.rand(2, 1, 6) < 0.7, torch.rand(2, 5, 6) < 0.7):
        if mask is not None:
            mask[..., 0] = True
        plain = attend(q.clone().requires_grad_(), k, v, mask)
        torch.testing.assert_close(plain, attend(q, k, v, mask))
