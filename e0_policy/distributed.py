"""The processes of a training run: torchrun's group, DDP and FSDP. A plain start is a group of one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.nn.parallel import DistributedDataParallel

from e0_policy.train_config import TrainConfig, TrainConfigError


@dataclass(frozen=True)
class Workers:
    """Rank of this process among those of torchrun; a plain start is one of one."""

    rank: int
    world: int
    device: torch.device

    @property
    def first(self) -> bool:
        """Whether this process writes files and prints."""
        return self.rank == 0


def pick_device(name: str) -> torch.device:
    """A device by name; "auto" is the GPU if there is one.

    Raises:
        TrainConfigError: no such device.

    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.zeros(1, device=name)
        return torch.device(name)
    except (RuntimeError, AssertionError) as error:
        raise TrainConfigError(f"device is {name!r}, which is not usable here: {error}") from None


@contextmanager
def process_group(device: str) -> Iterator[Workers]:
    """Join torchrun's processes, nccl on GPUs and gloo otherwise; a plain start is a group of one."""
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1:
        yield Workers(0, 1, pick_device(device))
        return
    local = int(os.environ["LOCAL_RANK"])
    gpu = torch.cuda.is_available() and device != "cpu"
    where = torch.device("cuda", local) if gpu else torch.device("cpu")
    if gpu:
        torch.cuda.set_device(where)
    dist.init_process_group("nccl" if gpu else "gloo")
    try:
        yield Workers(dist.get_rank(), world, where)
    finally:
        dist.destroy_process_group()


def parallelize(module: nn.Module, config: TrainConfig, workers: Workers) -> nn.Module:
    """Wrap for DDP or FSDP where there are several processes.

    FSDP shards weights, gradients, moving average and optimizer state over the processes and gathers the weights whole
    for a step (in bf16 if the precision is), which fits the full model on small groups of large GPUs. The loss of a
    forward pass goes through `with_all`.
    """
    if workers.world == 1:
        return module
    if config.parallel == "ddp":
        # The last backbone layer's output has no reader without a second writing, dropped views leave parts unused.
        return DistributedDataParallel(module, find_unused_parameters=True)
    mesh = init_device_mesh(workers.device.type, (workers.world,))
    dtype = torch.bfloat16 if config.precision == "bf16" else None
    # Gradients are summed in float32: over micro-batches and processes, bfloat16 would lose the smaller ones.
    fully_shard(module, mesh=mesh, mp_policy=MixedPrecisionPolicy(dtype, reduce_dtype=torch.float32))
    return module


def with_all(module: nn.Module, loss: Tensor) -> Tensor:
    """The loss; if the module is sharded, every parameter has a gradient of it, a zero where it has no part in it.

    FSDP exchanges the gradients that there are, as one piece: a process whose samples lack a view would exchange
    another piece than the others. (Its own zeros, `set_reduce_scatter_unused_params`, do not go with accumulation.)
    """
    if not isinstance(module, FSDPModule):
        return loss
    whole: Tensor = _WithAll.apply(loss, *module.parameters())
    return whole


class _WithAll(torch.autograd.Function):
    """The first input, with a zero gradient for the others that takes no memory."""

    @staticmethod
    def forward(ctx: Any, loss: Tensor, *others: Tensor) -> Tensor:
        ctx.like = [(other.dtype, other.shape) for other in others]
        return loss.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, ...]:
        return gradient, *(gradient.new_zeros((), dtype=dtype).expand(shape) for dtype, shape in ctx.like)


def accumulate(module: nn.Module, last: bool) -> AbstractContextManager[None]:
    """No gradient exchange between processes before the last micro-batch."""
    if isinstance(module, FSDPModule):
        module.set_requires_gradient_sync(last)
    if isinstance(module, DistributedDataParallel) and not last:
        return module.no_sync()
    return nullcontext()


def total(value: Tensor, workers: Workers) -> Tensor:
    """Sum over all processes, in place."""
    if workers.world > 1:
        dist.all_reduce(value)
    return value


def mean(parts: dict[str, Tensor], workers: Workers) -> dict[str, float]:
    """Means of scalars over all processes."""
    if workers.world > 1:
        for value in parts.values():
            dist.all_reduce(value)
    return {name: float(value) / workers.world for name, value in parts.items()}


def any_process(flag: bool, workers: Workers) -> bool:
    """Whether the flag is set in any process, so that all act alike."""
    if workers.world == 1:
        return flag
    value = torch.tensor(float(flag), device=workers.device)
    dist.all_reduce(value, dist.ReduceOp.MAX)
    return bool(value)


def wait_for_all(workers: Workers) -> None:
    """Return once every process has come here."""
    any_process(False, workers)
