"""Backbone and action expert: two stacks of Gemma blocks that meet in the attention of every layer.

Prefix tokens (images, instruction, proprioception) never attend to action tokens, so the prefix runs once, leaves its
keys and values in a cache, and the expert attends to them layer by layer: the joint attention of pi0 and E0
(`KV(o_t)` of section 3.2), without computing the prefix again. In training the same cache carries the gradient.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from e0_policy.gemma import Block, Condition, RmsNorm, attend, rotary
from e0_policy.model_config import E0Config


@dataclass(frozen=True)
class Cache:
    """Keys and values of the prefix.

    Attributes:
        keys: per layer, `(B, kv_heads, T, head_dim)`, rotated.
        values: per layer, the same shape.
        mask: `(B, T)` bool, the tokens that may be attended.

    """

    keys: tuple[Tensor, ...]
    values: tuple[Tensor, ...]
    mask: Tensor

    @property
    def length(self) -> Tensor:
        """Number of attended tokens `(B,)`; the positions of what follows start there."""
        return self.mask.sum(1)

    def detach(self) -> Cache:
        """The same cache with no way back for a gradient (knowledge insulation, eq. 5 and 6 of its paper)."""
        keys, values = (tuple(t.detach() for t in side) for side in (self.keys, self.values))
        return Cache(keys, values, self.mask)

    def repeat(self, times: int) -> Cache:
        """Every observation `times` times in a row, for several samples of one prefix."""
        keys, values = (tuple(t.repeat_interleave(times, 0) for t in side) for side in (self.keys, self.values))
        return Cache(keys, values, self.mask.repeat_interleave(times, 0))


class Stack(nn.Module):
    """`depth` blocks and a final norm."""

    def __init__(self, config: E0Config, width: int, mlp: int, condition_width: int | None = None) -> None:
        super().__init__()
        shape = (width, mlp, config.heads, config.kv_heads, config.head_dim, condition_width)
        self.layers = nn.ModuleList(Block(*shape) for _ in range(config.depth))
        self.norm = RmsNorm(width, condition_width)
        self.checkpointing = False

    @property
    def blocks(self) -> list[Block]:
        """The layers, in order."""
        return cast("list[Block]", list(self.layers))


class Backbone(nn.Module):
    """The language model of PaliGemma and the action expert, layer by layer."""

    def __init__(self, config: E0Config) -> None:
        super().__init__()
        self.config = config
        adaptive = config.expert_width if config.time_cond == "adarms" else None
        self.embed_tokens = nn.Embedding(config.vocab_size, config.width)
        self.language = Stack(config, config.width, config.mlp)
        self.expert = Stack(config, config.expert_width, config.expert_mlp, adaptive)
        self.layer = _layer

    def compile_layers(self, backend: str = "inductor") -> None:
        """From now on run every layer as compiled code, one and the same for all layers of a stack.

        Torch keeps eight of them (lengths of prompts, with and without a gradient); more run as before.
        """
        self.layer = torch.compile(_layer, backend=backend)

    def embed(self, tokens: Tensor) -> Tensor:
        """Text embeddings `(B, L, W)`, multiplied by sqrt(W) as Gemma does."""
        return self.embed_tokens(tokens) * self.embed_tokens.weight.shape[1] ** 0.5

    def turn(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Rotary embedding of positions `(B, T)`."""
        return rotary(positions, self.config.head_dim, self.config.rope_theta)

    def prefix(self, x: Tensor, mask: Tensor) -> Cache:
        """Run prefix tokens `(B, T, W)` with full attention among those of `mask` `(B, T)`.

        Only keys and values are wanted, so the last layer stops there.
        """
        turn = self.turn((mask.cumsum(1) - 1).clamp(min=0))
        stack = self.language
        x, keys, values = self._run(stack.blocks[:-1], stack.checkpointing, x, turn, mask[:, None], None, None)
        last = stack.blocks[-1]
        _, k, v = last.self_attn.project(last.input_layernorm(x, None)[0], turn)
        return Cache((*keys, k), (*values, v), mask)

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
        stack = self.language
        x, _, _ = self._run(stack.blocks, stack.checkpointing, x, self.turn(positions), visible, cache, None)
        return stack.norm(x, None)[0]

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
        stack = self.expert
        x, _, _ = self._run(stack.blocks, stack.checkpointing, x, self.turn(positions), visible, cache, condition)
        return stack.norm(x, condition)[0]

    def _run(
        self,
        blocks: list[Block],
        checkpointing: bool,
        x: Tensor,
        turn: tuple[Tensor, Tensor],
        visible: Tensor,
        cache: Cache | None,
        condition: Condition | None,
    ) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        """Blocks in order; also their own keys and values."""
        keys: list[Tensor] = []
        values: list[Tensor] = []
        for index, block in enumerate(blocks):
            past = None if cache is None else (cache.keys[index], cache.values[index])
            if checkpointing and torch.is_grad_enabled():
                x, k, v = checkpoint(self.layer, block, x, turn, visible, past, condition, use_reentrant=False)
            else:
                x, k, v = self.layer(block, x, turn, visible, past, condition)
            keys.append(k)
            values.append(v)
        return x, keys, values


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
