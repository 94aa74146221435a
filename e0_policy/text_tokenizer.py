"""Instructions to tokens: PaliGemma's tokenizer where its file is given, an embedded one otherwise. Nothing is fetched.

A prompt is never cut: one that is too long is an error that names both lengths.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from e0_policy.types import FloatArray

MAX_CHARACTERS = 4096
_PROBE = "Task: pick up the red cube, stack 3 blocks (slowly)!, State: 0 17 255;\nAction: zażółć 机器人 <loc0007>"


class TextTokenError(ValueError):
    """A prompt or a tokenizer file does not fit; the message says what was got and what is allowed."""


class TextTokenizer(Protocol):
    """Text to token ids in `[0, vocabulary)`; id 0 is padding."""

    @property
    def vocabulary(self) -> int:
        """Number of ids."""

    def encode(self, text: str) -> list[int]:
        """Ids of a text, the beginning-of-sequence id first."""

    def special(self, index: int) -> int:
        """Id of a special token, for discrete actions; distinct for distinct indices.

        Raises:
            TextTokenError: the vocabulary has not that many.

        """

    def to_json(self) -> dict[str, Any]:
        """Plain values for a checkpoint."""


@dataclass(frozen=True)
class WordTokenizer:
    """Embedded tokenizer: known words have one id each, all other text is spelled in UTF-8 bytes.

    Ids: 0 padding, 1 beginning, 2 to 257 bytes, then `words`, then unused ids, then `specials` from the top down.
    Case and runs of white space do not matter, nor does white space between digits; otherwise different texts have
    different ids.

    Args:
        words: words with an id of their own, lower case; those of the training instructions (`fit`).
        size: number of ids.
        specials: ids kept for `special`.

    """

    words: tuple[str, ...] = ()
    size: int = 1024
    specials: int = 0

    def __post_init__(self) -> None:
        if self.room(self.size, self.specials) < len(self.words):
            raise TextTokenError(
                f"{len(self.words)} words and {self.specials} special tokens do not fit into a vocabulary of "
                f"{self.size} with 258 ids for padding, beginning and bytes"
            )
        object.__setattr__(self, "_ids", {word: 258 + i for i, word in enumerate(self.words)})

    @staticmethod
    def room(size: int, specials: int) -> int:
        """How many words fit."""
        return size - 258 - specials

    @staticmethod
    def fit(instructions: Iterable[str], size: int = 1024, specials: int = 0) -> WordTokenizer:
        """Tokenizer with the words of these instructions, the most frequent ones if not all fit."""
        counts = Counter(piece for text in instructions for piece in _pieces(text) if len(piece) > 1)
        ranked = sorted(counts, key=lambda word: (-counts[word], word))
        return WordTokenizer(tuple(sorted(ranked[: max(WordTokenizer.room(size, specials), 0)])), size, specials)

    @property
    def vocabulary(self) -> int:
        """Number of ids."""
        return self.size

    def encode(self, text: str) -> list[int]:
        """Ids of a text, beginning first."""
        known: Mapping[str, int] = self._ids  # type: ignore[attr-defined]
        ids = [1]
        for piece in _pieces(text):
            spelled = [2 + byte for byte in f" {piece}".encode()]
            ids += [known[piece]] if piece in known else spelled
        return ids

    def special(self, index: int) -> int:
        """Id of special token `index`, counted from the top of the vocabulary."""
        if not 0 <= index < self.specials:
            raise TextTokenError(f"special token {index} of a vocabulary with {self.specials}")
        return self.size - 1 - index

    def to_json(self) -> dict[str, Any]:
        """Plain values for a checkpoint."""
        return {"kind": "words", "words": list(self.words), "size": self.size, "specials": self.specials}


class PaliGemmaTokenizer:
    """PaliGemma's SentencePiece vocabulary from its own file, 257152 ids.

    Special tokens are the last ids before the 128 segmentation tokens, counted down, as openpi places FAST tokens.

    Args:
        file: `tokenizer.json` (read by tokenizers) or `tokenizer.model` (read by sentencepiece) of
            google/paligemma-3b-pt-224.

    Raises:
        TextTokenError: no such file, another kind of file, or its reader is not installed.

    """

    vocabulary = 257152
    _BEGIN = 2
    _RESERVED_TOP = 128

    def __init__(self, file: Path) -> None:
        if not file.is_file():
            raise TextTokenError(f"no tokenizer file {file}; give PaliGemma's tokenizer.json or tokenizer.model")
        self.file = file
        self._encode = _reader(file)

    def encode(self, text: str) -> list[int]:
        """Ids of a text, beginning first."""
        ids = [self._BEGIN, *self._encode(text)]
        if max(ids) >= self.vocabulary:
            raise TextTokenError(f"{self.file} gives id {max(ids)}; PaliGemma has {self.vocabulary}")
        return ids

    def special(self, index: int) -> int:
        """Id of special token `index`; at most 4096 of them."""
        if not 0 <= index < 4096:
            raise TextTokenError(f"special token {index}; allowed is 0 to 4095")
        return self.vocabulary - 1 - self._RESERVED_TOP - index

    def to_json(self) -> dict[str, Any]:
        """Plain values for a checkpoint; the file itself is not part of it."""
        return {"kind": "paligemma", "fingerprint": self.fingerprint}

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the ids of a fixed text: the same for the `.json` and the `.model` of one vocabulary."""
        return hashlib.sha256(repr(self.encode(_PROBE)).encode()).hexdigest()


def tokenizer_from_json(data: Mapping[str, Any], file: Path | None = None) -> TextTokenizer:
    """Tokenizer that a checkpoint names; PaliGemma's needs its file.

    Raises:
        TextTokenError: unknown kind, no file, or a file other than the checkpoint was trained with.

    """
    if data.get("kind") == "words":
        return WordTokenizer(tuple(data["words"]), int(data["size"]), int(data["specials"]))
    if data.get("kind") != "paligemma":
        raise TextTokenError(f"tokenizer kind is {data.get('kind')!r}; allowed are words, paligemma")
    if file is None:
        raise TextTokenError("this checkpoint uses PaliGemma's tokenizer; give its tokenizer.json or tokenizer.model")
    tokenizer = PaliGemmaTokenizer(file)
    if tokenizer.fingerprint != data["fingerprint"]:
        raise TextTokenError(
            f"{file} has fingerprint {tokenizer.fingerprint}; the checkpoint was trained with {data['fingerprint']}"
        )
    return tokenizer


@dataclass(frozen=True)
class Prompt:
    """Text that the model reads, and its length in tokens.

    Without proprioception `instruction + newline` (pi0); with it, as in pi0.5,
    `Task: instruction, State: 12 255 ...;` newline `Action: `, each number a bin of the normalised value.

    Args:
        tokenizer: text to ids.
        max_tokens: length L that prompts are padded to.
        proprioception: true writes the proprioception into the text.
        bins: of the proprioception over [-1, 1].
        digits: that each bin is written with, zeros first: a tokenizer that drops the space between two numbers could
            not tell `1 22` from `12 2`. 0: as many as it has, as in pi0.5.

    """

    tokenizer: TextTokenizer
    max_tokens: int
    proprioception: bool = False
    bins: int = 256
    digits: int = 0

    def text(self, instruction: str, proprioception: FloatArray) -> str:
        """Prompt for an instruction and a normalised proprioception `(P,)`."""
        cleaned = " ".join(instruction.replace("_", " ").split())
        if not self.proprioception:
            return f"{cleaned}\n"
        bins = np.clip((proprioception + 1.0) / 2.0 * self.bins, 0, self.bins - 1).astype(int)
        return f"Task: {cleaned}, State: {' '.join(f'{b:0{self.digits}d}' for b in bins)};\nAction: "

    def encode(self, instruction: str, proprioception: FloatArray) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Ids `(L,)` padded with 0, and the mask `(L,)` that is true on real tokens.

        Raises:
            TextTokenError: the prompt does not fit into `max_tokens`, or the instruction has over 4096 characters.

        """
        if len(instruction) > MAX_CHARACTERS:
            raise TextTokenError(f"instruction of {len(instruction)} characters; allowed are {MAX_CHARACTERS}")
        ids = self.tokenizer.encode(self.text(instruction, proprioception))
        if len(ids) > self.max_tokens:
            raise TextTokenError(
                f"instruction {instruction[:60]!r} makes a prompt of {len(ids)} tokens; the model takes "
                f"{self.max_tokens}. Shorten it, or train with a larger max_text_tokens"
            )
        tokens = np.zeros(self.max_tokens, np.int64)
        tokens[: len(ids)] = ids
        return tokens, np.arange(self.max_tokens) < len(ids)


def _pieces(text: str) -> list[str]:
    return re.findall(r"[^\W\d_]+|\d|[^\w\s]|_", text.lower())


def _reader(file: Path) -> Callable[[str], list[int]]:
    if file.suffix == ".json":
        from tokenizers import Tokenizer

        fast = Tokenizer.from_file(str(file))
        return lambda text: list(fast.encode(text, add_special_tokens=False).ids)
    if file.suffix == ".model":
        try:
            from sentencepiece import SentencePieceProcessor
        except ImportError:
            raise TextTokenError(f"{file} needs sentencepiece; install it, or give tokenizer.json instead") from None
        piece = SentencePieceProcessor(model_file=str(file))
        return lambda text: list(piece.encode(text))
    raise TextTokenError(f"{file}: give PaliGemma's tokenizer.json or tokenizer.model")
