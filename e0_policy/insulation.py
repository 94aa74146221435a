"""Knowledge insulation (arXiv 2505.23705): discrete action tokens train the backbone, diffusion the expert alone.

Equations 5 and 6 (no gradient from expert queries into prefix keys and values) are `E0Config.insulate`, in
`E0Model.loss`. Equation 4 is here: a next-token loss of the backbone on a second, discrete writing of the same chunk.
Those tokens see the prefix and the ones before them; the expert never sees them, and no prefix or discrete token sees
the expert's. So the two losses share no weights but through the prefix, which only this one trains.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from e0_policy.backbone import Cache
from e0_policy.fast_tokens import ChunkTokenizer
from e0_policy.model import E0Model
from e0_policy.text_tokenizer import TextTokenizer
from e0_policy.types import FloatArray

BEGIN, END = 0, 1


class InsulationError(ValueError):
    """Discrete action tokens do not fit the text vocabulary; the message says what was got and what is allowed."""


@dataclass(frozen=True)
class ActionWriting:
    """Writes chunks into the text vocabulary: a begin token, the action tokens, an end token.

    Args:
        text: whose special tokens are used: two marks, then one per action token.
        actions: chunk to ids.

    """

    text: TextTokenizer
    actions: ChunkTokenizer

    def __post_init__(self) -> None:
        try:
            self.text.special(self.actions.vocabulary + 1)
        except ValueError as error:
            raise InsulationError(f"{self.actions.vocabulary} action tokens and two marks: {error}") from None

    def write(self, chunks: Sequence[FloatArray]) -> tuple[Tensor, Tensor]:
        """Ids and mask `(B, T)` of chunks `(H, D)` in [-1, 1], padded with 0 to the longest.

        Of a chunk that an episode's end cuts, give the real rows alone: every token counts in the loss.
        """
        lines = [[BEGIN, *(2 + token for token in self.actions.encode(chunk)), END] for chunk in chunks]
        ids = np.zeros((len(lines), max(map(len, lines))), np.int64)
        for row, line in zip(ids, lines, strict=True):
            row[: len(line)] = [self.text.special(index) for index in line]
        lengths = np.array([len(line) for line in lines])
        return torch.from_numpy(ids), torch.from_numpy(np.arange(ids.shape[1]) < lengths[:, None])


def token_losses(model: E0Model, cache: Cache, ids: Tensor, mask: Tensor) -> Tensor:
    """Negative log-likelihood of each token but the first, given the prefix and those before: `(B, T - 1)` nats.

    Args:
        model: whose backbone predicts; its logits are the product with the text embedding (tied, as in Gemma).
        cache: the prefix, with its gradient.
        ids: `(B, T)` from `ActionWriting.write`.
        mask: `(B, T)`; losses of padding are 0.

    """
    backbone = model.backbone
    hidden = backbone.generate(backbone.embed(ids[:, :-1]), mask[:, :-1], cache)
    logits = hidden @ backbone.embed_tokens.weight.T.to(hidden.dtype)
    losses = torch.nn.functional.cross_entropy(logits.flatten(0, 1).float(), ids[:, 1:].flatten(), reduction="none")
    return losses.reshape(ids[:, 1:].shape) * mask[:, 1:]


def autoregressive_loss(model: E0Model, cache: Cache, ids: Tensor, mask: Tensor) -> Tensor:
    """Mean of `token_losses` over real tokens: the first term of equation 4."""
    return token_losses(model, cache, ids, mask).sum() / mask[:, 1:].sum().clamp(min=1)
