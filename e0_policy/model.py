"""E0: images, instruction and proprioception in, a denoised chunk of action tokens out (section 3.2).

prefix(batch)              KV(o_t): encode the observation once
denoise(cache, x, tau)     equation 5 and 10: logits of every action token
loss(batch, generator)     equations 4 to 6
sample(batch, settings)    equations 7 and 10 to 13
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

from e0_policy import diffusion, heads
from e0_policy.backbone import Backbone, Cache
from e0_policy.batch import Batch
from e0_policy.diffusion import Denoised, NoiseDraw, Sample, SamplerSettings
from e0_policy.gemma import Condition
from e0_policy.model_config import E0Config
from e0_policy.vision import make_tower


@dataclass(frozen=True)
class Loss:
    """A training loss and its parts, each a scalar.

    `cross_entropy` is in nats per token (of a regression head: its error), `accuracy` the share of tokens predicted
    exactly, `flow` the mean squared error of the velocity of the hybrid's continuous block.
    """

    total: Tensor
    cross_entropy: Tensor
    accuracy: Tensor
    flow: Tensor | None = None


class TimeEmbedding(nn.Module):
    """Diffusion time to a vector: sines and cosines with periods of 0.004 to 4, then (adaRMS) an MLP."""

    def __init__(self, width: int, adaptive: bool) -> None:
        super().__init__()
        self.pairs = width // 2
        self.mlp_in = nn.Linear(width, width) if adaptive else None
        self.mlp_out = nn.Linear(width, width) if adaptive else None

    def forward(self, tau: Tensor) -> Tensor:
        """`(...)` to `(..., E)`."""
        periods = 4e-3 * (4.0 / 4e-3) ** torch.linspace(0.0, 1.0, self.pairs, device=tau.device)
        angles = tau[..., None].float() * (2.0 * math.pi / periods)
        waves = torch.cat([angles.sin(), angles.cos()], -1)
        if self.mlp_in is None or self.mlp_out is None:
            return waves
        return silu(self.mlp_out(silu(self.mlp_in(waves.to(self.mlp_in.weight.dtype)))))


class E0Model(nn.Module):
    """The E0 policy network at any size.

    Attributes:
        columns: real action dimensions, the first of `config.action_dim`; those behind are padding, which data decide:
            whoever trains or loads a model says so. All of them until then.

    """

    def __init__(self, config: E0Config) -> None:
        super().__init__()
        self.config, self.columns = config, config.action_dim
        wide, narrow = config.width, config.expert_width
        self.vision = make_tower(config)
        self.projector = nn.Linear(config.vision_width, wide)
        self.offset_proj = nn.Linear(3, wide)  # f_proj of eq. 9
        nn.init.zeros_(self.offset_proj.weight)
        nn.init.zeros_(self.offset_proj.bias)
        self.backbone = Backbone(config)
        nn.init.normal_(self.backbone.embed_tokens.weight, std=wide**-0.5)
        if config.proprio_form == "token":
            self.proprio_proj = nn.Linear(config.proprio_dim, wide)
        elif config.proprio_form == "special":
            self.proprio_embedding = nn.Embedding(config.proprio_dim * config.proprio_bins, wide)
        values = config.bins if config.token_layout == "dim_token" else config.bins * config.action_dim
        self.action_in = nn.Linear(values, narrow)
        self.action_out = nn.Linear(narrow, heads.outputs(config))
        if config.position_embedding:
            self.action_position = nn.Parameter(torch.randn(config.action_tokens, narrow) * 0.5)
        self.time = TimeEmbedding(narrow, config.time_cond == "adarms")
        if config.time_cond == "concat_mlp":
            self.action_time_in = nn.Linear(2 * narrow, narrow)
            self.action_time_out = nn.Linear(narrow, narrow)
        if config.hybrid_continuous:
            self.flow_in = nn.Linear(config.action_dim, narrow)
            self.flow_out = nn.Linear(narrow, config.action_dim)

    def compile_parts(self, backend: str = "inductor") -> None:
        """From now on run the layers of both stacks as compiled code, and on a GPU the image encoder.

        For training: a small model's time goes to many small operations. On a CPU compiled convolutions lose.
        """
        if self.projector.weight.is_cuda:
            self.vision.compile(backend=backend)
        self.backbone.compile_layers(backend)

    def checkpoint_activations(self) -> None:
        """From now on keep no activations inside the layers of encoder, backbone and expert: compute them again."""
        self.vision.encoder.checkpointing = True
        self.backbone.language.checkpointing = self.backbone.expert.checkpointing = True

    def prefix(self, batch: Batch) -> Cache:
        """Encode the observations; a view that no observation of the batch has costs nothing."""
        return self.backbone.prefix(*self.prefix_tokens(batch))

    def prefix_tokens(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Embedded prefix `(B, T, W)` and its mask `(B, T)`: images view by view, text, proprioception.

        Text is cut to the longest instruction of the batch (padding is at its end).
        """
        parts, masks = [], []
        for view in range(len(self.config.views)):
            present = (
                batch.view_mask[:, view] if self.config.mask_absent_views else torch.ones_like(batch.text_mask[:, 0])
            )
            if not bool(present.any()):
                continue
            tokens = self._view_tokens(batch, view, present)
            parts.append(tokens)
            masks.append(present[:, None].expand(-1, tokens.shape[1]))
        longest = int(batch.text_mask.sum(1).max())
        parts.append(self.backbone.embed(batch.text_tokens[:, :longest]))
        masks.append(batch.text_mask[:, :longest])
        if self.config.proprio_form != "text":
            state = self.proprio_tokens(batch.proprio)
            parts.append(state)
            masks.append(torch.ones(state.shape[:2], dtype=torch.bool, device=state.device))
        return torch.cat([p.to(parts[0].dtype) for p in parts], 1), torch.cat(masks, 1)

    def _view_tokens(self, batch: Batch, view: int, present: Tensor) -> Tensor:
        images, offset = batch.images[:, view], batch.view_offset[:, view]
        if bool(present.all()):
            return self.image_tokens(images, offset, view)
        seen = self.image_tokens(images[present], offset[present], view)
        tokens = seen.new_zeros(len(images), *seen.shape[1:])
        tokens[present] = seen
        return tokens

    def image_tokens(self, images: Tensor, offset: Tensor, view: int) -> Tensor:
        """Tokens of one view, `(M, 3, S, S)` and `(M, 3)` to `(M, tokens, W)` (eq. 9, 19)."""
        dtype = self.projector.weight.dtype
        z = self.projector(self.vision(images.to(dtype), view))
        return z + self.offset_proj(offset.to(dtype))[:, None]

    def proprio_tokens(self, proprio: Tensor) -> Tensor:
        """One projected token, or a special token per value: `(B, P)` to `(B, 1 or P, W)`."""
        if self.config.proprio_form == "token":
            return self.proprio_proj(proprio.to(self.proprio_proj.weight.dtype))[:, None]
        bins = self.config.proprio_bins
        index = ((proprio + 1.0) / 2.0 * bins).floor().long().clamp(0, bins - 1)
        return self.proprio_embedding(index + torch.arange(proprio.shape[1], device=proprio.device) * bins)

    def denoise(
        self,
        cache: Cache,
        x: Tensor,
        tau: Tensor,
        clean: Tensor | None = None,
        flow: Tensor | None = None,
        exact: bool = False,
    ) -> Denoised:
        """Logits of every action token (eq. 5, 10).

        Args:
            cache: the prefix.
            x: `(B, H, D, K)` noisy one-hots.
            tau: `(B,)` diffusion time of the noisy rows.
            clean: `(B, H)` bool, rows that are committed and therefore at tau = 0, or None.
            flow: `(B, H, D)` noisy continuous actions (hybrid only).
            exact: see `heads.project`.

        """
        rows = self.action_in.weight.dtype
        tokens = self.action_in(x.flatten(1, 2).to(rows) if self._by_dimension else x.flatten(2).to(rows))
        return self.denoise_tokens(cache, tokens, tau, clean, flow, exact)

    def denoise_tokens(
        self,
        cache: Cache,
        tokens: Tensor,
        tau: Tensor,
        clean: Tensor | None,
        flow: Tensor | None,
        exact: bool = False,
    ) -> Denoised:
        """`denoise` from projected tokens `(B, T, E)`, T = H * D or H."""
        config = self.config
        if config.position_embedding:
            tokens = tokens + self.action_position
        per_token = None if clean is None else clean.repeat_interleave(config.tokens_per_row, 1)
        blocks: tuple[int, ...] = (config.action_tokens,)
        if flow is not None:
            tokens = torch.cat([self.flow_in(flow.to(tokens.dtype)), tokens], 1)
            blocks = (config.prediction_horizon, config.action_tokens)
            if clean is not None and per_token is not None:
                per_token = torch.cat([torch.zeros_like(clean), per_token], 1)
        condition = self.condition(tau, per_token)
        if config.time_cond == "concat_mlp":
            time = condition.per_token(condition.embedding).expand(-1, tokens.shape[1], -1).to(tokens.dtype)
            tokens = self.action_time_out(silu(self.action_time_in(torch.cat([tokens, time], -1))))
        adaptive = condition if config.time_cond == "adarms" else None
        hidden = self.backbone.suffix(tokens, cache, adaptive, blocks)
        logits = heads.project(self.action_out, hidden[:, -config.action_tokens :], exact)
        shape = (config.prediction_horizon, config.action_dim, -1)
        velocity = self.flow_out(hidden[:, : config.prediction_horizon]) if flow is not None else None
        return Denoised(logits.reshape(len(logits), *shape), velocity)

    def condition(self, tau: Tensor, clean: Tensor | None) -> Condition:
        """Time embeddings of `tau` `(B,)` and, where tokens `(B, T)` are clean, of 0."""
        if clean is None:
            return Condition(self.time(tau[:, None]))
        select = torch.stack([~clean, clean], -1).float()
        return Condition(self.time(torch.stack([tau, torch.zeros_like(tau)], 1)), select)

    def loss(self, batch: Batch, generator: torch.Generator, cache: Cache | None = None) -> Loss:
        """Cross-entropy at a random time (eq. 4 to 6); committed rows enter clean and do not count.

        The hybrid adds a flow-matching loss (eq. 1 and 2) on the continuous block, half and half, as the release does;
        its targets are the centres of the bins.

        Args:
            batch: observations and target tokens.
            generator: on the batch's device; draws time and noise.
            cache: the prefix, if it has been computed already.

        """
        config = self.config
        cache = self.prefix(batch) if cache is None else cache
        if config.insulate:
            cache = cache.detach()
        tokens = batch.action_tokens
        clean = diffusion.clean_rows(batch.committed, config.prediction_horizon)
        counts = diffusion.counted(batch.action_mask, batch.committed)
        if config.head != "e0":
            start, ones = heads.start(config, tokens, clean), torch.ones(len(tokens), device=tokens.device)
            answer = self.denoise(cache, start, ones, clean if config.committed_max else None).logits
            return Loss(*heads.loss(config, answer, tokens, counts))
        tau = diffusion.draw_tau(len(tokens), generator)
        eps = torch.randn(*tokens.shape, config.bins, generator=generator, device=tokens.device)
        time = torch.where(clean, 0.0, tau[:, None])
        x = _noised_rows(tokens, eps, time, config.alpha_train)
        flow = velocity = None
        if config.hybrid_continuous:
            actions = (tokens + 0.5) / config.bins * 2.0 - 1.0
            noise = torch.randn(actions.shape, generator=generator, device=tokens.device)
            flow, velocity = tau[:, None, None] * noise + (1.0 - tau[:, None, None]) * actions, noise - actions
        out = self.denoise(cache, x, tau, clean if config.committed_max else None, flow)
        entropy = diffusion.cross_entropy(out.logits, tokens, counts)
        right = ((out.logits.max(-1).indices == tokens) & counts).sum() / counts.sum().clamp(min=1)
        if velocity is None or out.velocity is None:
            return Loss(entropy, entropy.detach(), right)
        error = ((out.velocity.float() - velocity).square() * counts).sum() / counts.sum().clamp(min=1)
        return Loss(0.5 * entropy + 0.5 * error, entropy.detach(), right, error.detach())

    @torch.no_grad()
    def sample(self, batch: Batch, settings: SamplerSettings, noise: NoiseDraw) -> Sample:
        """Denoise a chunk per observation: the reference that the fast engine is compared with.

        Args:
            batch: observations; `action_tokens` holds the plan in force where `action_mask` is True, of which the
                first `committed` rows are kept as they are.
            settings: the sampler.
            noise: for `B * settings.samples` chunks.

        """
        cache = self.prefix(batch).repeat(settings.samples)
        plan, known = batch.action_tokens, batch.action_mask
        clean = diffusion.clean_rows(batch.committed, self.config.prediction_horizon)
        chunks, kept = (t.repeat_interleave(settings.samples, 0) for t in (plan, clean))
        last = diffusion.tau_schedule(settings.steps)[-1]

        def denoise(x: Tensor, tau: float, clean: Tensor, flow: Tensor | None) -> Denoised:
            times = torch.full((len(x),), tau, device=x.device)
            return self.denoise(cache, x, times, clean, flow, exact=tau == last)

        if self.config.head in heads.REGRESSION:
            start = heads.start(self.config, chunks, kept)
            drawn = heads.answer(self.config, denoise(start, 1.0, kept, None).logits, chunks, kept)
        else:
            drawn = diffusion.sample(denoise, noise, settings, chunks, kept, self.columns)
        return diffusion.closest(drawn, settings.samples, plan, known)

    @property
    def _by_dimension(self) -> bool:
        return self.config.token_layout == "dim_token"


def _noised_rows(tokens: Tensor, eps: Tensor, time: Tensor, alpha: float) -> Tensor:
    """`diffusion.noised` with a time per row `(B, H)`."""
    time = time[:, :, None, None]
    return (time * eps).scatter_add(-1, tokens[..., None], ((1.0 - time) * alpha).expand(*tokens.shape, 1))
