"""Weights of a trained model rearranged for inference: same results, fewer and larger operations.

* query, key and value projections in one matrix, gate and up projections in one;
* adaRMS scale, shift and gate of every norm computed ahead for the fixed diffusion times;
* action tokens enter by a table: `W (tau * eps + (1 - tau) * alpha * onehot(k))` is `tau * (W eps)` plus a scaled
  column of W, so a one-hot is never built and `W eps` is computed before the observation arrives.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, silu

from e0_policy.backbone import Stack
from e0_policy.gemma import Block, RmsNorm
from e0_policy.model import E0Model


@dataclass(frozen=True)
class Norm:
    """A norm at one diffusion time: `rms(x) * scale + shift`, and the gate of the branch that follows.

    `(width,)` each, or `(T, width)` if some tokens are clean; shift and gate are None in the norms of the prefix.
    """

    scale: Tensor
    shift: Tensor | None = None
    gate: Tensor | None = None

    def where(self, clean: Tensor, other: Norm) -> Norm:
        """Per token, this norm or (where `clean` `(T, 1)`) another one."""
        if self.shift is None or self.gate is None or other.shift is None or other.gate is None:
            return self
        return Norm(
            torch.where(clean, other.scale, self.scale),
            torch.where(clean, other.shift, self.shift),
            torch.where(clean, other.gate, self.gate),
        )


@dataclass(frozen=True)
class Layer:
    """Fused matrices of a block: `(out, in)` as `torch.nn.functional.linear` takes them."""

    qkv: Tensor
    out: Tensor
    gate_up: Tensor
    down: Tensor


def fuse_layer(block: Block) -> Layer:
    """Join a block's matrices. The block's own weights become views of them, so that nothing is held twice."""
    attention, mlp = block.self_attn, block.mlp
    qkv = _join([attention.q_proj, attention.k_proj, attention.v_proj])
    return Layer(qkv, attention.o_proj.weight, _join([mlp.gate_proj, mlp.up_proj]), mlp.down_proj.weight)


def _join(parts: list[nn.Linear]) -> Tensor:
    joined = torch.cat([part.weight.data for part in parts])
    for part, rows in zip(parts, joined.split([len(part.weight) for part in parts]), strict=True):
        part.weight.data = rows
    return joined


def plain_norms(stack: Stack) -> list[Norm]:
    """Norms of a stack without adaRMS, in order: two per layer, then the last one."""
    return [Norm((1.0 + norm.weight.float()).to(norm.weight.dtype)) for norm in _norms(stack)]


def adaptive_norms(model: E0Model, taus: list[float]) -> list[list[Norm]]:
    """For each diffusion time, the norms of the expert in order."""
    times = torch.tensor(taus, device=model.action_in.weight.device)
    embedding = model.time(times)
    found: list[list[Norm]] = [[] for _ in taus]
    for norm in _norms(model.backbone.expert):
        scale, shift, gate = norm.dense(embedding).chunk(3, -1)
        scale = (1.0 + scale.float()).to(scale.dtype)
        for step in range(len(taus)):
            found[step].append(Norm(scale[step].contiguous(), shift[step].contiguous(), gate[step].contiguous()))
    return found


def stacked(norms: list[Norm]) -> Tensor | None:
    """Scale, shift and gate of all norms `(norms, 3, 1, width)`; None without adaRMS."""
    parts = [part for norm in norms for part in (norm.scale, norm.shift, norm.gate) if part is not None]
    return torch.stack(parts).unflatten(0, (-1, 3))[:, :, None] if len(parts) == 3 * len(norms) else None


def norms_per_token(clean: Tensor, now: Tensor, held: Tensor) -> list[Norm]:
    """Norms of stacks `now` and (where `clean` `(T, 1)`) `held`, in one operation: `(T, width)` each."""
    parts = torch.where(clean, held, now).flatten(0, 1).unbind()
    return [Norm(*parts[first : first + 3]) for first in range(0, len(parts), 3)]


def _norms(stack: Stack) -> list[RmsNorm]:
    pairs = [(block.input_layernorm, block.post_attention_layernorm) for block in stack.blocks]
    return [norm for pair in pairs for norm in pair] + [stack.norm]


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
