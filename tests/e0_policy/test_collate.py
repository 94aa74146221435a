from __future__ import annotations

import numpy as np
import torch

from e0_policy.collate import on_device, stack
from e0_policy.transforms import ModelInput, Targets


def test_samples_become_a_batch_with_images_in_minus_one_to_one():
    rng = np.random.default_rng(0)
    inputs = [
        ModelInput(
            images=rng.integers(0, 256, (2, 8, 8, 3), np.uint8),
            view_mask=np.array([True, i == 0]),
            text_tokens=np.arange(5),
            text_mask=np.arange(5) < 2 + (i == 1),
            proprio=np.array([0.1, 0.2, i]),
        )
        for i in range(3)
    ]
    targets = [Targets(np.full((4, 2), i), np.ones((4, 2), bool), 0) for i in range(3)]
    batch = on_device(stack(inputs, targets), "cpu")
    assert batch.images.shape == (3, 2, 3, 8, 8) and batch.images.dtype == torch.float32
    assert batch.images[1, 0, 2, 3, 4].item() == np.float32(inputs[1].images[0, 3, 4, 2] / 127.5 - 1)
    assert batch.images.min() >= -1 and batch.images.max() <= 1
    assert batch.view_mask.tolist() == [[True, True], [True, False], [True, False]]
    assert batch.text_tokens.tolist() == [[0, 1, 2]] * 3 and batch.text_mask.sum(1).tolist() == [2, 3, 2]
    assert batch.proprio.dtype == torch.float32 and batch.action_tokens[2].unique().tolist() == [2]
    assert (batch.view_offset == 0).all() and (batch.committed == 0).all()
