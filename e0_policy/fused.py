"""Weights of a trained model rearranged for inference: same results, fewer and larger operations.

* query, key and value projections in one matrix, gate and up projections in one;
* Gemma's `1 + weight` of the prefix norms folded into the matrix that follows;
* adaRMS scale, shift and gate of every norm computed ahead for the fixed diffusion times;
* action tokens enter by a table: `W (tau * eps + (1 - tau) * alpha * onehot(k))` is `tau * (W eps)` plus a scaled
  column of W, so a one-hot is never built and `W eps` is computed before the observation arrives.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import linear, silu

from e0_policy.gemma import Block
from e0_policy.model import E0Model


@dataclass(frozen=True)
class Layer:
    """Fused matrices of a block: `(out, in)` as `torch.nn.functional.linear` takes them."""

    qkv: Tensor
    out: Tensor
    gate_up: Tensor
    down: Tensor


@dataclass(frozen=True)
class Modulation:
    """adaRMS of one norm: `scale` includes the 1. `(N, width)` for the noisy tokens, `(width,)` for clean ones."""

    scale: Tensor
    shift: Tensor
    gate: Tensor
    clean: tuple[Tensor, Tensor, Tensor]

    def at(self, step: int, clean: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Scale, shift and gate of a step, per token if some are clean `(T, 1)`."""
        noisy = (self.scale[step], self.shift[step], self.gate[step])
        if clean is None:
            return noisy
        scale, shift, gate = (torch.where(clean, c, n) for c, n in zip(self.clean, noisy, strict=True))
        return scale, shift, gate


def fuse_layer(block: Block, folded: bool) -> Layer:
    """Concatenate a block's matrices; `folded` puts the norms' `1 + weight` into them."""
    attention, mlp = block.self_attn, block.mlp
    qkv = torch.cat([attention.q_proj.weight, attention.k_proj.weight, attention.v_proj.weight])
    gate_up = torch.cat([mlp.gate_proj.weight, mlp.up_proj.weight])
    if folded:
        qkv = _fold(qkv, block.input_layernorm.weight)
        gate_up = _fold(gate_up, block.post_attention_layernorm.weight)
    return Layer(qkv, attention.o_proj.weight, gate_up, mlp.down_proj.weight)


def _fold(matrix: Tensor, weight: Tensor) -> Tensor:
    return (matrix.float() * (1.0 + weight.float())).to(matrix.dtype)


def modulations(model: E0Model, taus: list[float]) -> list[Modulation]:
    """Of every norm of the expert in order (two per layer, then the last one), for `taus` and for 0."""
    stack = model.backbone.expert
    norms = [norm for block in stack.blocks for norm in (block.input_layernorm, block.post_attention_layernorm)]
    times = torch.tensor([*taus, 0.0], device=model.action_in.weight.device)
    embedding = model.time(times)
    found = []
    for norm in (*norms, stack.norm):
        scale, shift, gate = norm.dense(embedding).chunk(3, -1)
        scale = (1.0 + scale.float()).to(scale.dtype)
        found.append(Modulation(scale[:-1], shift[:-1], gate[:-1], (scale[-1], shift[-1], gate[-1])))
    return found


@dataclass(frozen=True)
class Entry:
    """Action tokens into the expert.

    Attributes:
        matrix: `(E, K)`, or `(E, D * K)` with a token per row: projects noise.
        table: `(K, E)` or `(D, K, E)`: its columns, for tokens.
        bias: `(N, T, E)`, what each step adds (projection bias, position, time).
        clean_bias: `(T, E)`, the same for clean rows.
        out: second layer of the time MLP (`concat_mlp`) as weight and bias, or None.

    """

    matrix: Tensor
    table: Tensor
    bias: Tensor
    clean_bias: Tensor
    out: tuple[Tensor, Tensor] | None

    def project(self, eps: Tensor) -> Tensor:
        """Noise `(..., H, D, K)` through the matrix: `(..., T, E)`."""
        eps = eps.flatten(-3, -2) if self.table.dim() == 2 else eps.flatten(-2)
        return linear(eps.to(self.matrix.dtype), self.matrix)

    def columns(self, tokens: Tensor) -> Tensor:
        """Projected one-hots of tokens `(B, H, D)`: `(B, T, E)`."""
        if self.table.dim() == 2:
            return self.table[tokens.flatten(1)]
        return self.table[torch.arange(tokens.shape[2], device=tokens.device), tokens].sum(2)

    def finish(self, x: Tensor) -> Tensor:
        """The rest of the time MLP, if there is one."""
        return x if self.out is None else linear(silu(x), *self.out)


def fuse_entry(model: E0Model, taus: list[float]) -> Entry:
    """The action projection with position and, for `concat_mlp`, the first half of the time MLP folded in."""
    config, weight = model.config, model.action_in.weight.float()
    bias = model.action_in.bias.float().expand(config.action_tokens, -1)
    if config.position_embedding:
        bias = bias + model.action_position.float()
    times = torch.tensor([*taus, 0.0], device=weight.device)
    per_time, out = torch.zeros(len(times), 1, device=weight.device), None
    if config.time_cond == "concat_mlp":
        of_token, of_time = model.action_time_in.weight.float().chunk(2, 1)
        per_time = linear(model.time(times).float(), of_time, model.action_time_in.bias.float())
        weight, bias = of_token @ weight, bias @ of_token.T
        out = (model.action_time_out.weight, model.action_time_out.bias)
    table = weight.T.contiguous()
    if config.token_layout == "step_token":
        table = table.reshape(config.action_dim, config.bins, -1)
    all_bias = bias + per_time[:, None]
    dtype = model.action_in.weight.dtype
    return Entry(weight.to(dtype), table.to(dtype), all_bias[:-1].to(dtype), all_bias[-1].to(dtype), out)
