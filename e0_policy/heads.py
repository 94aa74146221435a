"""Heads to compare the denoiser with: the same network, tokens and targets, but one pass and no noise.

`categorical` predicts the distribution of every token, and argmax or a draw from it is the answer: the denoiser at
tau = 1 alone. `l1` and `l2` predict every value of the normalised rows, by least absolute or squared error. An action
token enters as zeros, which is what the denoiser sees at tau = 1 without the noise that tells it nothing; committed
rows enter as clean one-hots, as they do there. Shape letters as in `e0_policy.batch`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import l1_loss, linear, mse_loss

from e0_policy import diffusion
from e0_policy.diffusion import Sample
from e0_policy.model_config import E0Config

REGRESSION = ("l1", "l2")


def outputs(config: E0Config) -> int:
    """Numbers that the network answers per action token: K per value, or one if it is regressed."""
    values = 1 if config.token_layout == "dim_token" else config.action_dim
    return values if config.head in REGRESSION else values * config.bins


def project(out: nn.Linear, hidden: Tensor, exact: bool) -> Tensor:
    """Logits of the expert's last hidden states, `(B, T, E)` to `(B, T, outputs)`.

    `exact` is for those that the answer is read from: in float32 whatever the weights are, also under autocast. Logits
    of 8 to 16 in bfloat16 are 0.06 apart; likely bins are then equal, and argmax takes the lowest.
    """
    if exact:
        with diffusion.without_autocast(hidden):
            return linear(hidden.float(), out.weight.float(), out.bias.float())
    return linear(hidden, out.weight, out.bias)


def start(config: E0Config, tokens: Tensor, clean: Tensor) -> Tensor:
    """What enters the one pass `(B, H, D, K)`: rows of `tokens` `(B, H, D)` where `clean` `(B, H)`, else zeros."""
    return diffusion.one_hot(tokens, config.bins, config.alpha_train) * clean[:, :, None, None]


def loss(config: E0Config, answer: Tensor, tokens: Tensor, counts: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The loss, itself without a gradient, and the share of tokens that are right.

    Args:
        config: of the model.
        answer: of the network, `(B, H, D, K)`, or `(B, H, D, 1)` if it regresses.
        tokens: `(B, H, D)`, wanted; a regression's targets are the middles of these bins.
        counts: `(B, H, D)` bool, tokens that count.

    """
    weight = counts.sum().clamp(min=1)
    if config.head not in REGRESSION:
        value, found = diffusion.cross_entropy(answer, tokens, counts), answer.argmax(-1)
    else:
        error = l1_loss if config.head == "l1" else mse_loss
        values = answer[..., 0].float()
        wanted = (tokens + 0.5) / config.bins * 2.0 - 1.0
        value, found = (error(values, wanted, reduction="none") * counts).sum() / weight, _nearest(config, values)
    return value, value.detach(), ((found == tokens) & counts).sum() / weight


def answer(config: E0Config, predicted: Tensor, committed_tokens: Tensor, clean: Tensor) -> Sample:
    """A regression's chunks from its prediction `(B, H, D, 1)`, committed rows as they were; no entropy (0)."""
    values = predicted[..., 0].float().clamp(-1.0, 1.0)
    tokens = torch.where(clean[..., None], committed_tokens, _nearest(config, values))
    return Sample(tokens, torch.zeros_like(clean, dtype=torch.float32), mean=values)


def _nearest(config: E0Config, values: Tensor) -> Tensor:
    return ((values + 1.0) / 2.0 * config.bins).floor().long().clamp(0, config.bins - 1)
