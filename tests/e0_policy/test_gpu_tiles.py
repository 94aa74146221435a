"""Which tiles the kernels get; what they compute with them is in test_kernels.py and needs Triton."""

from __future__ import annotations

import pytest

from e0_policy.gpu_tiles import FEW, MANY, Tiles, fitted
from e0_policy.model_config import preset


@pytest.mark.parametrize("tiles", [FEW, MANY], ids=["few", "many"])
def test_every_split_of_a_sum_is_whole_steps(tiles: Tiles) -> None:
    """Else it reads on into the next one's columns and counts them twice."""
    for width in range(128, 4097, 128):
        config = preset("full", heads=width // 128, head_dim=128, expert_mlp=width)
        made = fitted(tiles, config)
        for tile, most in ((made.out, tiles.out.splits), (made.down, tiles.down.splits)):
            assert width % (tile.splits * tile.depth) == 0 and 1 <= tile.splits <= most


def test_presets_keep_their_tiles_where_these_fit() -> None:
    assert fitted(FEW, preset("full")).out == FEW.out and fitted(MANY, preset("full")).down == MANY.down
    assert fitted(FEW, preset("small")).out.splits == 2, "384 columns in four would be steps of one and a half"
