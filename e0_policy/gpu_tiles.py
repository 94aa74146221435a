"""How the kernels cut their work into tiles, by the number of rows and a model's widths. No Triton, no GPU."""

from __future__ import annotations

from dataclasses import dataclass, replace

from e0_policy.model_config import E0Config


@dataclass(frozen=True)
class Tile:
    """What a program of a kernel computes, and how: rows, columns and depth of a step, programs per result."""

    rows: int
    columns: int
    depth: int = 64
    splits: int = 1
    warps: int = 4
    stages: int = 4


@dataclass(frozen=True)
class Tiles:
    """Choices for one number of rows, and how much the kernels of a layer overlap.

    Attributes:
        overlap: programmatic dependent launch: a kernel's programs arrive before the kernel before has ended.
        fetch: each kernel asks for the weights of the next one.

    """

    qkv: Tile
    attend: Tile
    out: Tile
    gate_up: Tile
    down: Tile
    overlap: bool = False
    fetch: bool = False


FEW = Tiles(
    qkv=Tile(128, 16, 64),
    attend=Tile(16, 64, splits=3, stages=2),
    out=Tile(128, 32, 64, splits=4),
    gate_up=Tile(128, 32, 64),
    down=Tile(128, 32, 64, splits=4),
)
"""Up to 128 rows: reading the weights is what takes time."""

MANY = Tiles(
    qkv=Tile(128, 32, 64, warps=8),
    attend=Tile(64, 32, splits=2, stages=2),
    out=Tile(128, 64, 64, splits=2, warps=8),
    gate_up=Tile(128, 64, 64, warps=8),
    down=Tile(128, 64, 64, splits=2, warps=8),
)
"""More rows: arithmetic is."""

PREFIX_ATTEND = Tile(64, 32, splits=2, stages=2)
"""Attention among the prefix's tokens: 8 x 525 queries at two views."""


def fitted(tiles: Tiles, config: E0Config) -> Tiles:
    """Tiles made narrower where the model is too small for them: a program keeps inside half a head, and a split of the
    columns that it sums over is whole steps of its depth.
    """
    half = config.head_dim // 2
    return replace(
        tiles,
        qkv=replace(tiles.qkv, columns=min(tiles.qkv.columns, half)),
        out=_divided(tiles.out, config.heads * config.head_dim),
        down=_divided(tiles.down, config.expert_mlp),
    )


def _divided(tile: Tile, width: int) -> Tile:
    """With as many splits, halved, as divide `width` columns into whole steps."""
    splits = tile.splits
    while splits > 1 and width % (splits * tile.depth):
        splits //= 2
    return replace(tile, splits=splits)
