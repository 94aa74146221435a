"""Run by torchrun for `test_distributed.py`: each process leaves what it saw in `<folder>/rank_<n>.json`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from e0_policy import train as training
from e0_policy.distributed import Workers, accumulate, parallelize, process_group
from e0_policy.learner import Learner
from e0_policy.train_config import TrainConfig, from_mapping
from e0_policy.train_control import Interrupted

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


def stopped(config: TrainConfig, workers: Workers) -> str:
    """Stop a run by a signal to the second process alone, then go on with it."""
    asked, real = iter(range(1, 100)), training.stop_signal
    training.stop_signal = lambda: lambda: next(asked) == STOPPED_AFTER and not workers.first
    try:
        training.train(config, workers=workers)
        return "not stopped"
    except Interrupted as reason:
        training.stop_signal = real
        dist.barrier()  # the first process has saved
        training.train(config, resume=True, workers=workers)
        return str(reason)


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
