"""Backbone and action expert: two stacks of Gemma blocks that meet in the attention of every layer.

Prefix tokens (images, instruction, proprioception) never attend to action tokens, so the prefix runs once, leaves its
keys and values in a cache, and the expert attends to them layer by layer: the joint attention of pi0 and E0
(`KV(o_t)` of section 3.2), without computing the prefix again. In training the same cache carries the gradient.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from e0_policy.gemma import Block, Condition, RmsNorm, Rotary, attend
from e0_policy.model_config import E0Config


@dataclass(frozen=True)
class Cache:
    """Keys and values of the prefix.

    Attributes:
        keys: per layer, `(B, kv_heads, T, head_dim)`, rotated.
        values: per layer, the same shape.
        mask: `(B, T)` bool, the tokens that may be attended.
        hidden: `(B, T, W)`, the backbone's output, where its own token predictions are wanted; else None.

    """

    keys: tuple[Tensor, ...]
    values: tuple[Tensor, ...]
    mask: Tensor
    hidden: Tensor | None

    @property
    def length(self) -> Tensor:
        """Number of attended tokens `(B,)`; the positions of what follows start there."""
        return self.mask.sum(1)

    def detach(self) -> Cache:
        """The same cache with no way back for a gradient (knowledge insulation, eq. 5 and 6 of its paper)."""
        keys, values = (tuple(t.detach() for t in side) for side in (self.keys, self.values))
        return Cache(keys, values, self.mask, None)

    def repeat(self, times: int) -> Cache:
        """Every observation `times` times in a row, for several samples of one prefix."""
        keys, values = (tuple(t.repeat_interleave(times, 0) for t in side) for side in (self.keys, self.values))
        return Cache(keys, values, self.mask.repeat_interleave(times, 0), None)


class Stack(nn.Module):
    """`depth` blocks and a final norm."""

    def __init__(self, config: E0Config, width: int, mlp: int, condition_width: int | None = None) -> None:
        super().__init__()
        shape = (width, mlp, config.heads, config.kv_heads, config.head_dim, condition_width)
        self.layers = nn.ModuleList(Block(*shape) for _ in range(config.depth))
        self.norm = RmsNorm(width, condition_width)
        self.checkpointing = False


class Backbone(nn.Module):
    """The language model of PaliGemma and the action expert, layer by layer."""

    def __init__(self, config: E0Config) -> None:
        super().__init__()
        adaptive = config.expert_width if config.time_cond == "adarms" else None
        self.embed_tokens = nn.Embedding(config.vocab_size, config.width)
        self.language = Stack(config, config.width, config.mlp)
        self.expert = Stack(config, config.expert_width, config.expert_mlp, adaptive)
        self.rotary = Rotary(config.head_dim, config.rope_theta)

    def embed(self, tokens: Tensor) -> Tensor:
        """Text embeddings `(B, L, W)`, multiplied by sqrt(W) as Gemma does."""
        return self.embed_tokens(tokens) * self.embed_tokens.weight.shape[1] ** 0.5

    def prefix(self, x: Tensor, mask: Tensor, hidden: bool = False) -> Cache:
        """Run prefix tokens `(B, T, W)` with full attention among those of `mask` `(B, T)`.

        The expert needs keys and values only, so the last layer stops there unless `hidden` is wanted.
        """
        positions = (mask.cumsum(1) - 1).clamp(min=0)
        out, keys, values = self._run(self.language, x, positions, mask[:, None], None, None, hidden)
        return Cache(keys, values, mask, out)

    def generate(self, x: Tensor, mask: Tensor, cache: Cache) -> Tensor:
        """Run tokens `(B, T, W)` that the backbone predicts itself: each sees the prefix and those before it.

        Args:
            x: token embeddings, shifted by the caller.
            mask: `(B, T)` bool, the tokens that may be attended.
            cache: the prefix.

        Returns:
            `(B, T, W)` after the final norm.

        """
        tokens = x.shape[1]
        causal = torch.ones(tokens, tokens, dtype=torch.bool, device=x.device).tril()
        # A padded query sees itself, lest its softmax be empty.
        own = causal & (mask[:, None] | torch.eye(tokens, dtype=torch.bool, device=x.device))
        visible = torch.cat([cache.mask[:, None].expand(-1, tokens, -1), own], 2)
        positions = cache.length[:, None] + torch.arange(tokens, device=x.device)
        out, _, _ = self._run(self.language, x, positions, visible, cache, None)
        assert out is not None
        return out

    def suffix(self, x: Tensor, cache: Cache, condition: Condition | None, blocks: tuple[int, ...]) -> Tensor:
        """Run action tokens `(B, T, E)` through the expert; they see the prefix, earlier blocks and their own block.

        Args:
            x: token embeddings.
            cache: the prefix.
            condition: diffusion time for the adaptive norms, or None.
            blocks: number of tokens per block, in order; their sum is T.

        Returns:
            `(B, T, E)` after the final norm.

        """
        batch, tokens, _ = x.shape
        positions = cache.length[:, None] + torch.arange(tokens, device=x.device)
        index = torch.arange(len(blocks), device=x.device).repeat_interleave(torch.tensor(blocks, device=x.device))
        own = index[:, None] >= index[None, :] if len(blocks) > 1 else x.new_ones(1, tokens, dtype=torch.bool)
        visible = torch.cat([cache.mask[:, None].expand(-1, own.shape[0], -1), own[None].expand(batch, -1, -1)], 2)
        out, _, _ = self._run(self.expert, x, positions, visible, cache, condition)
        assert out is not None
        return out

    def _run(
        self,
        stack: Stack,
        x: Tensor,
        positions: Tensor,
        visible: Tensor,
        cache: Cache | None,
        condition: Condition | None,
        hidden: bool = True,
    ) -> tuple[Tensor | None, tuple[Tensor, ...], tuple[Tensor, ...]]:
        turn = self.rotary(positions)
        keys: list[Tensor] = []
        values: list[Tensor] = []
        for index, block in enumerate(stack.layers):
            assert isinstance(block, Block)
            if not hidden and index + 1 == len(stack.layers):
                _, k, v = block.self_attn.project(block.input_layernorm(x, condition)[0], turn)
                return None, (*keys, k), (*values, v)
            past = None if cache is None else (cache.keys[index], cache.values[index])
            if stack.checkpointing and torch.is_grad_enabled():
                x, k, v = checkpoint(_layer, block, x, turn, visible, past, condition, use_reentrant=False)
            else:
                x, k, v = _layer(block, x, turn, visible, past, condition)
            keys.append(k)
            values.append(v)
        return stack.norm(x, condition)[0], tuple(keys), tuple(values)


def _layer(
    block: Block,
    x: Tensor,
    turn: tuple[Tensor, Tensor],
    visible: Tensor,
    past: tuple[Tensor, Tensor] | None,
    condition: Condition | None,
) -> tuple[Tensor, Tensor, Tensor]:
    normed, gate = block.input_layernorm(x, condition)
    q, k, v = block.self_attn.project(normed, turn)
    seen_k = k if past is None else torch.cat([past[0].to(k.dtype), k], 2)
    seen_v = v if past is None else torch.cat([past[1].to(v.dtype), v], 2)
    return block.residual(x, attend(q, seen_k, seen_v, visible), gate, condition), k, v
