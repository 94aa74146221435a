"""What learns in a run, whatever it learns: weights, their moving average, their optimizer, and a step of all three."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from e0_policy.train_config import TrainConfig
from e0_policy.train_control import TrainingError
from e0_policy.train_state import Saved, fill, fill_optimizer, full, gathered, load_part, optimizer_state


def learning_rate(config: TrainConfig, step: int) -> float:
    """Linear warm-up, then a cosine from `learning_rate` to `final_learning_rate` at the last step."""
    if step < config.warmup_steps:
        return config.learning_rate * (step + 1) / config.warmup_steps
    progress = (step - config.warmup_steps) / max(1, config.steps - config.warmup_steps)
    low, high = config.final_learning_rate, config.learning_rate
    return low + (high - low) * 0.5 * (1.0 + math.cos(math.pi * min(progress, 1.0)))


class Learner:
    """All parameters of a module under AdamW as pi0 and E0 train with.

    Args:
        module: what learns, on its device; sharded parameters (FSDP) are gathered where they leave this class.
        config: rates, decay, clipping and `ema`, the decay of the moving average.
        fused: one operation per step of the optimizer.

    """

    def __init__(self, module: nn.Module, config: TrainConfig, *, fused: bool = True) -> None:
        self.module, self.config = module, config
        self.ema = {name: p.detach().clone() for name, p in module.named_parameters()}
        self.optimizer = torch.optim.AdamW(
            module.parameters(), betas=(0.9, 0.95), eps=1e-8, weight_decay=config.weight_decay, fused=fused
        )

    @property
    def parameters(self) -> int:
        """How many numbers are learnt."""
        return sum(p.numel() for p in self.module.parameters())

    def descend(self, step: int, loss: Tensor) -> float:
        """Take the gradients that lie on the parameters; returns their norm before clipping.

        Raises:
            TrainingError: it is not finite; nothing was changed.

        """
        config, rate = self.config, learning_rate(self.config, step)
        norm = float(full(nn.utils.clip_grad_norm_(self.module.parameters(), config.clip_norm)))
        if not math.isfinite(norm):
            raise TrainingError(
                f"step {step + 1}: the gradient norm is {norm} and the loss {float(loss)}; lower learning_rate (this "
                f"step's is {rate:g}) or clip_norm and go on from the last state with --resume, or mend the data and "
                "start anew"
            )
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        decay = min(config.ema, (1 + step) / (10 + step))
        with torch.no_grad():
            torch._foreach_lerp_(list(self.ema.values()), [p.detach() for p in self.module.parameters()], 1.0 - decay)
        return norm

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """The module with its moving average as weights, without gradients, inside the block."""
        own = {name: p.detach().clone() for name, p in self.module.named_parameters()}
        with torch.no_grad():
            self._copy(self.ema)
            try:
                yield
            finally:
                self._copy(own)

    def tensors(self, keep: bool = True) -> dict[str, dict[str, Tensor]]:
        """Everything as the parts of a saved state, empty in a process that does not `keep` it; see `gathered`."""
        state = optimizer_state(self.module, self.optimizer)
        named = {"model": self.module.named_parameters(), "ema": self.ema.items(), "optimizer": state}
        return {part: gathered(tensors, keep) for part, tensors in named.items()}

    def restore(self, saved: Saved) -> None:
        """Inverse of `tensors`."""
        for part, tensors in (("model", dict(self.module.named_parameters())), ("ema", self.ema)):
            for name, value in load_part(saved, part).items():
                fill(tensors[name], value)
        fill_optimizer(self.module, self.optimizer, load_part(saved, "optimizer"))

    def _copy(self, values: dict[str, Tensor]) -> None:
        for name, parameter in self.module.named_parameters():
            parameter.copy_(values[name])
