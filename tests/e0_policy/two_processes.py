"""Run by torchrun for `test_distributed.py`: each process leaves what it saw in `<folder>/rank_<n>.json`."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from e0_policy import train as training
from e0_policy.distributed import Workers, accumulate, parallelize, process_group
from e0_policy.learner import Learner
from e0_policy.train_config import TrainConfig, from_mapping
from e0_policy.train_control import Interrupted
from e0_policy.train_state import states

SMALL = 2.0**-10  # lost beside 1 in bfloat16
STOPPED_AFTER = 2  # steps


def summed(workers: Workers) -> list[float]:
    """Gradient of sharded bfloat16 weights whose three micro-batches have 1, SMALL, SMALL here and 3 x SMALL there."""
    module = nn.Linear(1, 2, bias=False)
    parallelize(module, TrainConfig(parallel="fsdp", precision="bf16"), workers)
    for micro in range(3):
        value = 1.0 if workers.first and micro == 0 else SMALL
        with accumulate(module, micro == 2):
            module(torch.full((1, 1), value)).sum().backward()
    (weight,) = module.parameters()
    gradient: list[float] = weight.grad.full_tensor().flatten().tolist()
    return gradient


def stopped(config: TrainConfig, workers: Workers) -> dict[str, Any]:
    """Stop a run as a scheduler under torchrun does, then go on with it.

    The second process gets SIGTERM twice, and the first one twice while it writes the state, which takes it a moment.
    Tells why the run stopped, and the step of the newest state as the process left.
    """
    logged, written = training.Log.step, training.save

    def log(self: training.Log, number: int, *figures: Any) -> float:
        if number == STOPPED_AFTER and not workers.first:
            terminate_twice()
        return logged(self, number, *figures)

    def save(*state: Any) -> Path:
        terminate_twice()
        time.sleep(0.5)
        return written(*state)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Interrupted) as reason:
        patch.setattr(training.Log, "step", log)
        patch.setattr(training, "save", save)
        training.train(config, workers=workers)
    seen = {"reason": str(reason.value), "state": states(Path(config.output))[-1].name}
    training.train(config, resume=True, workers=workers)
    return seen


def terminate_twice() -> None:
    for _ in range(2):
        os.kill(os.getpid(), signal.SIGTERM)


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    gathered: list[int] = []
    tensors = Learner.tensors

    def counted(self: Learner, *keep: bool) -> dict[str, Any]:
        parts = tensors(self, *keep)
        gathered.append(sum(map(len, parts.values())))
        return parts

    Learner.tensors = counted  # type: ignore[method-assign]
    with process_group("cpu") as workers:
        seen: dict[str, Any] = {"summed": summed(workers), "gathered": gathered}
        for file in sorted(folder.glob("*.config.json")):
            config = from_mapping(json.loads(file.read_text()), file.name)
            stops = Path(config.output).name.startswith("stopped")
            seen[file.name] = stopped(config, workers) if stops else training.train(config, workers=workers).loss
        (folder / f"rank_{workers.rank}.json").write_text(json.dumps(seen))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
