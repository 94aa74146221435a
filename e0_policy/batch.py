"""The one value that the model takes: a batch of observations, with action tokens when there are any.

Shape letters, here and in every docstring of the model: `B` batch, `V` views, `S` image side in px, `L` text tokens,
`P` proprioception, `H` rows of a chunk (prediction horizon), `D` action dimensions, `K` bins, `W` width of the
backbone, `E` width of the expert, `T` tokens in general.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor


@dataclass
class Batch:
    """Observations and, in training, the action tokens to predict.

    Attributes:
        images: `(B, V, 3, S, S)` float in [-1, 1], views in the order of `E0Config.views`.
        view_mask: `(B, V)` bool, False where a view is missing: it is then neither encoded nor attended.
        view_offset: `(B, V, 3)` float, `(d, theta, phi)` of the relative spherical embedding (eq. 9, 18): radial
            displacement [m], yaw and pitch [rad]; zeros for a camera in its own place.
        text_tokens: `(B, L)` int64.
        text_mask: `(B, L)` bool, False on padding, which is at the end.
        proprio: `(B, P)` float, normalised to [-1, 1].
        action_tokens: `(B, H, D)` int64 in `[0, K)`: targets in training, the clean committed rows at inference.
        action_mask: `(B, H, D)` bool, the rows and dimensions that count in the loss.
        committed: `(B,)` int64 in `[0, H)`, the number of clean rows at the head of the chunk, 0 = none.

    """

    images: Tensor
    view_mask: Tensor
    view_offset: Tensor
    text_tokens: Tensor
    text_mask: Tensor
    proprio: Tensor
    action_tokens: Tensor
    action_mask: Tensor
    committed: Tensor

    @property
    def size(self) -> int:
        """Number of observations `B`."""
        return self.images.shape[0]

    def to(self, device: torch.device | str) -> Batch:
        """The same batch on another device."""
        return Batch(**{f.name: getattr(self, f.name).to(device, non_blocking=True) for f in fields(self)})

    def repeat(self, times: int) -> Batch:
        """Every observation `times` times in a row: `(B * times, ...)`."""
        return Batch(**{f.name: getattr(self, f.name).repeat_interleave(times, 0) for f in fields(self)})
