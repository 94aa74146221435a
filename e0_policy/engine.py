"""Fast inference for one observation, with the same answer as the eager reference `E0Model.sample`.

The observation is encoded once into static key and value buffers; N steps overwrite the tail of the same buffers. The
last prefix layer stops at its keys and values, missing views and text padding are dropped (so nothing is masked), and
noise is projected before the observation arrives. On a GPU the whole way from image to tokens is one CUDA graph per
set of views and instruction length; on a CPU the same code runs directly.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.functional import gelu, linear, rms_norm, scaled_dot_product_attention

from e0_policy import diffusion
from e0_policy.batch import Batch
from e0_policy.diffusion import NoiseDraw, Sample, SamplerSettings
from e0_policy.fused import Layer, Modulation, fuse_entry, fuse_layer, modulations
from e0_policy.gemma import rotate
from e0_policy.model import E0Model

_EPS = 1e-6
_KEPT = 8  # instruction lengths and sets of views whose buffers are kept


class EngineError(ValueError):
    """The fast path cannot run this; the message says what to use instead."""


@dataclass
class _Inputs:
    """Static inputs of a run for one set of views and one text length."""

    images: Tensor  # (V', 3, S, S)
    offsets: Tensor  # (V', 3)
    text: Tensor  # (1, L')
    proprio: Tensor  # (1, P)
    noise: Tensor  # (1 or N, samples, T, E), projected
    gumbel: Tensor | None  # (N, samples, H, D, K)
    plan: Tensor  # (1, H, D)
    known: Tensor  # (1, H, D)
    clean: Tensor  # (1, H)

    def copy(self, other: _Inputs) -> None:
        """Overwrite in place, for a captured graph."""
        for name, value in vars(other).items():
            if value is not None:
                getattr(self, name).copy_(value, non_blocking=True)


@dataclass(frozen=True)
class _Shape:
    """What a run's buffers depend on."""

    views: tuple[int, ...]
    text: int
    committed: bool


class Engine:
    """A model made ready for one set of sampler settings.

    Not thread-safe. Weights are read at construction: make a new engine after changing them.

    Args:
        model: the model, on its device and in its dtype, in evaluation mode.
        settings: the sampler; N, alpha, noise policy and sample count are baked in.
        graph: capture CUDA graphs; by default on a GPU.

    Raises:
        EngineError: the hybrid's continuous block is not supported; use `E0Model.sample`.

    """

    def __init__(self, model: E0Model, settings: SamplerSettings, graph: bool | None = None) -> None:
        if model.config.hybrid_continuous:
            raise EngineError("the fast path has no continuous block (hybrid_continuous); use the eager E0Model.sample")
        self.model, self.settings, self.config = model, settings, model.config
        self.device = model.action_in.weight.device
        self.graph = self.device.type == "cuda" if graph is None else graph
        self.taus = diffusion.tau_schedule(settings.steps)
        with torch.inference_mode():
            self._language = [fuse_layer(block, True) for block in model.backbone.language.blocks]
            adaptive = self.config.time_cond == "adarms"
            self._expert = [fuse_layer(block, not adaptive) for block in model.backbone.expert.blocks]
            self._modulation = modulations(model, self.taus) if adaptive else []
            self._entry = fuse_entry(model, self.taus)
        self._noise: tuple[Tensor, Tensor | None] | None = None
        self._buffers: OrderedDict[tuple[int, int], list[tuple[Tensor, Tensor]]] = OrderedDict()
        self._graphs: OrderedDict[_Shape, tuple[torch.cuda.CUDAGraph, _Inputs, Sample]] = OrderedDict()

    @torch.inference_mode()
    def prepare(self, noise: NoiseDraw) -> None:
        """Project the noise of the next call, off its critical path."""
        self._noise = self._entry.project(noise.eps), noise.gumbel

    @torch.inference_mode()
    def sample(self, batch: Batch, noise: NoiseDraw | None = None) -> Sample:
        """Denoise a chunk for one observation.

        Args:
            batch: one observation (`B` = 1), read as `E0Model.sample` does.
            noise: for `settings.samples` chunks; None if `prepare` was called.

        Raises:
            EngineError: more than one observation, or no noise.

        """
        if batch.size != 1:
            raise EngineError(f"the batch has {batch.size} observations; the fast path takes 1")
        if noise is not None:
            self.prepare(noise)
        if self._noise is None:
            raise EngineError("no noise for this call; give it or call prepare() before")
        projected, gumbel = self._noise
        self._noise = None
        shape, inputs = self._inputs(batch, projected, gumbel)
        return self._replay(shape, inputs) if self.graph else self._run(shape, inputs)

    def _inputs(self, batch: Batch, noise: Tensor, gumbel: Tensor | None) -> tuple[_Shape, _Inputs]:
        if self.config.mask_absent_views:
            views = tuple(int(v) for v in batch.view_mask[0].nonzero())
        else:
            views = tuple(range(len(self.config.views)))
        dtype = self.model.action_in.weight.dtype
        text = batch.text_tokens[batch.text_mask][None]
        clean = diffusion.clean_rows(batch.committed, self.config.prediction_horizon)
        shape = _Shape(views, text.shape[1], bool(batch.committed[0] > 0))
        images, offsets = batch.images[0, list(views)].to(dtype), batch.view_offset[0, list(views)].to(dtype)
        plan = (batch.action_tokens, batch.action_mask, clean)
        return shape, _Inputs(images, offsets, text, batch.proprio.to(dtype), noise, gumbel, *plan)

    def _replay(self, shape: _Shape, inputs: _Inputs) -> Sample:
        """Run the captured graph of this shape; capture it first if it is new."""
        if shape not in self._graphs:
            static = replace(inputs, **{k: v.clone() for k, v in vars(inputs).items() if v is not None})
            stream = torch.cuda.Stream()
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                for _ in range(2):
                    self._run(shape, static)
            torch.cuda.current_stream().wait_stream(stream)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                out = self._run(shape, static)
            _keep(self._graphs, shape, (graph, static, out))
        graph, static, out = self._graphs[shape]
        static.copy(inputs)
        graph.replay()
        return Sample(out.tokens.clone(), out.entropy.clone())

    def _run(self, shape: _Shape, inputs: _Inputs) -> Sample:
        """From images to tokens; no data-dependent control flow, so that it can be captured."""
        x = self._prefix_tokens(shape, inputs)
        buffers = self._buffer(x.shape[1], x.dtype)
        self._prefix(x, buffers)
        return self._denoise(shape, inputs, x.shape[1], buffers)

    def _prefix_tokens(self, shape: _Shape, inputs: _Inputs) -> Tensor:
        model = self.model
        if self.config.vision == "siglip" and shape.views:
            parts = [model.image_tokens(inputs.images, inputs.offsets, 0).flatten(0, 1)[None]]
        else:
            each = enumerate(shape.views)
            parts = [model.image_tokens(inputs.images[i : i + 1], inputs.offsets[i : i + 1], v) for i, v in each]
        parts.append(model.backbone.embed(inputs.text))
        if self.config.proprio_form != "text":
            parts.append(model.proprio_tokens(inputs.proprio))
        return torch.cat(parts, 1)

    def _buffer(self, prefix: int, dtype: torch.dtype) -> list[tuple[Tensor, Tensor]]:
        """Static keys and values per layer, `(samples, kv_heads, prefix + action tokens, head_dim)`."""
        key = (prefix, self.settings.samples)
        if key not in self._buffers:
            shape = (
                self.settings.samples,
                self.config.kv_heads,
                prefix + self.config.action_tokens,
                self.config.head_dim,
            )
            made = [
                (
                    torch.empty(shape, dtype=dtype, device=self.device),
                    torch.empty(shape, dtype=dtype, device=self.device),
                )
                for _ in self._expert
            ]
            _keep(self._buffers, key, made)
        return self._buffers[key]

    def _turn(self, start: int, tokens: int) -> tuple[Tensor, Tensor]:
        return self.model.backbone.turn(torch.arange(start, start + tokens, device=self.device)[None])

    def _split(self, qkv: Tensor, turn: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Fused projections `(B, T, ...)` to rotated q, rotated k and v, `(B, heads or kv_heads, T, head_dim)`."""
        config = self.config
        both = qkv.unflatten(-1, (-1, config.head_dim)).transpose(1, 2)
        turned = rotate(both[:, : config.heads + config.kv_heads], turn)
        return turned[:, : config.heads], turned[:, config.heads :], both[:, config.heads + config.kv_heads :]

    def _prefix(self, x: Tensor, buffers: list[tuple[Tensor, Tensor]]) -> None:
        """Fill the head of the buffers; the last layer stops there."""
        tokens = x.shape[1]
        turn = self._turn(0, tokens)
        for index, (layer, (keys, values)) in enumerate(zip(self._language, buffers, strict=True)):
            q, k, v = self._split(linear(_rms(x), layer.qkv), turn)
            keys[:, :, :tokens], values[:, :, :tokens] = k, v
            if index + 1 < len(buffers):
                x = x + linear(_attend(q, k, v), layer.out)
                x = x + _mlp(_rms(x), layer)

    def _denoise(self, shape: _Shape, inputs: _Inputs, prefix: int, buffers: list[tuple[Tensor, Tensor]]) -> Sample:
        """The N steps of `diffusion.sample`, in the space of projected tokens."""
        config, settings, entry = self.config, self.settings, self._entry
        turn = self._turn(prefix, config.action_tokens)
        held = inputs.clean[..., None].expand_as(inputs.plan)
        per_token = inputs.clean[0].repeat_interleave(config.tokens_per_row)[:, None] if shape.committed else None
        kept = entry.columns(inputs.plan) * settings.alpha_clean + entry.clean_bias if shape.committed else None
        tokens = logits = None
        for step, tau in enumerate(self.taus):
            annealed = settings.noise_schedule == "tau"
            noise = inputs.noise[step % len(inputs.noise)] * (tau if annealed else 1.0) + entry.bias[step]
            if tokens is not None:
                noise = noise + entry.columns(tokens) * (settings.alpha * (1.0 - tau if annealed else 1.0))
            x = noise if kept is None else torch.where(per_token, kept, noise)  # type: ignore[arg-type]
            hidden = self._expert_layers(entry.finish(x), step, per_token, prefix, turn, buffers)
            logits = linear(hidden, self.model.action_out.weight, self.model.action_out.bias)
            logits = logits.reshape(settings.samples, config.prediction_horizon, config.action_dim, config.bins)
            scores = logits if inputs.gumbel is None else logits + inputs.gumbel[step]
            tokens = scores.argmax(-1)
            tokens = torch.where(held, inputs.plan, tokens) if shape.committed else tokens
        assert tokens is not None and logits is not None
        entropy = diffusion.row_entropy(logits).masked_fill(inputs.clean, 0.0)
        return diffusion.closest(Sample(tokens, entropy), settings.samples, inputs.plan, inputs.known)

    def _expert_layers(
        self,
        x: Tensor,
        step: int,
        clean: Tensor | None,
        prefix: int,
        turn: tuple[Tensor, Tensor],
        buffers: list[tuple[Tensor, Tensor]],
    ) -> Tensor:
        """The expert over `(samples, T, E)`; its keys and values overwrite the tail of the buffers."""
        for index, (layer, (keys, values)) in enumerate(zip(self._expert, buffers, strict=True)):
            normed, gate = self._norm(x, 2 * index, step, clean)
            q, keys[:, :, prefix:], values[:, :, prefix:] = self._split(linear(normed, layer.qkv), turn)
            x = _residual(x, linear(_attend(q, keys, values), layer.out), gate)
            normed, gate = self._norm(x, 2 * index + 1, step, clean)
            x = _residual(x, _mlp(normed, layer), gate)
        if self._modulation:
            return self._norm(x, -1, step, clean)[0]
        return _rms(x) * (1.0 + self.model.backbone.expert.norm.weight)

    def _norm(self, x: Tensor, norm: int, step: int, clean: Tensor | None) -> tuple[Tensor, Tensor | None]:
        if not self._modulation:
            return _rms(x), None
        modulation: Modulation = self._modulation[norm]
        scale, shift, gate = modulation.at(step, clean)
        return torch.addcmul(shift, _rms(x), scale), gate


def _rms(x: Tensor) -> Tensor:
    return rms_norm(x, (x.shape[-1],), None, _EPS)


def _residual(x: Tensor, branch: Tensor, gate: Tensor | None) -> Tensor:
    return x + branch if gate is None else torch.addcmul(x, branch, gate)


def _attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attention of `(B, heads, T, head_dim)` over all keys; a query's position in the fold does not matter."""
    batch, heads, tokens, size = q.shape
    kv_heads = k.shape[1]
    folded = q.transpose(1, 2).reshape(batch, tokens * heads, 1, size) if kv_heads == 1 else None
    if folded is not None:
        return scaled_dot_product_attention(folded.transpose(1, 2), k, v).reshape(batch, tokens, heads * size)
    grouped = q.reshape(batch, kv_heads, heads // kv_heads * tokens, size)
    out = scaled_dot_product_attention(grouped, k, v)
    return out.reshape(batch, heads, tokens, size).transpose(1, 2).flatten(2)


def _mlp(x: Tensor, layer: Layer) -> Tensor:
    gate, up = linear(x, layer.gate_up).chunk(2, -1)
    return linear(gelu(gate, approximate="tanh") * up, layer.down)


def _keep(kept: OrderedDict, key: object, value: object) -> None:  # type: ignore[type-arg]
    """Add to a small cache, dropping the oldest entry."""
    kept[key] = value
    if len(kept) > _KEPT:
        kept.popitem(last=False)
