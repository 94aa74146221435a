"""The fast engine's arithmetic in Triton kernels (`kernels.py`), for bfloat16 weights on a CUDA GPU.

Same results as `FastPath` but for rounding. Matrix products of the prefix (hundreds of rows) stay with cuBLAS.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn.functional import gelu, linear, pad, scaled_dot_product_attention

from e0_policy import kernels
from e0_policy.collate import to_unit
from e0_policy.diffusion import SamplerSettings
from e0_policy.fast_path import _EPS, Buffers, FastPath, Inputs, Shape
from e0_policy.fused import Layer, Norm
from e0_policy.gpu_tiles import FEW, MANY, PREFIX_ATTEND, Tile, Tiles, fitted
from e0_policy.model import E0Model
from e0_policy.model_config import E0Config
from e0_policy.vision import EncoderLayer, SiglipTower

_LOG2_E = 1.4426950408889634


@dataclass(frozen=True)
class GpuBuffers(Buffers):
    """Also what the kernels pass on: `(samples * T, ...)` each, and partial sums with the counters of who arrived."""

    xs: Tensor
    squares: Tensor
    q: Tensor
    attended: Tensor
    hidden: Tensor
    work: Tensor
    stats: Tensor
    arrivals: Tensor


@dataclass(frozen=True)
class Modulation:
    """A norm at one diffusion time, with its shift taken through the matrix that follows: `(out,)` float32."""

    scale: Tensor
    gate: Tensor
    add: Tensor


def applies(model: E0Model) -> bool:
    """Whether the kernels have what a model needs; otherwise the fast path runs on torch's operations."""
    config, weight = model.config, model.action_in.weight
    widths = (config.expert_width, config.expert_mlp, config.heads * config.head_dim)
    fits = all(width % 128 == 0 for width in widths) and config.head_dim in (64, 128, 256) and config.kv_heads == 1
    plain = config.time_cond == "adarms" and not config.hybrid_continuous
    return weight.is_cuda and weight.dtype == torch.bfloat16 and fits and plain


class GpuPath(FastPath):
    """`FastPath` with the expert and the glue of the prefix in kernels.

    Args:
        model: as for `FastPath`; see `applies`.
        settings: as for `FastPath`.
        tiles: None chooses by the number of action tokens.

    """

    def __init__(self, model: E0Model, settings: SamplerSettings, tiles: Tiles | None = None) -> None:
        super().__init__(model, settings)
        rows = self.config.action_tokens * settings.samples
        self.tiles = fitted(tiles or (FEW if rows <= 128 else MANY), self.config)
        self.modulations = [self._modulations(norms) for norms in self.norms]
        self.tower = _Tower(model) if self.config.vision == "siglip" else None

    def _modulations(self, norms: list[Norm]) -> list[Modulation]:
        after = [matrix for layer in self.expert for matrix in (layer.qkv, layer.gate_up)]
        return [_modulation(norm, matrix) for norm, matrix in zip(norms, after, strict=False)]

    def buffers(self, shape: Shape) -> GpuBuffers:
        """Memory for one shape."""
        plain, config, samples = super().buffers(shape), self.config, self.settings.samples
        rows, inner = config.action_tokens * samples, config.heads * config.head_dim
        new = plain.layers[0][0].new_empty
        prefix = _parts(PREFIX_ATTEND, plain.prefix * config.heads, config.head_dim, 1)
        tiles = self.tiles
        attend = _parts(tiles.attend, config.action_tokens * config.heads, config.head_dim, samples)
        sums = [_parts(t, rows, config.expert_width, 1) for t in (tiles.out, tiles.down)]
        work, arrivals = (max(sizes) for sizes in zip(prefix, attend, *sums, strict=True))
        stats = max(prefix[0], attend[0]) // config.head_dim * 2
        return GpuBuffers(
            **vars(plain),
            xs=new(rows, config.expert_width),
            squares=new(rows, config.expert_width, dtype=torch.float32),
            q=new(rows, inner),
            attended=new(rows, inner),
            hidden=new(rows, config.expert_mlp),
            work=new(work, dtype=torch.float32),
            stats=new(stats, dtype=torch.float32),
            arrivals=torch.zeros(arrivals, dtype=torch.int32, device=plain.layers[0][0].device),
        )

    def embed(self, shape: Shape, inputs: Inputs) -> Tensor:
        """Prefix tokens `(1, prefix, W)`."""
        if self.tower is None or not shape.views:
            return super().embed(shape, inputs)
        model, images = self.model, inputs.images
        seen = linear(self.tower.run(images), model.projector.weight, model.projector.bias)
        parts = [(seen + model.offset_proj(inputs.offsets)[:, None]).flatten(0, 1)[None]]
        parts.append(model.backbone.embed(inputs.text))
        if self.config.proprio_form != "text":
            parts.append(model.proprio_tokens(inputs.proprio))
        return torch.cat(parts, 1)

    def fill(self, buffers: Buffers, x: Tensor) -> None:
        """Prefix tokens into the head of the buffers; the last layer stops there."""
        assert isinstance(buffers, GpuBuffers)
        x = x[0].clone()
        normed, branch = torch.empty_like(x), None
        q = x.new_empty(len(x), self.config.heads * self.config.head_dim)
        attended = torch.empty_like(q)
        hidden = x.new_empty(len(x), self.config.mlp)
        norms = self.language_norms
        for index, (layer, cache) in enumerate(zip(self.language, buffers.layers, strict=True)):
            row_norm(x, branch, norms[2 * index], normed)
            turn(linear(normed, layer.qkv), buffers.prefix_turn, q, cache, self.config)
            if index + 1 == len(buffers.layers):
                return
            attend(q[None], cache, attended, buffers.prefix, PREFIX_ATTEND, buffers)
            row_norm(x, linear(attended, layer.out), norms[2 * index + 1], normed)
            gated_gelu(linear(normed, layer.gate_up), hidden)
            branch = linear(hidden, layer.down)

    def _expert(self, x: Tensor, step: int, clean: Tensor | None, buffers: Buffers) -> Tensor:
        """The expert over `(samples, T, E)`: the five kernels per layer of `kernels.py`."""
        assert isinstance(buffers, GpuBuffers)
        flags = None if clean is None else clean.reshape(-1).view(torch.uint8)
        now, held, tiles = self.modulations[step], self.modulations[-1], self.tiles
        norms, held_norms = self.norms[step], self.norms[-1]
        flat = x.reshape(-1, x.shape[-1]).contiguous()
        enter(flat, norms[0], held_norms[0], flags, buffers, x.shape[1])
        parts, tokens = 1, x.shape[1]
        for index, (layer, cache) in enumerate(zip(self.expert, buffers.layers, strict=True)):
            first, second = 2 * index, 2 * index + 1
            following = self.expert[(index + 1) % len(self.expert)].qkv
            common = (flags, tokens, tiles, buffers)
            project_qkv(cache, layer, now[first], held[first], parts, self.config, *common)
            whole = buffers.q.view(x.shape[0], -1, buffers.q.shape[-1])
            ahead = layer.gate_up if tiles.fetch else None
            attend(whole, cache, buffers.attended, cache[0].shape[2], tiles.attend, buffers, ahead, tiles.overlap)
            scales = norms[second].scale, held_norms[second].scale
            gates = now[first].gate, held[first].gate
            accumulate(buffers.attended, layer.out, flat, gates, scales, tiles.out, layer.gate_up, *common)
            parts = flat.shape[1] // tiles.out.columns
            project_gate_up(layer, now[second], held[second], parts, *common)
            scales = norms[second + 1].scale, held_norms[second + 1].scale
            gates = now[second].gate, held[second].gate
            accumulate(buffers.hidden, layer.down, flat, gates, scales, tiles.down, following, *common)
            parts = flat.shape[1] // tiles.down.columns
        last = norms[-1] if clean is None else norms[-1].where(clean, held_norms[-1])
        if clean is not None:
            repeated = {name: t.repeat(x.shape[0], 1) for name, t in vars(last).items() if t is not None}
            last = replace(last, **repeated)
        row_norm(flat, None, last, buffers.xs)
        return buffers.xs.view(x.shape)


class _Tower:
    """SigLIP with one product for q, k and v, patches as rows of a matrix, and norms fused with residual sums."""

    def __init__(self, model: E0Model) -> None:
        self.tower = cast("SiglipTower", model.vision)
        config = model.config
        self.heads, self.patch, self.width = config.vision_heads, config.patch_size, config.vision_width
        self.layers = [cast("EncoderLayer", layer) for layer in self.tower.encoder.layers]
        self.qkv = [_joined(layer) for layer in self.layers]
        matrix = self.tower.embeddings.patch_embedding.weight.flatten(1)
        self.spare = -matrix.shape[1] % 8  # rows of 16 bytes
        self.matrix = pad(matrix, (0, self.spare)).contiguous()

    def run(self, images: Tensor) -> Tensor:
        """`(V, 3, S, S)` to `(V, tokens, vision_width)`."""
        x = self._patches(images)
        views, tokens, width = x.shape
        x = x.reshape(-1, width)
        normed, branch, bias = torch.empty_like(x), None, None
        for layer, (weight, add) in zip(self.layers, self.qkv, strict=True):
            row_norm(x, branch, _of(layer.layer_norm1), normed, bias, centre=True)
            qkv = linear(normed, weight, add).view(views, tokens, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
            q, k, v = qkv.unbind(0)
            seen = scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(-1, width)
            out = layer.self_attn.out_proj
            row_norm(x, linear(seen, out.weight), _of(layer.layer_norm2), normed, out.bias, centre=True)
            hidden = gelu(linear(normed, layer.mlp.fc1.weight, layer.mlp.fc1.bias), approximate="tanh")
            branch, bias = linear(hidden, layer.mlp.fc2.weight), layer.mlp.fc2.bias
        row_norm(x, branch, _of(self.tower.post_layernorm), normed, bias, centre=True)
        return normed.view(views, tokens, width)

    def _patches(self, images: Tensor) -> Tensor:
        images = to_unit(images) if images.dtype == torch.uint8 else images
        side = images.shape[-1] // self.patch
        grid = images.to(self.matrix.dtype).reshape(len(images), 3, side, self.patch, side, self.patch)
        rows = pad(grid.permute(0, 2, 4, 1, 3, 5).reshape(len(images), side * side, -1), (0, self.spare))
        embeddings = self.tower.embeddings
        return linear(rows, self.matrix, embeddings.patch_embedding.bias) + embeddings.position_embedding.weight


def _joined(layer: EncoderLayer) -> tuple[Tensor, Tensor]:
    """q, k and v in one matrix and one bias; the layer's own weights become views of them."""
    parts = [layer.self_attn.q_proj, layer.self_attn.k_proj, layer.self_attn.v_proj]
    weight, bias = torch.cat([p.weight.data for p in parts]), torch.cat([p.bias.data for p in parts])
    for part, rows in zip(parts, weight.chunk(3), strict=True):
        part.weight.data = rows
    return weight, bias


def _of(norm: torch.nn.LayerNorm) -> Norm:
    return Norm(norm.weight, norm.bias)


def _modulation(norm: Norm, matrix: Tensor) -> Modulation:
    assert norm.shift is not None and norm.gate is not None
    return Modulation(norm.scale, norm.gate, matrix.float() @ norm.shift.float())


def _parts(tile: Tile, rows: int, columns: int, samples: int) -> tuple[int, int]:
    """Elements of partial sums, and counters, of a kernel with `rows` x `columns` results."""
    blocks = -(-rows // tile.rows) * samples
    return blocks * tile.rows * columns * tile.splits, blocks * -(-columns // tile.columns)


def _ahead(following: Tensor | None) -> int:
    return 0 if following is None else following.numel()


def _options(tile: Tile, overlap: bool) -> dict[str, Any]:
    pdl = {"launch_pdl": True} if overlap else {}
    return {"PDL": overlap, "num_warps": tile.warps, "num_stages": tile.stages, **pdl}


def _power_of_2(count: int) -> int:
    return 1 << (count - 1).bit_length()


def enter(x: Tensor, norm: Norm, held: Norm, flags: Tensor | None, buffers: GpuBuffers, tokens: int) -> None:
    """`x` `(rows, E)` scaled for its first norm, and the squares of its rows."""
    rows, width = x.shape
    kernels.enter[(rows,)](
        x, buffers.xs, buffers.squares, norm.scale, held.scale, x if flags is None else flags, tokens,
        WIDTH=width, SELECT=flags is not None, N=_power_of_2(width),
    )  # fmt: skip


def project_qkv(
    cache: tuple[Tensor, Tensor],
    layer: Layer,
    now: Modulation,
    held: Modulation,
    parts: int,
    config: E0Config,
    flags: Tensor | None,
    tokens: int,
    tiles: Tiles,
    buffers: GpuBuffers,
) -> None:
    """`xs` to `q`, keys and values."""
    rows, width = buffers.xs.shape
    tile, half = tiles.qkv, config.head_dim // 2
    ahead = layer.out if tiles.fetch else None
    cos, sin = buffers.action_turn
    kernels.project[(-(-rows // tile.rows) * (config.heads + 2) * half // tile.columns,)](
        buffers.xs, buffers.squares, layer.qkv, now.add, held.add, buffers.xs if flags is None else flags,
        buffers.q, *cache, cos, sin, layer.out, rows, tokens, buffers.prefix, cache[0].shape[2],
        WIDTH=width, HALF=half, HEADS=config.heads, PARTS=parts, PARTS_2=_power_of_2(parts), EPS=_EPS,
        ROTARY=True, SELECT=flags is not None, NEXT=_ahead(ahead), BM=tile.rows, BN=tile.columns, BK=tile.depth,
        **_options(tile, tiles.overlap),
    )  # fmt: skip


def project_gate_up(
    layer: Layer,
    now: Modulation,
    held: Modulation,
    parts: int,
    flags: Tensor | None,
    tokens: int,
    tiles: Tiles,
    buffers: GpuBuffers,
) -> None:
    """`xs` to the gated hidden layer."""
    rows, width = buffers.xs.shape
    tile, half, xs, hidden = tiles.gate_up, buffers.hidden.shape[1], buffers.xs, buffers.hidden
    ahead = layer.down if tiles.fetch else None
    kernels.project[(-(-rows // tile.rows) * half // tile.columns,)](
        xs, buffers.squares, layer.gate_up, now.add, held.add, xs if flags is None else flags,
        hidden, hidden, hidden, hidden, hidden, layer.down, rows, tokens, 0, 0,
        WIDTH=width, HALF=half, HEADS=1, PARTS=parts, PARTS_2=_power_of_2(parts), EPS=_EPS,
        ROTARY=False, SELECT=flags is not None, NEXT=_ahead(ahead), BM=tile.rows, BN=tile.columns, BK=tile.depth,
        **_options(tile, tiles.overlap),
    )  # fmt: skip


def accumulate(
    a: Tensor,
    weight: Tensor,
    x: Tensor,
    gates: tuple[Tensor, Tensor],
    scales: tuple[Tensor, Tensor],
    tile: Tile,
    following: Tensor,
    flags: Tensor | None,
    tokens: int,
    tiles: Tiles,
    buffers: GpuBuffers,
) -> None:
    """`x += gate * (a W^T)`, and `xs` and `squares` of the next norm."""
    (rows, width), out = a.shape, x.shape[1]
    assert width % (tile.splits * tile.depth) == 0, "a split reads on into the next one"
    ahead = following if tiles.fetch else None
    kernels.accumulate[(-(-rows // tile.rows) * (out // tile.columns) * tile.splits,)](
        a, weight, x, buffers.xs, buffers.squares, *gates, *scales, x if flags is None else flags,
        buffers.work, buffers.arrivals, following, rows, tokens,
        WIDTH=width, OUT=out, SPLITS=tile.splits, SELECT=flags is not None, NEXT=_ahead(ahead),
        BM=tile.rows, BN=tile.columns, BK=tile.depth, **_options(tile, tiles.overlap),
    )  # fmt: skip


def attend(
    q: Tensor,
    cache: tuple[Tensor, Tensor],
    out: Tensor,
    length: int,
    tile: Tile,
    buffers: GpuBuffers,
    ahead: Tensor | None = None,
    overlap: bool = False,
) -> None:
    """Queries `(samples, tokens, heads * head_dim)` over the first `length` keys of `(samples, 1, total, head_dim)`."""
    total, size = cache[0].shape[2:]
    rows = q.shape[1] * q.shape[2] // size
    kernels.attend[(-(-rows // tile.rows) * tile.splits, len(q))](
        q, *cache, out, buffers.work, buffers.stats, buffers.arrivals, q if ahead is None else ahead,
        rows, length, total, _LOG2_E * size**-0.5,
        SIZE=size, STRIP=min(size, 64), SPLITS=tile.splits, NEXT=_ahead(ahead), BM=tile.rows, BN=tile.columns,
        **_options(tile, overlap),
    )  # fmt: skip


def row_norm(
    x: Tensor, branch: Tensor | None, norm: Norm, out: Tensor, add: Tensor | None = None, centre: bool = False
) -> None:
    """`x += branch + add` in place, then its norm to `out`."""
    rows, width = x.shape
    shift = norm.scale if norm.shift is None else norm.shift
    kernels.norm[(rows,)](
        x, x if branch is None else branch, x if add is None else add, norm.scale, shift, out,
        WIDTH=width, EPS=_EPS, BRANCH=branch is not None, ADD=add is not None, CENTRE=centre,
        SHIFT=norm.shift is not None, PER_ROW=norm.scale.dim() == 2, N=_power_of_2(width),
    )  # fmt: skip


def turn(qkv: Tensor, turns: tuple[Tensor, Tensor], q: Tensor, cache: tuple[Tensor, Tensor], config: E0Config) -> None:
    """Projections of the prefix `(P, ...)` to turned queries; keys and values to the head of every sample's cache."""
    kernels.turn[(len(q), config.heads + 2)](qkv, *turns, q, *cache, HEADS=config.heads, HALF=config.head_dim // 2)
    if len(cache[0]) > 1:
        for side in cache:
            side[1:, :, : len(q)] = side[:1, :, : len(q)]


def gated_gelu(gate_up: Tensor, out: Tensor) -> None:
    """`gelu(gate) * up`."""
    rows, half = out.shape
    kernels.gated_gelu[(rows, -(-half // 1024))](gate_up, out, HALF=half, N=1024)
