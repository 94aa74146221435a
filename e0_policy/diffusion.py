"""Tweedie discrete diffusion over action tokens: noising, training times, loss, sampler. No network in here.

An action token k of K bins is the vector `alpha * onehot(k)`. The channel is Gaussian (eq. 4):

    x_tau = tau * eps + (1 - tau) * alpha * onehot(k),    eps ~ N(0, I_K)

so tau = 1 is pure noise and tau = 0 is clean. A network predicts the posterior over k from x_tau (eq. 5), trained by
cross-entropy (eq. 6); the sampler turns its prediction into one-hots again and adds less noise (eq. 7, 10 to 13).

The paper draws tau "from a beta distribution" biased "toward smaller tau (i.e., higher-noise regions)", which
contradicts its equation 4, where smaller tau is less noise. The published code resolves it: Beta(1.5, 1) * 0.999 +
0.001 with tau = 1 as noise, hence a bias towards noise and larger tau. That is what `draw_tau` does.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, fields
from typing import Any, get_args

import torch
from torch import Tensor

from e0_policy.action_tokenizer import ActionTokenizer
from e0_policy.model_config import Decode, E0Config, ModelConfigError, Noise, NoiseSchedule, Sampling
from e0_policy.types import FloatArray

MAX_STEPS = 1000
MAX_SAMPLES = 64


@dataclass(frozen=True)
class SamplerSettings:
    """Run-time settings of the sampler.

    Attributes:
        steps: N, the number of denoising steps.
        alpha: amplitude of the fed-back one-hots (alpha of eq. 4 at inference).
        alpha_clean: amplitude of committed rows; that of training.
        noise: "fixed" uses one eps for every step, "redraw" a new one.
        noise_schedule: "tau" is eq. 12; "none" feeds back `alpha * onehot + eps` without scaling, as the release does.
        sampling: "argmax" (the paper) or "sampled" from the predicted categorical distribution.
        samples: chunks drawn per observation; the one closest to the plan in force is kept.
        decode: "token" answers with the middles of bins (eq. 13). Two options beyond the paper read the distribution
            of the last step instead: "mean" its mean over the bins around the answer, finer than a bin and never
            between two ways of acting; "expectation" its mean over all bins, the best guess by squared error, which
            lies between two ways of acting where the last step still holds both for likely.

    """

    steps: int = 10
    alpha: float = 1.0
    alpha_clean: float = 1.0
    noise: Noise = "fixed"
    noise_schedule: NoiseSchedule = "tau"
    sampling: Sampling = "argmax"
    samples: int = 1
    decode: Decode = "token"

    def __post_init__(self) -> None:
        for name, high in (("steps", MAX_STEPS), ("samples", MAX_SAMPLES)):
            value = getattr(self, name)
            if type(value) is not int or not 1 <= value <= high:
                raise ModelConfigError(f"sampler setting {name} is {value!r}; allowed is 1 to {high}")
        named = (("noise", Noise), ("noise_schedule", NoiseSchedule), ("sampling", Sampling), ("decode", Decode))
        for name, choices in named:
            if getattr(self, name) not in get_args(choices):
                allowed = ", ".join(get_args(choices))
                raise ModelConfigError(f"sampler setting {name} is {getattr(self, name)!r}; allowed are {allowed}")
        if not 0.0 < self.alpha <= 100.0:
            raise ModelConfigError(f"sampler setting alpha is {self.alpha!r}; allowed is above 0 and up to 100")

    @staticmethod
    def of(config: E0Config, **changes: Any) -> SamplerSettings:
        """The settings that a configuration asks for, with changes.

        Raises:
            ModelConfigError: an unknown setting or a wrong value.

        """
        known = [f.name for f in fields(SamplerSettings)]
        if unknown := sorted(set(changes) - set(known)):
            raise ModelConfigError(f"unknown sampler setting {unknown[0]!r}; allowed are {', '.join(known)}")
        shared = {name: getattr(config, name) for name in ("steps", "noise", "noise_schedule", "sampling", "decode")}
        own = {"alpha": config.alpha_infer, "alpha_clean": config.alpha_train}
        settings = SamplerSettings(**{**shared, **own, **changes})
        if config.head != "e0" and settings.steps != 1:
            raise ModelConfigError(f"sampler setting steps is {settings.steps}; head {config.head!r} answers in 1")
        return settings


@dataclass(frozen=True)
class NoiseDraw:
    """Every random number of one call of the sampler, so that it is a function of its input.

    Attributes:
        eps: `(1 or N, B, H, D, K)` standard normal; one set if the noise is fixed.
        gumbel: `(N, B, H, D, K)` standard Gumbel if tokens are sampled, else None.
        flow: `(B, H, D)` standard normal for the continuous block of the hybrid, else None.

    """

    eps: Tensor
    gumbel: Tensor | None = None
    flow: Tensor | None = None


def draw_noise(config: E0Config, settings: SamplerSettings, batch: int, generator: torch.Generator) -> NoiseDraw:
    """Draw what one call of the sampler needs for `batch` chunks, on the generator's device.

    Heads other than E0 see no noise: zeros.
    """
    shape = (batch, config.prediction_horizon, config.action_dim, config.bins)
    device = generator.device
    sets = 1 if settings.noise == "fixed" else settings.steps
    eps = torch.randn(sets, *shape, generator=generator, device=device)
    if config.head != "e0":
        eps = torch.zeros_like(eps)
    gumbel = flow = None
    if settings.sampling == "sampled":
        uniform = torch.rand(settings.steps, *shape, generator=generator, device=device)
        gumbel = -torch.log(-torch.log(uniform.clamp(1e-20, 1.0 - 1e-7)))
    if config.hybrid_continuous:
        flow = torch.randn(*shape[:3], generator=generator, device=device)
    return NoiseDraw(eps, gumbel, flow)


def draw_tau(batch: int, generator: torch.Generator) -> Tensor:
    """Training times `(B,)`: Beta(1.5, 1) * 0.999 + 0.001, which leans towards noise (tau = 1)."""
    uniform = torch.rand(batch, generator=generator, device=generator.device)
    return uniform ** (1.0 / 1.5) * 0.999 + 0.001


def draw_committed(batch: int, most: int, generator: torch.Generator) -> Tensor:
    """Numbers of clean rows for training `(B,)`: none for half of the batch, else uniform in 1..most.

    Half, because a policy that starts or falls behind has no committed rows.
    """
    device = generator.device
    rows = torch.randint(1, most + 1, (batch,), generator=generator, device=device) if most else torch.zeros(batch)
    keep = torch.rand(batch, generator=generator, device=device) < 0.5
    return torch.where(keep, rows.to(device), 0).long()


def clean_rows(committed: Tensor, horizon: int) -> Tensor:
    """Which rows are committed, `(B, H)` bool, from their number `(B,)`."""
    return torch.arange(horizon, device=committed.device) < committed[:, None]


def counted(mask: Tensor, committed: Tensor) -> Tensor:
    """Tokens that count in a loss, `(B, H, D)` bool: those of `mask` in rows that are not committed `(B,)`."""
    return mask & ~clean_rows(committed, mask.shape[1])[..., None]


def one_hot(tokens: Tensor, bins: int, amplitude: float) -> Tensor:
    """`(..., K)` float32 with `amplitude` at the token (eq. 11, smoothed)."""
    out = torch.zeros(*tokens.shape, bins, device=tokens.device)
    return out.scatter_(-1, tokens[..., None], amplitude)


def noised(tokens: Tensor, eps: Tensor, tau: Tensor | float, alpha: float) -> Tensor:
    """Equation 4 with smoothing: `tau * eps + (1 - tau) * alpha * onehot(tokens)`.

    Args:
        tokens: `(B, H, D)`.
        eps: `(B, H, D, K)` standard normal.
        tau: a number, or `(B,)`.
        alpha: amplitude of the one-hots.

    Returns:
        `(B, H, D, K)`.

    """
    if isinstance(tau, Tensor):
        tau = tau[:, None, None, None]
    return tau * eps + (1.0 - tau) * one_hot(tokens, eps.shape[-1], alpha)


def score(x: Tensor, posterior: Tensor, tau: float, alpha: float) -> Tensor:
    """Tweedie's identity: the gradient of log p(x_tau) from the posterior over tokens (eq. 60).

    `((1 - tau) * alpha * posterior - x) / tau^2`. The paper prints the factor of the posterior outside of the bracket,
    which holds for a factor of 1 only; its own proof (eq. 61) starts there.
    """
    return ((1.0 - tau) * alpha * posterior - x) / tau**2


def cross_entropy(logits: Tensor, tokens: Tensor, mask: Tensor) -> Tensor:
    """Equation 6: mean negative log-likelihood over the tokens of `mask`, in nats; 0 if there are none."""
    losses = torch.nn.functional.cross_entropy(logits.flatten(0, -2).float(), tokens.flatten(), reduction="none")
    weight = mask.flatten().to(losses.dtype)
    return (losses * weight).sum() / weight.sum().clamp(min=1.0)


def pad(tokens: Tensor, columns: int, bins: int) -> Tensor:
    """Tokens `(B, H, D)` with those behind the real columns set, in place, to what training has there: the token of 0.

    Nothing trains what a network predicts there, but the real tokens attend to what is fed back. The published weights
    were trained to predict exactly this token.
    """
    tokens[..., columns:] = bins // 2
    return tokens


def euler(flow: Tensor, velocity: Tensor, start: Tensor, settings: SamplerSettings, columns: int, bins: int) -> Tensor:
    """One of the N Euler steps of the hybrid's continuous block (eq. 3), `(B, H, D)`.

    Behind the real columns the velocity is not the predicted one, which nothing trains, but that from the `start`, the
    noise, to the middle of the bin of 0, where training's path ends.
    """
    velocity = velocity.clone()
    velocity[..., columns:] = start[..., columns:] - ((bins // 2 + 0.5) / bins * 2.0 - 1.0)
    return flow - velocity / settings.steps


def row_entropy(logits: Tensor) -> Tensor:
    """Entropy of the predicted tokens in nats, averaged over dimensions: `(B, H, D, K)` to `(B, H)`."""
    log_p = logits.float().log_softmax(-1)
    return -(log_p.exp() * log_p).sum(-1).mean(-1)


def without_autocast(x: Tensor) -> AbstractContextManager[None]:
    """No autocast of operations on `x` inside the block; its device may be one that has none (`meta`)."""
    kind = x.device.type
    return torch.autocast(kind, enabled=False) if torch.amp.is_autocast_available(kind) else nullcontext()


def decoded(logits: Tensor, tokens: Tensor, decode: Decode) -> Tensor | None:
    """Actions in [-1, 1] `(B, H, D)` from the last step's logits `(B, H, D, K)`; None where the tokens answer."""
    if decode == "token":
        return None
    return mean_around(logits, tokens) if decode == "mean" else expectation(logits)


def expectation(logits: Tensor) -> Tensor:
    """Mean of the predicted distribution over all bins, `(B, H, D, K)` to `(B, H, D)` float32 in [-1, 1]."""
    return _mean(logits.float().softmax(-1))


def _mean(share: Tensor) -> Tensor:
    """Mean of distributions `(..., K)` over the middles `(k + 0.5) / K * 2 - 1`, in float32 also under autocast."""
    bins = share.shape[-1]
    with without_autocast(share):
        return share @ ((torch.arange(bins, device=share.device) + 0.5) / bins * 2.0 - 1.0)


def mean_around(logits: Tensor, tokens: Tensor) -> Tensor:
    """Mean of the predicted distribution over the bins within 1/32 (at least one bin) of the answer.

    Args:
        logits: `(B, H, D, K)` of the last step.
        tokens: `(B, H, D)`, the answer.

    Returns:
        `(B, H, D)` float32, actions in [-1, 1].

    """
    bins = logits.shape[-1]
    index = torch.arange(bins, device=logits.device)
    far = (index - tokens[..., None]).abs() > max(1, bins // 64)
    share = logits.float().masked_fill(far, float("-inf")).softmax(-1)
    return _mean(share)


def tau_schedule(steps: int) -> list[float]:
    """Times of the N steps (appendix A.1): `1 - (i - 1) / N` for i = 1..N."""
    return [1.0 - i / steps for i in range(steps)]


@dataclass(frozen=True)
class Denoised:
    """A network's answer: `logits` `(B, H, D, K)`; `velocity` `(B, H, D)` of the continuous block, or None."""

    logits: Tensor
    velocity: Tensor | None = None


@dataclass(frozen=True)
class Sample:
    """Chunks of tokens.

    Attributes:
        tokens: `(B, H, D)` int64.
        entropy: `(B, H)` nats, averaged over real dimensions; 0 on committed rows.
        flow: `(B, H, D)`, the continuous block's actions in [-1, 1], or None.
        mean: `(B, H, D)`, what `SamplerSettings.decode` reads from the last distribution, of no meaning on committed
            rows, or None where the tokens answer.

    """

    tokens: Tensor
    entropy: Tensor
    flow: Tensor | None = None
    mean: Tensor | None = None

    def values(self, tokenizer: ActionTokenizer) -> FloatArray:
        """The answer, normalised `(B, H, D)`: the tokens', or what `decode` reads from the last distribution.

        With a continuous block it is the average of the two, as in the release, within [-1, 1]: what the flow comes to
        has no bounds, and an opening beyond 0 to 1 is none.
        """
        mean, flow = (None if t is None else t.double().cpu().numpy() for t in (self.mean, self.flow))
        discrete = tokenizer.decode(self.tokens.cpu().numpy()) if mean is None else mean
        return discrete if flow is None else (0.5 * discrete + 0.5 * flow).clip(-1.0, 1.0)


Denoiser = Callable[[Tensor, float, Tensor, "Tensor | None"], Denoised]
"""`(x (B, H, D, K), tau, clean (B, H), flow (B, H, D) or None)` to logits."""


def sample(
    denoise: Denoiser,
    noise: NoiseDraw,
    settings: SamplerSettings,
    committed_tokens: Tensor,
    clean: Tensor,
    columns: int | None = None,
) -> Sample:
    """Run the N steps of equations 7 and 10 to 12, and of the hybrid's continuous block (Euler steps of eq. 3).

    With "redraw" and "sampled", and with the true posterior as denoiser, the answer's distribution for one token is
    exactly the data's, for any N: each step renoises a posterior sample.

    Args:
        denoise: the network, or any posterior.
        noise: the random numbers.
        settings: which sampler.
        committed_tokens: `(B, H, D)`, read where rows are clean.
        clean: `(B, H)` bool, rows that are committed: they enter at tau = 0 and come out unchanged.
        columns: real dimensions, the first ones; those behind are padding (see `pad`). None: all of them.

    """
    bins = noise.eps.shape[-1]
    columns = committed_tokens.shape[-1] if columns is None else columns
    held = clean[..., None].expand_as(committed_tokens)
    kept = one_hot(committed_tokens, bins, settings.alpha_clean)
    x, flow, tokens = noise.eps[0], noise.flow, committed_tokens
    for step, tau in enumerate(tau_schedule(settings.steps)):
        if step:
            eps = noise.eps[step % len(noise.eps)]
            annealed = settings.noise_schedule == "tau"
            x = noised(tokens, eps, tau, settings.alpha) if annealed else one_hot(tokens, bins, settings.alpha) + eps
        out = denoise(torch.where(held[..., None], kept, x), tau, clean, flow)
        scores = out.logits if noise.gumbel is None else out.logits + noise.gumbel[step]
        tokens = torch.where(held, committed_tokens, pad(scores.argmax(-1), columns, bins))
        if flow is not None and noise.flow is not None and out.velocity is not None:
            flow = euler(flow, out.velocity, noise.flow, settings, columns, bins)
    entropy = row_entropy(out.logits[..., :columns, :]).masked_fill(clean, 0.0)
    return Sample(tokens, entropy, flow, decoded(out.logits, tokens, settings.decode))


def closest(sample: Sample, samples: int, plan: Tensor, known: Tensor) -> Sample:
    """Of each observation's samples keep the one closest to the plan in force; the first if there is no plan.

    Args:
        sample: `B * samples` chunks, those of one observation in a row.
        samples: how many each observation has.
        plan: `(B, H, D)` tokens of the plan in force.
        known: `(B, H, D)` bool, where the plan says something.

    """
    if samples == 1:
        return sample
    tokens = sample.tokens.reshape(len(plan), samples, *plan.shape[1:])
    distance = ((tokens - plan[:, None]).abs() * known[:, None]).sum((2, 3))
    pick = distance.argmin(1) + torch.arange(len(plan), device=plan.device) * samples
    flow, mean = (None if value is None else value[pick] for value in (sample.flow, sample.mean))
    return Sample(sample.tokens[pick], sample.entropy[pick], flow, mean)
