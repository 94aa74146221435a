from __future__ import annotations

import json
from dataclasses import fields
from typing import Any

import pytest

from e0_policy.model_config import PRESETS, E0Config, ModelConfigError, preset


@pytest.mark.parametrize("name", PRESETS)
def test_json_round_trip(name: str) -> None:
    config = preset(name)
    assert E0Config.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_published_sizes() -> None:
    """PaliGemma 3B and the 300M expert: section 4.1 of the paper; SigLIP So400m/14 at 224 px has 256 tokens."""
    full = preset("full")
    assert (full.width, full.mlp, full.depth, full.heads, full.kv_heads, full.head_dim) == (2048, 16384, 18, 8, 1, 256)
    assert (full.expert_width, full.expert_mlp) == (1024, 4096)
    assert (full.image_size // full.patch_size) ** 2 == 256


def test_released_semantics() -> None:
    released = preset("released")
    assert released.hybrid_continuous and released.bin_decode == "lower" and not released.mask_absent_views
    assert (released.alpha_train, released.alpha_infer, released.noise_schedule) == (1.0, 0.1, "none")
    assert (released.noise, released.sampling, released.steps, released.bins) == ("fixed", "argmax", 10, 2048)
    assert released.action_tokens == 10 * 32 and not released.position_embedding


def test_tokens_of_a_chunk() -> None:
    assert preset("nano", prediction_horizon=5, action_dim=7).action_tokens == 35
    assert preset("nano", prediction_horizon=5, token_layout="step_token").action_tokens == 5


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"bin": 128}, "field is 'bin'; .*did you mean 'bins'"),
        ({"bins": 1}, "bins is 1; allowed is 2 to 65536"),
        ({"bins": 2.0}, "bins is 2.0; allowed is of type int"),
        ({"insulate": 1}, "insulate is 1; allowed is of type bool"),
        ({"alpha_train": float("nan")}, "alpha_train is nan"),
        ({"token_layout": "dim_tokens"}, "did you mean 'dim_token'"),
        ({"views": []}, r"views is \(\)"),
        ({"views": ["base", "base"]}, "different names"),
        ({"views": "base"}, "views is 'base'; allowed is a tuple of names"),
        ({"image_size": 65}, "image_size is 65; allowed is a multiple of 16"),
        ({"heads": 4, "kv_heads": 3}, "heads is 4; allowed is a multiple of 3"),
        ({"head_dim": 31}, "an even number"),
        ({"vision_width": 130}, "vision_width is 130; allowed is a multiple of 4"),
        ({"committed_max": 8}, "committed_max is 8; allowed is 0 to 7, below the horizon"),
        ({"patch_size": 8}, "patch_size is 8; allowed is 16"),
    ],
)
def test_wrong_values_are_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelConfigError, match=message):
        preset("nano", **changes)


def test_unknown_preset() -> None:
    with pytest.raises(ModelConfigError, match="did you mean 'nano'"):
        preset("nanno")


def test_every_number_has_bounds() -> None:
    """A size without bounds would let a typo allocate all memory."""
    for f in fields(E0Config):
        if f.type in ("int", "float"):
            with pytest.raises(ModelConfigError, match=f.name):
                preset("nano", **{f.name: -1 if f.type == "int" else -1.0})
