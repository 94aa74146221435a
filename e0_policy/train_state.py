"""The whole state of a training run on disk, for an exact resume: safetensors and JSON, never pickles.

    <output>/state/step_00001000/model.safetensors, ema.safetensors, optimizer.safetensors, state.json

A folder appears under its name only when it is whole. Randomness and data order are functions of seed and step, so the
step is all there is to them.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor

from e0_policy.files import sha256, sync

_STEP = re.compile(r"step_(\d{8,})")
_PARTS = ("model", "ema", "optimizer")


class TrainStateError(ValueError):
    """A saved state is missing, damaged or of another run; the message says which and what was expected."""


@dataclass(frozen=True)
class Saved:
    """A state on disk, checked against its checksums."""

    folder: Path
    step: int
    meta: Mapping[str, Any]


def full(tensor: Tensor) -> Tensor:
    """A tensor on the CPU, gathered from all processes if it is sharded (then all must call)."""
    whole = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
    return whole.detach().to("cpu", copy=True).contiguous()


def fill(target: Tensor, value: Tensor) -> None:
    """Copy a whole value into a tensor, or into this process's shard of it."""
    with torch.no_grad():
        if isinstance(target, DTensor):
            value = distribute_tensor(value.to(target.device), target.device_mesh, target.placements)
        target.copy_(value)


def gathered(named: Iterable[tuple[str, Tensor]], keep: bool = True) -> dict[str, Tensor]:
    """Whole tensors on the CPU by name; nothing in a process that does not `keep` them.

    If they are sharded all processes must call, and each holds one whole tensor at a time beside those that it keeps.
    """
    whole = {}
    for name, tensor in named:
        if keep:
            whole[name] = full(tensor)
        elif isinstance(tensor, DTensor):
            tensor.full_tensor()
    return whole


def optimizer_state(model: nn.Module, optimizer: torch.optim.Optimizer) -> Iterator[tuple[str, Tensor]]:
    """The optimizer's state by `slot/parameter`."""
    for name, parameter in model.named_parameters():
        for slot, value in optimizer.state.get(parameter, {}).items():
            yield f"{slot}/{name}", value


def fill_optimizer(model: nn.Module, optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Inverse of `optimizer_state`, gathered."""
    for name, parameter in model.named_parameters():
        state = {}
        for slot in ("step", "exp_avg", "exp_avg_sq"):
            value = tensors.get(f"{slot}/{name}")
            if value is None:
                continue
            if slot == "step":  # a fused optimizer wants it beside the weights
                state[slot] = value.to(parameter.device if optimizer.defaults.get("fused") else "cpu", copy=True)
            else:
                state[slot] = torch.zeros_like(parameter.detach())
                fill(state[slot], value)
        if state:
            optimizer.state[parameter] = state


def save(
    output: Path, step: int, parts: Mapping[str, Mapping[str, Tensor]], meta: Mapping[str, Any], keep: int
) -> Path:
    """Write a state, then delete all but the newest `keep`."""
    root = output / "state"
    target, partial = root / f"step_{step:08d}", root / f".partial_{step:08d}"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    sums = {}
    for part in _PARTS:
        file = partial / f"{part}.safetensors"
        save_file(dict(parts[part]), str(file))
        sums[part] = sha256(file)
    state = partial / "state.json"
    state.write_text(json.dumps({"step": step, "sha256": sums, **meta}), encoding="utf-8")
    for file in partial.iterdir():
        sync(file)
    shutil.rmtree(target, ignore_errors=True)
    partial.replace(target)
    sync(root)
    for old in states(output)[:-keep]:
        shutil.rmtree(old)
    return target


def states(output: Path) -> list[Path]:
    """Whole states of a run, the oldest first."""
    root = output / "state"
    found = [p for p in root.iterdir() if _STEP.fullmatch(p.name)] if root.is_dir() else []
    return sorted(found, key=lambda p: int(p.name[5:]))


def newest(output: Path) -> Saved:
    """The newest state, its files checked before anything is loaded.

    Raises:
        TrainStateError: none there, or damaged.

    """
    found = states(output)
    if not found:
        raise TrainStateError(f"{output}/state holds no state to resume; start without --resume")
    folder = found[-1]
    try:
        meta = json.loads((folder / "state.json").read_text(encoding="utf-8"))
        for part in _PARTS:
            got = sha256(folder / f"{part}.safetensors")
            if got != meta["sha256"][part]:
                raise TrainStateError(f"{folder}/{part}.safetensors has sha256 {got}; {meta['sha256'][part]} was saved")
        return Saved(folder, int(meta["step"]), meta)
    except (OSError, KeyError, ValueError) as error:
        if isinstance(error, TrainStateError):
            raise
        raise TrainStateError(f"{folder} is damaged ({error}); delete it to resume from the state before") from None


def load_part(saved: Saved, part: str) -> dict[str, Tensor]:
    """Tensors of one part."""
    return load_file(str(saved.folder / f"{part}.safetensors"))
