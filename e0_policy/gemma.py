"""Gemma blocks for both the backbone and the action expert.

One block serves both: with a width of conditioning its norms are adaRMS (scale, shift and gate from the diffusion
time), without one they are Gemma's RMSNorm. Attribute names are those of the published weights. Sources: Gemma
(arXiv 2403.08295), transformers' GemmaModel, adaptive norms as in openpi `models/gemma.py`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, rms_norm, scaled_dot_product_attention

from e0_policy import cpu_training

_EPS = 1e-6


@dataclass(frozen=True)
class Condition:
    """What adaRMS norms see of the diffusion time.

    Attributes:
        embedding: `(B, C, E)`, C embeddings of a time: that of the noisy tokens and, if C = 2, that of clean ones.
        select: `(B, T, C)`, 1 at the embedding that a token takes and 0 elsewhere; None if C = 1.

    """

    embedding: Tensor
    select: Tensor | None = None

    def per_token(self, values: Tensor) -> Tensor:
        """Each token's row: `(B, C, n)` to `(B, T, n)` float32, or `(B, 1, n)` if all are the same."""
        if self.select is None:
            return values.float()
        if cpu_training.applies(values):
            return cpu_training.select_rows(values, self.select)
        return (self.select.to(values.dtype) @ values).float()


class RmsNorm(nn.Module):
    """`x / rms(x) * (1 + weight)` in float32, or with scale, shift and gate of a condition (adaRMS).

    A condition's width makes it adaptive: `x / rms(x) * (1 + scale) + shift`, and the gate multiplies the residual
    branch that follows.
    """

    def __init__(self, width: int, condition_width: int | None = None) -> None:
        super().__init__()
        if condition_width is None:
            self.weight = nn.Parameter(torch.zeros(width))
        else:
            self.dense = nn.Linear(condition_width, 3 * width)
            nn.init.zeros_(self.dense.weight)
            nn.init.zeros_(self.dense.bias)
            nn.init.ones_(self.dense.bias[2 * width :])  # open gates learn sooner than closed ones

    def forward(self, x: Tensor, condition: Condition | None) -> tuple[Tensor, Tensor | None]:
        """Normalise `(B, T, width)`; also return the gate of the branch, `(B, T or 1, width)`, if adaptive."""
        if condition is None:
            if cpu_training.applies(x):
                return cpu_training.modulate(x, self.weight.float()[None, None], None, _EPS), None
            normed = rms_norm(x.float(), (x.shape[-1],), None, _EPS)
            return (normed * (1.0 + self.weight.float())).to(x.dtype), None
        parts = self.dense(condition.embedding).chunk(3, -1)
        scale, shift, gate = (condition.per_token(part) for part in parts)
        if cpu_training.applies(x):
            return cpu_training.modulate(x, scale, shift, _EPS), gate
        normed = rms_norm(x.float(), (x.shape[-1],), None, _EPS)
        return torch.addcmul(shift, normed, 1.0 + scale).to(x.dtype), gate


def rotary(positions: Tensor, head_dim: int, theta: float) -> tuple[Tensor, Tensor]:
    """What `rotate` needs for Gemma's rotary embedding, whose halves of a head are the two coordinates.

    Computed in float32, never in the dtype of the weights, which bfloat16 would ruin.

    Args:
        positions: `(B, T)`.
        head_dim: size of a head.
        theta: base of the wavelengths.

    Returns:
        Cosines, and sines that are negative in the first half, each `(B, 1, T, head_dim)`.

    """
    steps = torch.arange(0, head_dim, 2, dtype=torch.float32, device=positions.device)
    angles = positions[:, None, :, None] * theta ** -(steps / head_dim)
    cos, sin = angles.cos(), angles.sin()
    return torch.cat([cos, cos], -1), torch.cat([-sin, sin], -1)


def rotate(x: Tensor, turn: tuple[Tensor, Tensor]) -> Tensor:
    """Apply rotary embedding to `(B, heads, T, head_dim)`, or another order if that of `turn` is the same."""
    cos, sin = (t.to(x.dtype) for t in turn)
    return torch.addcmul(x * cos, x.roll(x.shape[-1] // 2, -1), sin)


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    """Grouped-query attention.

    The queries that share a key head are folded into one long query, so keys are never repeated; token by token, which
    is how they lie in memory if there is one key head.

    Args:
        q: `(B, heads, T, head_dim)`.
        k: `(B, kv_heads, S, head_dim)`.
        v: `(B, kv_heads, S, head_dim)`.
        mask: `(B, T or 1, S)` bool, True where a query may look, or None.

    Returns:
        `(B, T, heads * head_dim)`.

    """
    kv_heads, tokens = k.shape[1], q.shape[2]
    groups = q.shape[1] // kv_heads
    if mask is not None and mask.shape[1] > 1:
        mask = mask.repeat_interleave(groups, 1)
    folded = q.unflatten(1, (kv_heads, groups)).transpose(2, 3).flatten(2, 3)
    mask = None if mask is None else mask[:, None]
    if cpu_training.applies(folded):
        out = cpu_training.attend(folded, k, v, mask)
    else:
        out = scaled_dot_product_attention(folded, k, v, mask)
    return out.unflatten(2, (tokens, groups)).transpose(1, 2).flatten(2)


class Attention(nn.Module):
    """Projections of grouped-query attention, without biases."""

    def __init__(self, width: int, heads: int, kv_heads: int, head_dim: int) -> None:
        super().__init__()
        self.head_dim = head_dim
        self.q_proj = nn.Linear(width, heads * head_dim, bias=False)
        self.k_proj = nn.Linear(width, kv_heads * head_dim, bias=False)
        self.v_proj = nn.Linear(width, kv_heads * head_dim, bias=False)
        self.o_proj = nn.Linear(heads * head_dim, width, bias=False)

    def project(self, x: Tensor, turn: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Rotated queries, rotated keys and values, each `(B, heads or kv_heads, T, head_dim)`."""
        q, k, v = (p(x).unflatten(-1, (-1, self.head_dim)) for p in (self.q_proj, self.k_proj, self.v_proj))
        cos, sin = (t.transpose(1, 2) for t in turn)
        q, k = (rotate(t, (cos, sin)) for t in (q, k))
        return q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)


class Mlp(nn.Module):
    """Gated MLP with the tanh form of GELU."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(width, hidden, bias=False)
        self.up_proj = nn.Linear(width, hidden, bias=False)
        self.down_proj = nn.Linear(hidden, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """`(..., width)` to the same."""
        gate = self.gate_proj(x)
        gate = cpu_training.gelu_tanh(gate) if cpu_training.applies(gate) else gelu(gate, approximate="tanh")
        return self.down_proj(gate * self.up_proj(x))


class Block(nn.Module):
    """One transformer layer, split where another stack's keys and values may join the attention."""

    def __init__(
        self, width: int, mlp: int, heads: int, kv_heads: int, head_dim: int, condition_width: int | None = None
    ) -> None:
        super().__init__()
        self.input_layernorm = RmsNorm(width, condition_width)
        self.self_attn = Attention(width, heads, kv_heads, head_dim)
        self.post_attention_layernorm = RmsNorm(width, condition_width)
        self.mlp = Mlp(width, mlp)

    def residual(self, x: Tensor, attended: Tensor, gate: Tensor | None, condition: Condition | None) -> Tensor:
        """What follows the attention: output projection, residual, MLP, residual."""
        x = gated(x, self.self_attn.o_proj(attended), gate)
        normed, gate = self.post_attention_layernorm(x, condition)
        return gated(x, self.mlp(normed), gate)


def gated(x: Tensor, branch: Tensor, gate: Tensor | None) -> Tensor:
    """Residual sum; the gate multiplies the branch if there is one."""
    if gate is None:
        return x + branch
    return cpu_training.gated(x, branch, gate) if cpu_training.applies(x) else x + branch * gate.to(branch.dtype)
