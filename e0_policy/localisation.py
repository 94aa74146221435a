"""Where things are, read from a policy's image tokens by heads that are thrown away.

A linear head on each kind of token (the grid, the key points, the flat token) makes each of them tell positions by
itself, so that whatever the policy attends to tells them; a small joint head sees the last two of all views.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import smooth_l1_loss

from e0_policy.augmentation import augment, draw_augmentation, homographies
from e0_policy.model import E0Model
from e0_policy.train_config import TrainConfig

_BEND = 0.1
"""Where the loss turns from squared to absolute, in standard deviations of a target: a wrist view that does not see
a thing must not outweigh the millimetres of those that do."""
_HIDDEN = 256


@dataclass(frozen=True)
class Located:
    """Normalised targets: `views` `(B, V, 3, targets)` by kind of token, `joint` `(B, targets)`."""

    views: Tensor
    joint: Tensor


class Localiser(nn.Module):
    """A model's image tokens and the heads on them.

    Args:
        model: whose encoder and projector learn.
        targets: how many numbers are read.

    Raises:
        ValueError: the encoder has no key points.

    """

    def __init__(self, model: E0Model, targets: int) -> None:
        super().__init__()
        if model.config.vision != "conv":
            raise ValueError(f"model.vision is {model.config.vision!r}; only conv has tokens of key points to read")
        self._tokens = model.image_tokens
        width, views = model.config.width, len(model.config.views)
        grid = (model.config.image_size // model.config.patch_size) ** 2
        self.heads = nn.ModuleList(
            nn.ModuleList([nn.Linear(grid * width, targets), nn.Linear(width, targets), nn.Linear(width, targets)])
            for _ in range(views)
        )
        self.hidden, self.out = nn.Linear(2 * views * width, _HIDDEN), nn.Linear(_HIDDEN, targets)

    def forward(self, images: Tensor, seen: Tensor) -> Located:
        """Locate in `(B, V, 3, S, S)` images; the joint head is blind to views that are not `seen` `(B, V)`."""
        still = torch.zeros(len(images), 3, device=images.device)
        views, both = [], []
        for view, heads in enumerate(self.heads):
            tokens = self._tokens(images[:, view], still, view)
            grid, points, flat = tokens[:, :-2].flatten(1), tokens[:, -2], tokens[:, -1]
            views.append(torch.stack([head(x) for head, x in zip(heads, (grid, points, flat), strict=True)], 1))  # type: ignore[call-overload]
            both.append(torch.cat([points, flat], 1) * seen[:, view, None])
        joint = self.out(nn.functional.silu(self.hidden(torch.cat(both, 1))))
        return Located(torch.stack(views, 1).float(), joint.float())


def location_loss(located: Located, targets: Tensor) -> Tensor:
    """Mean over kinds and views, plus the joint head's; `targets` `(B, targets)` normalised."""
    views = targets[:, None, None].expand_as(located.views)
    return smooth_l1_loss(located.views, views, beta=_BEND) + smooth_l1_loss(located.joint, targets, beta=_BEND)


def jittered(images: Tensor, config: TrainConfig, generator: torch.Generator) -> Tensor:
    """Images with random colours, where the configuration augments; the geometry is what is learnt, and stays."""
    draw = draw_augmentation(config.augmentation, config.model.views, len(images), generator)
    if not config.augment:
        return images
    maps = homographies(draw, config.cameras, config.model.views, config.model.image_size)
    return augment(images, draw, torch.eye(3, dtype=maps.dtype).expand_as(maps))
