from __future__ import annotations

import pytest
import torch
from transformers import SiglipVisionConfig, SiglipVisionModel

from e0_policy.vision import ConvTower, SiglipTower, make_tower
from tests.e0_policy.tiny import tiny_config


def test_siglip_equals_transformers() -> None:
    """Same weights, same numbers."""
    config = tiny_config(vision="siglip", patch_size=8, vision_depth=2)
    theirs = SiglipVisionModel(
        SiglipVisionConfig(
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            image_size=32,
            patch_size=8,
            hidden_act="gelu_pytorch_tanh",
            vision_use_head=False,
        )
    ).eval()
    for parameter in theirs.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    ours = SiglipTower(config).eval()
    ours.load_state_dict({k.removeprefix("vision_model."): v for k, v in theirs.state_dict().items()})
    images = torch.randn(3, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(ours(images, 0), theirs(images).last_hidden_state, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("kind", ["siglip", "conv"])
def test_tokens_per_view(kind: str) -> None:
    config = tiny_config(vision=kind, vision_depth=1)
    tower = make_tower(config)
    assert tower(torch.randn(2, 3, 32, 32), 1).shape == (2, tower.tokens, config.vision_width)


def test_key_points_follow_the_image() -> None:
    """A bright spot moved to the right moves the key points' token; views have weights of their own."""
    config = tiny_config()
    tower = ConvTower(config).eval()
    left, right = torch.full((1, 3, 32, 32), -1.0), torch.full((1, 3, 32, 32), -1.0)
    left[..., 12:20, 4:12] = 1.0
    right[..., 12:20, 20:28] = 1.0
    points = [tower.stems[0](x)[:, -2] for x in (left, right)]
    assert not torch.allclose(points[0], points[1], atol=1e-4)
    assert not torch.allclose(tower(left, 0), tower(left, 1), atol=1e-4)
