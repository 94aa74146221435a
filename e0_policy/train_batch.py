"""What one training step sees: batches of samples, perturbed at random by generators that are functions of the step."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from e0_policy.augmentation import augment, draw_augmentation, homographies
from e0_policy.batch import Batch
from e0_policy.collate import as_batch, on_device
from e0_policy.diffusion import counted, draw_committed
from e0_policy.distributed import Workers
from e0_policy.insulation import ActionWriting
from e0_policy.train_config import TrainConfig
from e0_policy.transforms import ModelInput, PolicyTransform, Targets

Samples = tuple[Batch, "tuple[Tensor, Tensor] | None"]


@dataclass
class Collator:
    """Samples to a batch on the CPU, in the process that reads them."""

    transform: PolicyTransform
    writing: ActionWriting | None

    def __call__(self, samples: tuple[ModelInput, Targets]) -> Samples:
        """A batch, and the second writing of its actions."""
        inputs, targets = samples
        if self.writing is None:
            return as_batch(inputs, targets), None
        chunks = self.transform.tokenizer.decode(targets.tokens)[..., : self.transform.columns]
        real = targets.mask[..., 0].sum(-1)  # rows behind an episode's end are held ones: nothing to write
        return as_batch(inputs, targets), self.writing.write([c[:n] for c, n in zip(chunks, real, strict=True)])


def step_generator(device: torch.device | str, *key: int) -> torch.Generator:
    """A generator whose stream is a function of the key: seed, step, micro-batch over all processes, purpose."""
    words = np.random.SeedSequence(key).generate_state(2, np.uint32)
    return torch.Generator(device).manual_seed(int(words[0]) << 31 ^ int(words[1]))


@dataclass(frozen=True)
class MicroBatch:
    """Perturbed samples on the device, and the key of their step's random numbers."""

    samples: Samples
    key: tuple[int, int, int]


def micro_batches(samples: Samples, config: TrainConfig, step: int, workers: Workers) -> list[MicroBatch]:
    """The samples of this process in one step, as they go through the network."""
    whole, written = samples
    size, device = config.micro_batch or whole.size, workers.device
    made = []
    for index in range(whole.size // size):
        part, place = slice(index * size, (index + 1) * size), workers.rank * (whole.size // size) + index
        batch = on_device(Batch(**{name: value[part] for name, value in vars(whole).items()}), device)
        batch = perturb(batch, config, step_generator("cpu", config.seed, step, place, 0))
        second = None if written is None else (written[0][part].to(device), written[1][part].to(device))
        made.append(MicroBatch((batch, second), (config.seed, step, place)))
    return made


def counted_tokens(samples: Samples) -> Tensor:
    """How many tokens count in the losses `(2,)`: of the actions, and of their second writing (not its first)."""
    batch, written = samples
    actions = counted(batch.action_mask, batch.committed).sum()
    return torch.stack([actions, actions if written is None else written[1][:, 1:].sum()])


def perturb(batch: Batch, config: TrainConfig, generator: torch.Generator) -> Batch:
    """Augmented images with their offsets, dropped views and random clean prefixes; the batch is on its device."""
    model, device = config.model, batch.images.device
    draw = draw_augmentation(config.augmentation, model.views, batch.size, generator)
    keep = torch.rand(batch.view_mask.shape, generator=generator) >= config.view_dropout
    committed = draw_committed(batch.size, model.committed_max, generator)
    mask = batch.view_mask & keep.to(device)
    mask = torch.where(mask.any(1, keepdim=True), mask, batch.view_mask)
    changed = replace(batch, view_mask=mask, committed=committed.to(device))
    if config.augment:
        maps = homographies(draw, config.cameras, model.views, model.image_size)
        warped, offset = augment(batch.images, draw, maps), draw.offset.float().to(device)
        changed = replace(changed, images=warped, view_offset=offset)
    return changed if model.mask_absent_views else _black(changed)


def _black(batch: Batch) -> Batch:
    """Absent views as a model sees them that does not mask them: black, and in their own place."""
    absent = ~batch.view_mask[..., None]
    images = batch.images.masked_fill(absent[..., None, None], -1.0)
    return replace(batch, images=images, view_offset=batch.view_offset.masked_fill(absent, 0.0))
