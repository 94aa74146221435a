"""Model inputs of several observations as one batch. Images stay uint8 until they are on the device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from e0_policy.batch import Batch
from e0_policy.transforms import ModelInput, Targets


def stack(inputs: Sequence[ModelInput], targets: Sequence[Targets]) -> Batch:
    """One batch on the CPU with `images` still uint8; `on_device` makes it ready for the model.

    Text is cut to the longest prompt of the batch, which leaves out padding and nothing else.

    Args:
        inputs: B observations.
        targets: B chunks; at inference the plan in force, masked where there is none.

    """
    images = np.stack([i.images for i in inputs]).transpose(0, 1, 4, 2, 3)
    text_mask = np.stack([i.text_mask for i in inputs])
    longest = max(1, int(text_mask.sum(1).max()))
    return Batch(
        images=torch.from_numpy(np.ascontiguousarray(images)),
        view_mask=torch.from_numpy(np.stack([i.view_mask for i in inputs])),
        view_offset=torch.zeros(len(inputs), images.shape[1], 3),
        text_tokens=torch.from_numpy(np.stack([i.text_tokens[:longest] for i in inputs])),
        text_mask=torch.from_numpy(np.ascontiguousarray(text_mask[:, :longest])),
        proprio=torch.from_numpy(np.stack([i.proprio for i in inputs])).float(),
        action_tokens=torch.from_numpy(np.stack([t.tokens for t in targets])),
        action_mask=torch.from_numpy(np.stack([t.mask for t in targets])),
        committed=torch.zeros(len(inputs), dtype=torch.long),
    )


def on_device(batch: Batch, device: torch.device | str) -> Batch:
    """The batch on a device, images as float in [-1, 1]."""
    moved = batch.to(device)
    return replace(moved, images=to_unit(moved.images))


def to_unit(images: Tensor) -> Tensor:
    """Bytes to float32 in [-1, 1], a new tensor; in training and in both engines."""
    return images.to(torch.float32, copy=True).div_(127.5).sub_(1.0)
