"""The arithmetic of the fast engine: one observation, static buffers, no data-dependent control flow.

Everything here can be captured in a CUDA graph. Nothing is masked: missing views and text padding are not there.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import gelu, linear, pad, rms_norm, scaled_dot_product_attention

from e0_policy import diffusion, heads
from e0_policy.collate import to_unit
from e0_policy.diffusion import Sample, SamplerSettings
from e0_policy.fused import (
    Layer,
    Norm,
    adaptive_norms,
    fuse_entry,
    fuse_layer,
    norms_per_token,
    plain_norms,
    stacked,
)
from e0_policy.gemma import rotate
from e0_policy.model import E0Model

_EPS = 1e-6


@dataclass
class Inputs:
    """What changes from call to call, on the device."""

    images: Tensor  # (V', 3, S, S) of the views that are there, float in [-1, 1] or uint8
    offsets: Tensor  # (V', 3)
    text: Tensor  # (1, L') without padding
    proprio: Tensor  # (1, P)
    noise: Tensor  # (1 or N, samples, T, E), projected
    gumbel: Tensor | None  # (N, samples, H, D, K)
    flow: Tensor | None  # (samples, H, D), noise of the hybrid's continuous block
    plan: Tensor  # (1, H, D)
    known: Tensor  # (1, H, D)
    clean: Tensor  # (1, H)


@dataclass(frozen=True)
class Shape:
    """What buffers and a captured graph depend on: views that are there, words, and whether rows are committed."""

    views: tuple[int, ...]
    text: int
    committed: bool


@dataclass(frozen=True)
class Buffers:
    """Static memory of one shape.

    Attributes:
        prefix: number of prefix tokens.
        layers: keys and values per layer, `(samples, kv_heads, prefix + T, head_dim)`, T counting both blocks of the
            hybrid.
        prefix_turn: rotary embedding of the prefix.
        action_turn: rotary embedding of the action tokens.

    """

    prefix: int
    layers: list[tuple[Tensor, Tensor]]
    prefix_turn: tuple[Tensor, Tensor]
    action_turn: tuple[Tensor, Tensor]


class FastPath:
    """A model's weights and a sampler's constants, and what `E0Model.sample` computes from them."""

    def __init__(self, model: E0Model, settings: SamplerSettings) -> None:
        self.model, self.settings, self.config = model, settings, model.config
        self.taus = diffusion.tau_schedule(settings.steps)
        self.language = [fuse_layer(block) for block in model.backbone.language.blocks]
        self.language_norms = plain_norms(model.backbone.language)
        self.expert = [fuse_layer(block) for block in model.backbone.expert.blocks]
        every = [*self.taus, 0.0]
        if self.config.time_cond == "adarms":
            self.norms = adaptive_norms(model, every)
        else:
            self.norms = [plain_norms(model.backbone.expert)] * len(every)
        self.stacks = [stacked(norms) for norms in self.norms]
        self.entry = fuse_entry(model, self.taus)
        self.flow_tokens = self.config.prediction_horizon if self.config.hybrid_continuous else 0

    def buffers(self, shape: Shape) -> Buffers:
        """Memory for one shape."""
        config, weight = self.config, self.model.action_in.weight
        state = {"token": 1, "special": config.proprio_dim, "text": 0}[config.proprio_form]
        prefix = len(shape.views) * self.model.vision.tokens + shape.text + state
        total = prefix + self.flow_tokens + config.action_tokens
        size = (self.settings.samples, config.kv_heads, total, config.head_dim)
        layers = [(weight.new_empty(size), weight.new_empty(size)) for _ in self.expert]
        positions = torch.arange(total, device=weight.device)[None]
        turn = self.model.backbone.turn
        cos, sin = (t.to(weight.dtype) for t in turn(positions))
        head, tail = (cos[:, :, :prefix], sin[:, :, :prefix]), (cos[:, :, prefix:], sin[:, :, prefix:])
        return Buffers(prefix, layers, head, tail)

    def run(self, shape: Shape, buffers: Buffers, inputs: Inputs) -> Sample:
        """From images to tokens."""
        self.fill(buffers, self.embed(shape, inputs))
        return self.denoise(shape, buffers, inputs)

    def embed(self, shape: Shape, inputs: Inputs) -> Tensor:
        """Prefix tokens `(1, prefix, W)`."""
        model, images = self.model, inputs.images
        if images.dtype == torch.uint8:
            images = to_unit(images)
        if self.config.vision == "siglip" and shape.views:
            parts = [model.image_tokens(images, inputs.offsets, 0).flatten(0, 1)[None]]
        else:
            pairs = enumerate(shape.views)
            parts = [model.image_tokens(images[i : i + 1], inputs.offsets[i : i + 1], v) for i, v in pairs]
        parts.append(model.backbone.embed(inputs.text))
        if self.config.proprio_form != "text":
            parts.append(model.proprio_tokens(inputs.proprio))
        return torch.cat(parts, 1)

    def fill(self, buffers: Buffers, x: Tensor) -> None:
        """Prefix tokens into the head of the buffers; the last layer stops there."""
        count = buffers.prefix
        for index, (layer, (keys, values)) in enumerate(zip(self.language, buffers.layers, strict=True)):
            before, after = self.language_norms[2 * index : 2 * index + 2]
            q, k, v = self._split(linear(_normalise(x, before), layer.qkv), buffers.prefix_turn)
            keys[:, :, :count], values[:, :, :count] = k, v
            if index + 1 < len(buffers.layers):
                x = x + linear(_attend(q, k, v), layer.out)
                x = x + _mlp(_normalise(x, after), layer)

    def denoise(self, shape: Shape, buffers: Buffers, inputs: Inputs) -> Sample:
        """The N steps of `diffusion.sample`, in the space of projected tokens."""
        config, settings, entry, columns = self.config, self.settings, self.entry, self.model.columns
        held = inputs.clean[..., None].expand_as(inputs.plan)
        per_token = kept = None
        if shape.committed:
            per_token = inputs.clean[0, :, None].expand(-1, config.tokens_per_row).reshape(-1, 1)
            kept = entry.columns(inputs.plan) * settings.alpha_clean + entry.clean_bias
        annealed = settings.noise_schedule == "tau"
        tokens, flow = inputs.plan, inputs.flow
        for step, tau in enumerate(self.taus):
            x = torch.add(entry.bias[step], inputs.noise[step % len(inputs.noise)], alpha=tau if annealed else 1.0)
            if step:
                x = torch.add(x, entry.columns(tokens), alpha=settings.alpha * (1.0 - tau if annealed else 1.0))
            every = None
            if per_token is not None and kept is not None:
                x, every = torch.where(per_token, kept, x), pad(per_token, (0, 0, self.flow_tokens, 0))
            x = entry.finish(x)
            if flow is not None:
                x = torch.cat([self.model.flow_in(flow.to(x.dtype)), x], 1)
            hidden = self._expert(x, step, every, buffers)
            if flow is not None and inputs.flow is not None:
                velocity = self.model.flow_out(hidden[:, : self.flow_tokens])
                flow = diffusion.euler(flow, velocity, inputs.flow, settings, columns, config.bins)
            logits = self._logits(hidden[:, self.flow_tokens :], step + 1 == settings.steps)
            scores = logits if inputs.gumbel is None else logits + inputs.gumbel[step]
            tokens = diffusion.pad(scores.argmax(-1), columns, config.bins)
            tokens = torch.where(held, inputs.plan, tokens) if shape.committed else tokens
        entropy = diffusion.row_entropy(logits[..., :columns, :]).masked_fill(inputs.clean, 0.0)
        drawn = Sample(tokens, entropy, flow, diffusion.decoded(logits, tokens, settings.decode))
        return diffusion.closest(drawn, settings.samples, inputs.plan, inputs.known)

    def _logits(self, hidden: Tensor, exact: bool) -> Tensor:
        config = self.config
        logits = heads.project(self.model.action_out, hidden, exact)
        return logits.reshape(self.settings.samples, config.prediction_horizon, config.action_dim, config.bins)

    def _expert(self, x: Tensor, step: int, clean: Tensor | None, buffers: Buffers) -> Tensor:
        """The expert over `(samples, T, E)`; its keys and values overwrite the tail of the buffers.

        Norms are those of the step's diffusion time, or of time 0 where tokens are clean `(T, 1)`.
        """
        start, turn, norms = buffers.prefix, buffers.action_turn, self.norms[step]
        if clean is not None:
            now, held = self.stacks[step], self.stacks[-1]
            norms = norms if now is None or held is None else norms_per_token(clean, now, held)
        for index, (layer, (keys, values)) in enumerate(zip(self.expert, buffers.layers, strict=True)):
            before, after = norms[2 * index : 2 * index + 2]
            q, keys[:, :, start:], values[:, :, start:] = self._split(linear(_normalise(x, before), layer.qkv), turn)
            x = _residual(x, linear(self._attend_blocks(q, keys, values), layer.out), before.gate)
            x = _residual(x, _mlp(_normalise(x, after), layer), after.gate)
        return _normalise(x, norms[-1])

    def _attend_blocks(self, q: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """Action tokens see everything; the hybrid's continuous ones all but them."""
        head = self.flow_tokens
        if not head:
            return _attend(q, keys, values)
        seen = keys.shape[2] - q.shape[2] + head
        first = _attend(q[:, :, :head], keys[:, :, :seen], values[:, :, :seen])
        return torch.cat([first, _attend(q[:, :, head:], keys, values)], 1)

    def _split(self, qkv: Tensor, turn: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Fused projections `(B, T, ...)` to rotated q, rotated k and v, `(B, heads or kv_heads, T, head_dim)`."""
        heads, kv_heads = self.config.heads, self.config.kv_heads
        parts = qkv.unflatten(-1, (-1, self.config.head_dim)).transpose(1, 2)
        turned, v = rotate(parts[:, : heads + kv_heads], turn), parts[:, heads + kv_heads :]
        return turned[:, :heads], turned[:, heads:], v


def _normalise(x: Tensor, norm: Norm) -> Tensor:
    normed = rms_norm(x, (x.shape[-1],), None, _EPS)
    return normed * norm.scale if norm.shift is None else torch.addcmul(norm.shift, normed, norm.scale)


def _residual(x: Tensor, branch: Tensor, gate: Tensor | None) -> Tensor:
    return x + branch if gate is None else torch.addcmul(x, branch, gate)


def _attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attention of `(B, heads, T, head_dim)` over all keys: `(B, T, heads * head_dim)`.

    With one key head all queries see the same keys, so heads and tokens fold into one long query in either order.
    """
    batch, heads, tokens, size = q.shape
    kv_heads = k.shape[1]
    if kv_heads == 1:
        folded = q.transpose(1, 2).reshape(batch, 1, tokens * heads, size)
        return scaled_dot_product_attention(folded, k, v).reshape(batch, tokens, heads * size)
    grouped = q.reshape(batch, kv_heads, heads // kv_heads * tokens, size)
    return scaled_dot_product_attention(grouped, k, v).reshape(q.shape).transpose(1, 2).flatten(2)


def _mlp(x: Tensor, layer: Layer) -> Tensor:
    gate, up = linear(x, layer.gate_up).chunk(2, -1)
    return linear(gelu(gate, approximate="tanh") * up, layer.down)
