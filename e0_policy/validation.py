"""Open-loop error on held-out demonstrations: what the policy would command, against what was commanded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np
import torch

from e0_policy.collate import as_batch, on_device
from e0_policy.dataset import ChunkDataset
from e0_policy.diffusion import SamplerSettings, draw_noise
from e0_policy.kinematics import tcp_position_m
from e0_policy.model import E0Model
from e0_policy.train_setup import GRIPPER
from e0_policy.types import FloatArray, Representation

FRANKA = ("panda", "fr3")


@dataclass(frozen=True)
class OpenLoop:
    """Means over the samples' real rows; None where the actions have no such quantity.

    `loss` is the cross-entropy in nats at random times, `joint_rad` the mean absolute joint error, `gripper` the mean
    absolute error of the opening, `tcp_m` the mean distance of the tool (joint actions of a Franka arm).
    """

    samples: int
    loss: float
    accuracy: float
    joint_rad: float | None
    gripper: float | None
    tcp_m: float | None

    @property
    def figures(self) -> dict[str, float]:
        """What there is, by name."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    def __str__(self) -> str:
        units = {"joint_rad": " rad", "tcp_m": " m"}
        return "  ".join(f"{name} {value:.4g}{units.get(name, '')}" for name, value in self.figures.items())


@torch.no_grad()
def open_loop(
    model: E0Model,
    dataset: ChunkDataset,
    indices: Sequence[int],
    device: torch.device,
    *,
    settings: SamplerSettings | None = None,
    batch_size: int = 32,
    seed: int = 0,
) -> OpenLoop:
    """Sample a chunk for each index and compare; a function of its arguments (noise comes from `seed`)."""
    settings = settings or SamplerSettings.of(model.config)
    generator = torch.Generator(device).manual_seed(seed)
    losses, right, predicted, wanted = [], [], [], []
    for start in range(0, len(indices), batch_size):
        part = indices[start : start + batch_size]
        batch = on_device(as_batch(*dataset.batch(part)), device)
        loss = model.loss(batch, generator)
        losses.append(float(loss.cross_entropy) * len(part))
        right.append(float(loss.accuracy) * len(part))
        noise = draw_noise(model.config, settings, len(part) * settings.samples, generator)
        unplanned = replace(batch, action_mask=torch.zeros_like(batch.action_mask))  # the targets are no plan in force
        values = model.sample(unplanned, settings, noise).values(dataset.transform.tokenizer)
        for index, chunk in zip(part, values, strict=True):
            proprioception, rows = dataset.numbers(index)
            wanted.append(rows)
            predicted.append(dataset.transform.physical(chunk, proprioception)[: len(rows)])
    count = len(indices)
    errors = _errors(dataset, np.concatenate(predicted), np.concatenate(wanted))
    return OpenLoop(count, sum(losses) / count, sum(right) / count, *errors)


def _errors(
    dataset: ChunkDataset, predicted: FloatArray, wanted: FloatArray
) -> tuple[float | None, float | None, float | None]:
    names = dataset.source.action_names
    joints = np.array([name != GRIPPER for name in names])
    absolute = dataset.source.representation is Representation.JOINT_POSITION
    arm = absolute and dataset.source.embodiment in FRANKA and joints.sum() == 7
    error = np.abs(predicted - wanted)
    gripper = float(error[:, ~joints].mean()) if not joints.all() else None
    if not arm:
        return None, gripper, None
    apart = np.linalg.norm(tcp_position_m(predicted[:, joints]) - tcp_position_m(wanted[:, joints]), axis=-1)
    return float(error[:, joints].mean()), gripper, float(apart.mean())
