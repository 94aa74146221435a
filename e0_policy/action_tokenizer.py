"""Normalised actions to discrete tokens and back: `bins` equal bins over [-1, 1] (E0 section 3.2 and eq. 13).

tokenizer = ActionTokenizer(bins=4)             # edges -1 -.5 0 .5 1
tokenizer.encode(np.array([-1.0, -0.1, 0.6, 7.0]))   # tokens 0 1 3 3, one clipped
tokenizer.decode(np.array([0, 1, 3, 3]))        # -.75 -.25 .75 .75
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from e0_policy.types import FloatArray

TokenArray = NDArray[np.int64]


class ActionTokenError(ValueError):
    """Values or tokens do not fit the tokenizer; the message says what was got and what is allowed."""


@dataclass(frozen=True)
class Encoded:
    """Tokens, how many of the real values lay outside [-1, 1] and were clipped, and how many were real."""

    tokens: TokenArray
    clipped: int
    total: int


@dataclass(frozen=True)
class ActionTokenizer:
    """Equal bins over [-1, 1].

    Args:
        bins: vocabulary size B; E0's ablation covers 128 to 8192 and peaks at 2048.
        decode_at: "mid" decodes to the middle of a bin (error at most half a bin, `1 / bins`); "lower" to its lower
            edge, as the released E0DiffHybrid does, which shifts actions by `-1 / bins` on average.

    """

    bins: int = 2048
    decode_at: Literal["mid", "lower"] = "mid"

    def __post_init__(self) -> None:
        if not 2 <= self.bins <= 65536:
            raise ActionTokenError(f"bins is {self.bins}; allowed is 2 to 65536")
        if self.decode_at not in ("mid", "lower"):
            raise ActionTokenError(f"decode_at is {self.decode_at!r}; allowed are mid, lower")

    @property
    def values(self) -> FloatArray:
        """`(bins,)` value that each token decodes to."""
        return (np.arange(self.bins) + (0.5 if self.decode_at == "mid" else 0.0)) * (2.0 / self.bins) - 1.0

    def encode(self, values: FloatArray, mask: NDArray[np.bool_] | None = None) -> Encoded:
        """Tokens of normalised values; any shape.

        Args:
            values: normalised; outside [-1, 1] they clip to the first or last token and are counted.
            mask: true where a value is real (broadcast to the values). Padding becomes the token of 0 and is never
                counted.

        Raises:
            ActionTokenError: a real value is not finite.

        """
        values = np.asarray(values, np.float64)
        real = np.broadcast_to(True if mask is None else mask, values.shape)
        if not np.isfinite(values[real]).all():
            at = tuple(int(i) for i in np.argwhere(real & ~np.isfinite(values))[0])
            raise ActionTokenError(f"value at {at} is {values[at]}; actions must be finite")
        values = np.where(real, values, 0.0)
        tokens = np.clip(np.floor((values + 1.0) * (self.bins / 2.0)), 0, self.bins - 1).astype(np.int64)
        return Encoded(tokens, int((np.abs(values) > 1.0).sum()), int(real.sum()))

    def decode(self, tokens: TokenArray) -> FloatArray:
        """Normalised values of tokens; any shape.

        Raises:
            ActionTokenError: not integers, or outside `0 .. bins - 1`.

        """
        tokens = np.asarray(tokens)
        if not np.issubdtype(tokens.dtype, np.integer):
            raise ActionTokenError(f"tokens have dtype {tokens.dtype}; integers are needed")
        if tokens.size and (tokens.min() < 0 or tokens.max() >= self.bins):
            raise ActionTokenError(f"tokens span {tokens.min()} to {tokens.max()}; allowed is 0 to {self.bins - 1}")
        return self.values[tokens]
