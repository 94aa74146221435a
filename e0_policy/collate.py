"""Model inputs of several observations as one batch. Images stay uint8 until they are on the device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace

import numpy as np
import torch
from torch import Tensor

from e0_policy.batch import Batch
from e0_policy.transforms import ModelInput, Targets


def stack(inputs: Sequence[ModelInput], targets: Sequence[Targets]) -> Batch:
    """One batch of B observations and chunks; at inference these are plans in force, masked where there is none."""
    joined = {f.name: np.stack([getattr(i, f.name) for i in inputs]) for f in fields(ModelInput)}
    tokens, masks = np.stack([t.tokens for t in targets]), np.stack([t.mask for t in targets])
    return as_batch(ModelInput(**joined), Targets(tokens, masks, sum(t.clipped for t in targets)))


def as_batch(inputs: ModelInput, targets: Targets) -> Batch:
    """One batch on the CPU with `images` still uint8; `on_device` makes it ready for the model.

    Text is cut to the longest prompt of the batch, which leaves out padding and nothing else.

    Args:
        inputs: of B observations, with a leading axis B.
        targets: of B chunks, with a leading axis B.

    """
    longest = max(1, int(inputs.text_mask.sum(1).max()))
    count, views = inputs.view_mask.shape
    return Batch(
        images=torch.from_numpy(np.ascontiguousarray(inputs.images.transpose(0, 1, 4, 2, 3))),
        view_mask=torch.from_numpy(inputs.view_mask),
        view_offset=torch.zeros(count, views, 3),
        text_tokens=torch.from_numpy(np.ascontiguousarray(inputs.text_tokens[:, :longest])),
        text_mask=torch.from_numpy(np.ascontiguousarray(inputs.text_mask[:, :longest])),
        proprio=torch.from_numpy(inputs.proprio).float(),
        action_tokens=torch.from_numpy(targets.tokens),
        action_mask=torch.from_numpy(targets.mask),
        committed=torch.zeros(count, dtype=torch.long),
    )


def on_device(batch: Batch, device: torch.device | str) -> Batch:
    """The batch on a device, images as float in [-1, 1]."""
    moved = batch.to(device)
    return replace(moved, images=to_unit(moved.images))


def to_unit(images: Tensor) -> Tensor:
    """Bytes to float32 in [-1, 1], a new tensor; in training and in both engines."""
    return images.to(torch.float32, copy=True).div_(127.5).sub_(1.0)
