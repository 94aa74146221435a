"""Training on a CPU: attention and adaRMS as in `gemma.py`, with gradients in fewer passes over memory.

At nano size much of a step goes by in elementwise passes over activations. What autograd derives from the plain
formulas makes two to three times as many of them as are needed; tests compare values and gradients of both.
"""

from __future__ import annotations

import ctypes
import math
import sys
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import gelu

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # glibc's malloc.h
_SQRT_2_OVER_PI = math.sqrt(2.0 / math.pi)


def applies(x: Tensor) -> bool:
    """Whether a gradient is wanted on a CPU; everything else runs the plain formulas or fused kernels."""
    return x.device.type == "cpu" and x.requires_grad


def keep_memory() -> None:
    """Tell glibc to keep freed memory for the next step, instead of having the system clear new pages every time.

    Saves about a tenth of a step at nano size. For the whole process; nothing happens with another C library.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(_MMAP_THRESHOLD, 32 << 20)  # the most that it accepts; larger blocks stay with the system
        mallopt(_TRIM_THRESHOLD, 2**31 - 1)


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    """Attention by two products: its backward pass takes a third of the fused kernel's time in bfloat16.

    Args:
        q: `(B, heads, T, head_dim)`.
        k: `(B, heads, S, head_dim)`.
        v: `(B, heads, S, head_dim)`.
        mask: `(B, 1, T or 1, S)` bool, or None.

    """
    hidden = torch.zeros(1, dtype=q.dtype)
    if mask is not None:
        shape = (*q.shape[:2], *mask.shape[2:])
        hidden = torch.zeros(shape, dtype=q.dtype).masked_fill(~mask, float("-inf")).flatten(0, 1)
    scores = torch.baddbmm(hidden, *(t.flatten(0, 1) for t in (q, k.mT)), alpha=q.shape[-1] ** -0.5)
    return (scores.softmax(-1) @ v.flatten(0, 1)).unflatten(0, q.shape[:2])


def gelu_tanh(x: Tensor) -> Tensor:
    """The tanh form of GELU, as `x * sigmoid(2 z)`, for 1 + tanh(z) is 2 sigmoid(2 z).

    Compiled, all of it is one pass, and a sigmoid takes a third of a tanh's time; uncompiled it is many.
    """
    if not torch.compiler.is_compiling():
        return gelu(x, approximate="tanh")
    wide = x.float()
    return (wide * torch.sigmoid(2.0 * _SQRT_2_OVER_PI * wide * (1.0 + 0.044715 * wide * wide))).to(x.dtype)


class _Select(torch.autograd.Function):
    """`select @ values` of `Condition.per_token`: rows are copied, and their gradients summed by a product."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, select: Tensor) -> Tensor:
        """`(B, C, n)` float32 and one-hot `(B, T, C)` to `(B, T, n)`."""
        ctx.save_for_backward(select)
        batch, choices, width = values.shape
        first = torch.arange(0, batch * choices, choices)[:, None]
        index = (first + select.argmax(-1)).flatten()
        return values.reshape(-1, width).index_select(0, index).unflatten(0, (batch, -1))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        """Sum over the tokens that took a row."""
        (select,) = ctx.saved_tensors
        return select.to(gradient.dtype).transpose(1, 2) @ gradient, None


class _Modulate(torch.autograd.Function):
    """`x / rms(x) * (1 + scale) + shift`, or without a shift."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, shift: Tensor | None, eps: float, dtype: torch.dtype) -> Tensor:
        """`(B, T, width)` with float32 scale and shift `(B or 1, T or 1, width)`, to the dtype."""
        wide, gain = x.float(), scale + 1.0
        factor = (wide.square().mean(-1, keepdim=True) + eps).rsqrt_()
        normed = wide * factor
        ctx.save_for_backward(normed, factor, gain)
        ctx.dtype, ctx.shifts = x.dtype, shift is not None
        return (normed * gain if shift is None else torch.addcmul(shift, normed, gain)).to(dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor | None, None, None]:
        """With n = x * factor and g = dy * gain: `dx = factor * (g - n * mean(g * n))`."""
        normed, factor, gain = ctx.saved_tensors
        d_shift = gradient.float()
        d_scale = d_shift * normed
        d_normed = d_shift * gain
        along = (d_scale * gain).mean(-1, keepdim=True)
        d_x = d_normed.addcmul_(normed, along, value=-1.0).mul_(factor)
        shift = d_shift.sum_to_size(gain.shape) if ctx.shifts else None
        return d_x.to(ctx.dtype), d_scale.sum_to_size(gain.shape), shift, None, None


class _Gated(torch.autograd.Function):
    """`x + branch * gate`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, branch: Tensor, gate: Tensor) -> Tensor:
        """`(B, T, width)` twice with a float32 gate `(B, T or 1, width)`; in the dtype of x."""
        wide = branch.float()
        ctx.save_for_backward(wide, gate)
        ctx.dtype = branch.dtype
        return torch.addcmul(x.float(), wide, gate).to(x.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Product rule."""
        branch, gate = ctx.saved_tensors
        wide = gradient.float()
        d_gate = wide * branch
        d_gate = d_gate.sum(1, keepdim=True) if gate.shape[1] == 1 else d_gate
        return gradient, (wide * gate).to(ctx.dtype), d_gate


def select_rows(values: Tensor, select: Tensor) -> Tensor:
    """Each token's row, `(B, C, n)` and one-hot `(B, T, C)` to `(B, T, n)` float32."""
    rows: Tensor = _Select.apply(values.float(), select)
    return rows


def modulate(x: Tensor, scale: Tensor, shift: Tensor | None, eps: float) -> Tensor:
    """RMSNorm or adaRMS `(B, T, width)`; under autocast in its dtype, as only linear layers read the result."""
    dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else x.dtype
    out: Tensor = _Modulate.apply(x, scale, shift, eps, dtype)
    return out


def gated(x: Tensor, branch: Tensor, gate: Tensor) -> Tensor:
    """Residual sum with a gate, in the dtype of x."""
    out: Tensor = _Gated.apply(x, branch, gate)
    return out
