"""A second loss while a policy is trained: to locate things in random scenes, beside predicting actions.

Demonstrations show few places; scenes keep the encoder able to tell them all. Scenes, head and the head's optimizer are
here; the gradient goes into the policy's own. The head is part of the run's state and of no checkpoint.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from e0_policy.data_order import DataOrder
from e0_policy.localisation import Localiser, jittered, location_loss
from e0_policy.model import E0Model
from e0_policy.scene_data import TARGETS, SceneData
from e0_policy.train_batch import step_generator
from e0_policy.train_config import TrainConfig, TrainConfigError
from e0_policy.train_control import precision
from e0_policy.train_state import fill, fill_optimizer, gathered, optimizer_state

_PURPOSE = 2
"""Of the step's random generators; 0 and 1 are the policy's own."""


class Auxiliary:
    """The second loss of a run. What a step draws is a function of seed and step.

    Args:
        config: of the run; `auxiliary_scenes` is the folder.
        model: the policy's.
        world: number of processes.

    Raises:
        TrainConfigError: several processes.
        DatasetError: no such folder, or it lacks a view of the model.
        ValueError: the model has no convolutional encoder.

    """

    def __init__(self, config: TrainConfig, model: E0Model, world: int) -> None:
        if world > 1:
            raise TrainConfigError(f"auxiliary_scenes are for one process; this run has {world}")
        self._config, self.device = config, model.projector.weight.device
        self._scenes = SceneData(Path(config.auxiliary_scenes), config.model.views, config.model.image_size)
        self._shift, self._scale = self._scenes.normalization(np.arange(len(self._scenes)), self.device)
        self._head = Localiser(model, len(TARGETS)).to(self.device)
        self._optimizer = torch.optim.AdamW(self._head.parameters(), betas=(0.9, 0.95), weight_decay=0.0)

    def backward(self, step: int, rate: float) -> dict[str, Tensor]:
        """Add the loss's gradient to the model's, and move the head; returns what to report.

        Every `auxiliary_every`-th step has a loss, on `auxiliary_batch` scenes; the others do nothing.
        """
        config = self._config
        turn, rest = divmod(step, config.auxiliary_every)
        if rest:
            return {}
        rows = np.array(next(iter(DataOrder(len(self._scenes), config.auxiliary_batch, config.seed, turn))))
        generator = step_generator("cpu", config.seed, step, 0, _PURPOSE)
        images = jittered(self._scenes.images(rows), config, generator).to(self.device)
        seen = torch.rand(images.shape[:2], generator=generator) >= config.view_dropout
        with precision(config, self.device):
            located = self._head(images, seen.to(self.device))
        loss = location_loss(located, (self._scenes.targets[rows].to(self.device) - self._shift) / self._scale)
        (config.auxiliary_weight * loss).backward()
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        return {"location": loss.detach()}

    def tensors(self) -> dict[str, Tensor]:
        """State of head and optimizer, by names of their own."""
        named = chain(self._head.named_parameters(), optimizer_state(self._head, self._optimizer))
        return gathered((f"auxiliary/{name}", tensor) for name, tensor in named)

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Inverse of `tensors`; other names are left alone."""
        own = {name.removeprefix("auxiliary/"): t for name, t in tensors.items() if name.startswith("auxiliary/")}
        for name, parameter in self._head.named_parameters():
            fill(parameter, own[name])
        fill_optimizer(self._head, self._optimizer, own)
