"""Action chunks as short token sequences for an autoregressive loss: FAST (DCT, rounding, byte pairs) and naive bins.

FAST (arXiv 2501.09747): a cosine transform per dimension packs a smooth chunk into a few low frequencies, which are
scaled, rounded and written lowest frequency first, dimension by dimension; byte-pair merges shorten what repeats.

For example, with the chunks of a training set:

    tokenizer = FastTokenizer.fit(chunks, vocabulary=512)   # (N, H, D) in [-1, 1]
    tokens = tokenizer.encode(chunks[0])
    tokenizer.decode(tokens)                                # (H, D), within rounding of the coefficients
"""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from e0_policy.action_tokenizer import ActionTokenizer
from e0_policy.types import FloatArray

MAX_FILE_BYTES = 16 * 1024 * 1024


class FastTokenError(ValueError):
    """A chunk, a token sequence or a file does not fit; the message says what was got and what is allowed."""


class ChunkTokenizer(Protocol):
    """A chunk `(H, D)` in [-1, 1], or its first rows where an episode ends, as ids in `[0, vocabulary)`."""

    @property
    def vocabulary(self) -> int:
        """Number of ids."""

    def encode(self, chunk: FloatArray) -> list[int]:
        """Ids of a chunk."""


@dataclass(frozen=True)
class NaiveTokenizer:
    """One token per row and dimension, row by row (RT-2); every `stride`-th row only."""

    bins: int = 256
    stride: int = 1

    @property
    def vocabulary(self) -> int:
        """Number of ids."""
        return self.bins

    def encode(self, chunk: FloatArray) -> list[int]:
        """Ids of a chunk `(H, D)`."""
        tokens: list[int] = ActionTokenizer(self.bins).encode(chunk[:: self.stride]).tokens.ravel().tolist()
        return tokens


@dataclass(frozen=True)
class FastTokenizer:
    """FAST tokens of chunks with `rows` rows and `columns` dimensions.

    Args:
        rows: H.
        columns: D.
        scale: coefficients are multiplied by it and rounded, so each is off by at most `0.5 / scale`.
        lowest: smallest rounded coefficient; rounded coefficients are clipped to `lowest .. lowest + alphabet - 1`.
        alphabet: number of coefficient values; their ids come first.
        merges: pairs of ids; the i-th makes id `alphabet + i`.

    """

    rows: int
    columns: int
    scale: float
    lowest: int
    alphabet: int
    merges: tuple[tuple[int, int], ...]

    def __post_init__(self) -> None:
        for index, pair in enumerate(self.merges):
            if not (len(pair) == 2 and all(0 <= part < self.alphabet + index for part in pair)):
                raise FastTokenError(f"merge {index} is {pair}; its parts must be ids below {self.alphabet + index}")
        object.__setattr__(self, "_ranks", {pair: i for i, pair in enumerate(self.merges)})

    @staticmethod
    def fit(chunks: FloatArray, vocabulary: int = 1024, scale: float = 10.0) -> FastTokenizer:
        """Train the alphabet and the merges on chunks `(N, H, D)`; stops early where no pair repeats.

        Raises:
            FastTokenError: wrong shape, or a vocabulary smaller than the alphabet of coefficients.

        """
        if chunks.ndim != 3 or not len(chunks):
            raise FastTokenError(f"chunks have shape {chunks.shape}; needed is (N, H, D) with N above 0")
        rows, columns = chunks.shape[1:]
        symbols = np.rint(np.einsum("kh,nhd->nkd", _dct(rows), chunks) * scale).astype(np.int64)
        lowest, alphabet = int(symbols.min()), int(np.ptp(symbols)) + 1
        if alphabet > vocabulary:
            raise FastTokenError(
                f"{alphabet} coefficient values, a vocabulary of {vocabulary}; enlarge it or scale less"
            )
        sequences = (symbols - lowest).reshape(len(chunks), -1).tolist()
        merges = _train_merges(sequences, alphabet, vocabulary - alphabet)
        return FastTokenizer(rows, columns, scale, lowest, alphabet, merges)

    @property
    def vocabulary(self) -> int:
        """Number of ids."""
        return self.alphabet + len(self.merges)

    def encode(self, chunk: FloatArray) -> list[int]:
        """Ids of a chunk `(H, D)`, or of fewer rows: then of their own, shorter transform.

        Raises:
            FastTokenError: another shape, or a number that is not finite.

        """
        rows = len(chunk)
        if not 1 <= rows <= self.rows or chunk.shape != (rows, self.columns) or not np.isfinite(chunk).all():
            raise FastTokenError(
                f"chunk of shape {chunk.shape}; needed is {(self.rows, self.columns)} or fewer rows, all finite"
            )
        symbols = np.rint(_dct(rows) @ chunk * self.scale).astype(np.int64) - self.lowest
        ids: list[int] = np.clip(symbols, 0, self.alphabet - 1).ravel().tolist()
        ranks: Mapping[tuple[int, int], int] = self._ranks  # type: ignore[attr-defined]
        while len(ids) > 1:
            rank = min(ranks.get(pair, len(ranks)) for pair in itertools.pairwise(ids))
            if rank == len(ranks):
                break
            ids = _merge(ids, self.merges[rank], self.alphabet + rank)
        return ids

    def decode(self, tokens: Sequence[int]) -> FloatArray:
        """Chunk `(H, D)` of ids, or of fewer rows if those were written.

        Raises:
            FastTokenError: an unknown id, or ids that make no whole number of rows, or too many.

        """
        symbols: list[int] = []
        stack = list(reversed(tokens))
        while stack:
            token = stack.pop()
            if not 0 <= token < self.vocabulary:
                raise FastTokenError(f"token {token}; allowed is 0 to {self.vocabulary - 1}")
            if token < self.alphabet:
                symbols.append(token)
            else:
                stack.extend(reversed(self.merges[token - self.alphabet]))
        rows, rest = divmod(len(symbols), self.columns)
        if rest or not 1 <= rows <= self.rows:
            raise FastTokenError(
                f"{len(symbols)} coefficients; a chunk of {self.rows} x {self.columns} needs their product, a shorter "
                "one fewer rows"
            )
        coefficients = (np.array(symbols, float) + self.lowest).reshape(rows, self.columns) / self.scale
        chunk: FloatArray = _dct(rows).T @ coefficients
        return chunk

    def to_json(self) -> dict[str, Any]:
        """Plain values for a file or a checkpoint."""
        return {
            "rows": self.rows,
            "columns": self.columns,
            "scale": self.scale,
            "lowest": self.lowest,
            "alphabet": self.alphabet,
            "merges": [list(pair) for pair in self.merges],
        }

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> FastTokenizer:
        """Read what `to_json` wrote.

        Raises:
            FastTokenError: a key is missing or a value does not fit.

        """
        keys = ("rows", "columns", "scale", "lowest", "alphabet", "merges")
        if missing := [key for key in keys if key not in data]:
            raise FastTokenError(f"a FAST tokenizer lacks {', '.join(missing)}")
        merges = tuple((int(a), int(b)) for a, b in data["merges"])
        rows, columns, lowest, alphabet = (int(data[key]) for key in ("rows", "columns", "lowest", "alphabet"))
        return FastTokenizer(rows, columns, float(data["scale"]), lowest, alphabet, merges)

    @staticmethod
    def load(path: Path) -> FastTokenizer:
        """Read a JSON file.

        Raises:
            FastTokenError: too large, not JSON, or not a tokenizer.

        """
        if path.stat().st_size > MAX_FILE_BYTES:
            raise FastTokenError(f"{path} has {path.stat().st_size} bytes; allowed are {MAX_FILE_BYTES}")
        try:
            return FastTokenizer.from_json(json.loads(path.read_text(encoding="utf-8")))
        except (ValueError, TypeError) as error:
            raise FastTokenError(f"{path}: {error}") from None


@lru_cache(maxsize=16)
def _dct(rows: int) -> FloatArray:
    """Orthonormal DCT-II `(rows, rows)`; its transpose is the inverse."""
    k, n = np.arange(rows)[:, None], np.arange(rows)[None, :]
    matrix: FloatArray = np.cos(np.pi * (n + 0.5) * k / rows) * np.sqrt(2.0 / rows)
    matrix[0] /= np.sqrt(2.0)
    return matrix


def _train_merges(sequences: Iterable[list[int]], first: int, most: int) -> tuple[tuple[int, int], ...]:
    """Byte-pair merges (Gage 1994): the most frequent pair, the smaller one among equals, until none occurs twice."""
    counted = [(list(ids), count) for ids, count in Counter(map(tuple, sequences)).items()]
    merges: list[tuple[int, int]] = []
    while len(merges) < most:
        pairs: Counter[tuple[int, int]] = Counter()
        for ids, count in counted:
            for pair in itertools.pairwise(ids):
                pairs[pair] += count
        best = min(pairs, key=lambda pair: (-pairs[pair], pair), default=None)
        if best is None or pairs[best] < 2:
            break
        counted = [(_merge(ids, best, first + len(merges)), count) for ids, count in counted]
        merges.append(best)
    return tuple(merges)


def _merge(ids: list[int], pair: tuple[int, int], merged: int) -> list[int]:
    out: list[int] = []
    position = 0
    while position < len(ids):
        if position + 1 < len(ids) and (ids[position], ids[position + 1]) == pair:
            out.append(merged)
            position += 2
        else:
            out.append(ids[position])
            position += 1
    return out
