"""From an observation to the model's inputs, and from tokens to action rows: the same objects in training and in use.

An action transform has both directions, so that training and inference cannot drift apart:
`inverse(forward(rows, proprioception), proprioception) == rows`. Nothing is changed in place.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from e0_policy.action_tokenizer import ActionTokenizer, TokenArray
from e0_policy.normalization import Normalizer
from e0_policy.text_tokenizer import Prompt, tokenizer_from_json
from e0_policy.types import FloatArray, ImageArray

BoolArray = NDArray[np.bool_]


class TransformError(ValueError):
    """An observation or a chunk does not fit the policy; the message says what was got and what is needed."""


class ActionTransform(Protocol):
    """A step between absolute action rows `(..., rows, columns)` and what the model predicts.

    The proprioception `(..., P)` has the same leading axes: none, or those of a batch.
    """

    def forward(self, rows: FloatArray, proprioception: FloatArray) -> FloatArray:
        """Towards the model."""

    def inverse(self, rows: FloatArray, proprioception: FloatArray) -> FloatArray:
        """Towards the robot."""


@dataclass(frozen=True)
class DeltaActions:
    """Columns relative to the proprioception at the chunk's start; the others (the gripper) stay absolute.

    Every row is relative to the same observation, so errors do not add up along the chunk.

    Args:
        relative: per column, true if it is relative. Column i is relative to proprioception i.

    """

    relative: tuple[bool, ...]

    def forward(self, rows: FloatArray, proprioception: FloatArray) -> FloatArray:
        """Subtract the proprioception from the relative columns."""
        return rows - self._reference(rows, proprioception)

    def inverse(self, rows: FloatArray, proprioception: FloatArray) -> FloatArray:
        """Add it."""
        return rows + self._reference(rows, proprioception)

    def _reference(self, rows: FloatArray, proprioception: FloatArray) -> FloatArray:
        columns = len(self.relative)
        if rows.shape[-1] != columns or proprioception.shape[-1:] != (columns,):
            raise TransformError(
                f"rows {rows.shape} and proprioception {proprioception.shape}; delta actions need {columns} columns"
            )
        return np.where(self.relative, proprioception, 0.0)[..., None, :]


@dataclass(frozen=True)
class NormalizeActions:
    """Normalise rows to [-1, 1]; statistics per dimension, or per (row, dimension) of the chunk."""

    normalizer: Normalizer

    def forward(self, rows: FloatArray, proprioception: FloatArray) -> FloatArray:
        """Normalise, unclipped."""
        return self.normalizer.normalize(rows)

    def inverse(self, rows: FloatArray, proprioception: FloatArray) -> FloatArray:
        """Back to physical units."""
        return self.normalizer.denormalize(rows)


@dataclass(frozen=True)
class PadActions:
    """Zero columns behind the real ones, for a model with more action dimensions than the arm has columns."""

    real: int
    padded: int

    def __post_init__(self) -> None:
        if not 1 <= self.real <= self.padded:
            raise TransformError(f"{self.real} action columns for a model with {self.padded} action dimensions")

    def forward(self, rows: FloatArray, proprioception: FloatArray) -> FloatArray:
        """Add the columns."""
        if rows.shape[-1] != self.real:
            raise TransformError(f"rows have shape {rows.shape}; {self.real} columns are needed")
        return np.pad(rows, [(0, 0)] * (rows.ndim - 1) + [(0, self.padded - self.real)])

    def inverse(self, rows: FloatArray, proprioception: FloatArray) -> FloatArray:
        """Drop them."""
        return rows[..., : self.real]


@dataclass(frozen=True)
class ModelInput:
    """An observation as the model takes it; arrays as in `e0_policy.batch.Batch`, for one sample or with an axis B.

    `images` `(V, S, S, 3)` uint8 with zeros for a missing view, `view_mask` `(V,)`, `text_tokens` and `text_mask`
    `(L,)`, `proprio` `(P,)` normalised.
    """

    images: ImageArray
    view_mask: BoolArray
    text_tokens: TokenArray
    text_mask: BoolArray
    proprio: FloatArray


@dataclass(frozen=True)
class Targets:
    """Action tokens `(H, D)`, the mask `(H, D)` of those that are real, and how many real values were clipped.

    A batch has an axis B in front, and one count.
    """

    tokens: TokenArray
    mask: BoolArray
    clipped: int


@dataclass(frozen=True)
class PolicyTransform:
    """Everything between the robot's units and the model's, both ways; part of every checkpoint.

    Args:
        views: camera names in the model's order.
        image_size: side S of the model's images in px.
        prompt: text side.
        proprioception: normaliser of joint positions and gripper opening `(P,)`.
        proprio_dim: P of the model; the rest is zero padding.
        actions: normaliser of (relative) action rows, `(D,)` or `(H, D)`.
        relative: columns that are predicted relative to the proprioception.
        action_dim: D of the model; columns behind the real ones are padding.
        prediction_horizon: rows H of a chunk.
        tokenizer: bins.

    """

    views: tuple[str, ...]
    image_size: int
    prompt: Prompt
    proprioception: Normalizer
    proprio_dim: int
    actions: Normalizer
    relative: tuple[bool, ...]
    action_dim: int
    prediction_horizon: int
    tokenizer: ActionTokenizer

    def __post_init__(self) -> None:
        columns, rows = self.actions.low.shape[-1], self.actions.low.shape[:-1]
        if len(self.relative) != columns or rows not in ((), (self.prediction_horizon,)):
            raise TransformError(
                f"{len(self.relative)} relative flags and horizon {self.prediction_horizon} for action statistics of "
                f"shape {self.actions.low.shape}"
            )
        if self.proprioception.low.ndim != 1 or self.proprioception.low.size > self.proprio_dim:
            raise TransformError(
                f"proprioception statistics of shape {self.proprioception.low.shape} for a model that takes "
                f"{self.proprio_dim} numbers"
            )
        PadActions(columns, self.action_dim)

    @property
    def columns(self) -> int:
        """Real action columns."""
        return len(self.relative)

    @property
    def steps(self) -> tuple[ActionTransform, ...]:
        """Action transforms, in the order towards the model."""
        own = NormalizeActions(self.actions), PadActions(self.columns, self.action_dim)
        return (DeltaActions(self.relative), *own) if any(self.relative) else own

    def inputs(self, views: Mapping[str, ImageArray], proprioception: FloatArray, instruction: str) -> ModelInput:
        """Model inputs of one observation. A view that is absent from `views` is masked, at least one must be there.

        Args:
            views: `uint8 (height, width, 3)` RGB by name; names that the model does not know are left out.
            proprioception: `(P,)` joint positions [rad] and gripper opening.
            instruction: what to do.

        Raises:
            TransformError: no known view, or an image of another shape or dtype.
            NormalizationError: proprioception of another length or not finite.
            TextTokenError: the instruction is too long.

        """
        present = np.array([name in views for name in self.views])
        if not present.any():
            raise TransformError(f"views are {', '.join(views) or 'none'}; the model needs {', '.join(self.views)}")
        blank = np.zeros((self.image_size, self.image_size, 3), np.uint8)
        images = [resize_with_pad(views[n], self.image_size, n) if n in views else blank for n in self.views]
        batch = self.batch_inputs(np.stack(images)[None], present[None], proprioception[None], [instruction])
        return ModelInput(batch.images[0], present, batch.text_tokens[0], batch.text_mask[0], batch.proprio[0])

    def batch_inputs(
        self, images: ImageArray, present: BoolArray, proprioception: FloatArray, instructions: Sequence[str]
    ) -> ModelInput:
        """Model inputs of B observations, every array with a leading axis B.

        Args:
            images: `(B, V, S, S, 3)` at the model's size.
            present: `(B, V)`, false where a view is missing.
            proprioception: `(B, P)`.
            instructions: B texts.

        Raises:
            NormalizationError: proprioception of another length or not finite.
            TextTokenError: an instruction is too long.

        """
        normalised = self.proprioception.normalize(proprioception)
        if self.prompt.proprioception:
            prompts = [self.prompt.encode(i, p) for i, p in zip(instructions, normalised, strict=True)]
        else:
            encoded = {text: self.prompt.encode(text, normalised[0]) for text in dict.fromkeys(instructions)}
            prompts = [encoded[text] for text in instructions]
        tokens, masks = (np.stack(part) for part in zip(*prompts, strict=True))
        padded = np.pad(normalised, ((0, 0), (0, self.proprio_dim - normalised.shape[1])))
        return ModelInput(images, present, tokens, masks, padded)

    def targets(self, rows: FloatArray, proprioception: FloatArray, valid: BoolArray | None = None) -> Targets:
        """Tokens of absolute rows `(..., rows, columns)`; rows that are not `valid` `(..., rows)` are masked.

        Rows missing to the horizon are masked too, and hold the last row: the denoiser sees what would be commanded.
        The proprioception is `(..., P)`.

        Raises:
            TransformError: more rows than the horizon, or another number of columns.
            NormalizationError: a number is not finite.

        """
        rows = np.asarray(rows, np.float64)
        horizon = self.prediction_horizon
        if rows.ndim < 2 or not 1 <= rows.shape[-2] <= horizon or rows.shape[-1] != self.columns:
            raise TransformError(f"rows have shape {rows.shape}; allowed is (1..{horizon}, {self.columns})")
        count = rows.shape[-2]
        real = np.zeros((*rows.shape[:-2], horizon), bool)
        real[..., :count] = True if valid is None else valid
        values = np.concatenate([rows, np.repeat(rows[..., -1:, :], horizon - count, -2)], -2)
        for step in self.steps:
            values = step.forward(values, proprioception)
        mask = real[..., None] & (np.arange(self.action_dim) < self.columns)
        return Targets(self.tokenizer.encode(values).tokens, mask, self.tokenizer.encode(values, mask).clipped)

    def rows(self, tokens: TokenArray, proprioception: FloatArray) -> FloatArray:
        """Absolute rows `(H, columns)` of tokens `(H, D)`; inverse of `targets` up to half a bin.

        Raises:
            TransformError: wrong shape.
            ActionTokenError: a token outside the vocabulary.

        """
        if tokens.shape != (self.prediction_horizon, self.action_dim):
            raise TransformError(f"tokens {tokens.shape}; needed is {(self.prediction_horizon, self.action_dim)}")
        return self.physical(self.tokenizer.decode(tokens), proprioception)

    def physical(self, values: FloatArray, proprioception: FloatArray) -> FloatArray:
        """Absolute rows `(H, columns)` of normalised values `(H, D)`, as an expectation over bins gives."""
        for step in reversed(self.steps):
            values = step.inverse(values, proprioception)
        return values

    def to_json(self) -> dict[str, Any]:
        """Plain values for a checkpoint."""
        return {
            "views": list(self.views),
            "image_size": self.image_size,
            "text": self.prompt.tokenizer.to_json(),
            "max_tokens": self.prompt.max_tokens,
            "proprioception_in_text": self.prompt.proprioception,
            "proprioception_bins": self.prompt.bins,
            "proprioception_digits": self.prompt.digits,
            "proprioception": self.proprioception.to_json(),
            "proprio_dim": self.proprio_dim,
            "actions": self.actions.to_json(),
            "relative": list(self.relative),
            "action_dim": self.action_dim,
            "prediction_horizon": self.prediction_horizon,
            "bins": self.tokenizer.bins,
            "decode_at": self.tokenizer.decode_at,
        }

    @staticmethod
    def from_json(data: Mapping[str, Any], text_file: Path | None = None) -> PolicyTransform:
        """Read what `to_json` wrote; `text_file` is PaliGemma's tokenizer file where that is used.

        Raises:
            TransformError: a key is missing.
            TextTokenError: the tokenizer's file is missing or another one.

        """
        try:
            tokenizer = tokenizer_from_json(data["text"], text_file)
            written = data["proprioception_in_text"], data["proprioception_bins"], data.get("proprioception_digits", 0)
            prompt = Prompt(tokenizer, data["max_tokens"], *written)
            return PolicyTransform(
                views=tuple(data["views"]),
                image_size=data["image_size"],
                prompt=prompt,
                proprioception=Normalizer.from_json(data["proprioception"]),
                proprio_dim=data["proprio_dim"],
                actions=Normalizer.from_json(data["actions"]),
                relative=tuple(data["relative"]),
                action_dim=data["action_dim"],
                prediction_horizon=data["prediction_horizon"],
                tokenizer=ActionTokenizer(data["bins"], data["decode_at"]),
            )
        except KeyError as error:
            raise TransformError(f"the policy's transform lacks {error}") from None


def resize_with_pad(image: ImageArray, side: int, name: str = "image") -> ImageArray:
    """Scale `uint8 (height, width, 3)` into a square of `side` px, aspect kept, black borders centred.

    Antialiased bilinear (triangle filter), as `torch.nn.functional.interpolate(antialias=True)`.

    Raises:
        TransformError: another shape or dtype; the message names the view.

    """
    if image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape or image.dtype != np.uint8:
        raise TransformError(f"view {name!r} is {image.dtype} {image.shape}; needed is uint8 (height, width, 3)")
    height, width = image.shape[:2]
    if (height, width) == (side, side):
        return image
    scale = side / max(height, width)
    inner = max(1, round(height * scale)), max(1, round(width * scale))
    scaled = _scale_rows(image.astype(np.float32), inner[0])
    scaled = _scale_rows(scaled.swapaxes(0, 1), inner[1]).swapaxes(0, 1)
    top, left = (side - inner[0]) // 2, (side - inner[1]) // 2
    out = np.zeros((side, side, 3), np.uint8)
    out[top : top + inner[0], left : left + inner[1]] = np.clip(np.rint(scaled), 0, 255)
    return out


def _scale_rows(image: NDArray[np.float32], size: int) -> NDArray[np.float32]:
    index, weight = _taps(image.shape[0], size)
    out = np.zeros((size, *image.shape[1:]), np.float32)
    for tap in range(index.shape[1]):
        out += weight[:, tap, None, None] * image[index[:, tap]]
    return out


@lru_cache(maxsize=64)
def _taps(source: int, size: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Indices and weights `(size, taps)` of a triangle filter as wide as one output pixel, at least one input pixel."""
    scale = source / size
    radius = max(scale, 1.0)
    centre = (np.arange(size) + 0.5) * scale
    first = np.floor(centre - radius).astype(np.int64)
    index = first[:, None] + np.arange(int(np.ceil(2 * radius)) + 2)
    weight = np.maximum(0.0, 1.0 - np.abs((index + 0.5 - centre[:, None]) / radius))
    weight[(index < 0) | (index >= source)] = 0.0
    weight /= weight.sum(1, keepdims=True)
    return np.clip(index, 0, source - 1), weight.astype(np.float32)
