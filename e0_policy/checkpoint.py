"""E0's own checkpoints: a folder with `model.safetensors` and `config.json`, whole or not there at all.

The configuration holds everything that inference needs besides weights: sizes, statistics, tokenizers, embodiment,
period. Both files are checked against SHA-256 sums before a tensor is loaded. Pickles are never opened.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from e0_policy.files import sha256, sync
from e0_policy.model import E0Model
from e0_policy.model_config import E0Config
from e0_policy.types import ImageArray, Representation

WEIGHTS, CONFIG, FIRST_VIEWS = "model.safetensors", "config.json", "views.npz"
FORMAT = 2
READABLE = (1, FORMAT)
"""Format 1 says nothing of its rows, which are joint positions."""
MAX_CONFIG_BYTES = 64 * 1024 * 1024
PICKLES = (".bin", ".ckpt", ".pickle", ".pkl", ".pt", ".pth")
_KEYS = ("format", "model", "transform", "embodiment", "period_ns", "execution_horizon", "training", "code_version")


class CheckpointError(ValueError):
    """A checkpoint is missing, damaged or of another model; the message says what was got and what was expected."""


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint is, without its weights.

    Attributes:
        model: sizes and choices of the network.
        transform: `PolicyTransform.to_json()`: statistics, tokenizers, views.
        embodiment: whose actions it predicts.
        period_ns: time between two action rows.
        execution_horizon: rows meant to run before the next plan.
        training: what is worth knowing about its making (data, steps, figures).
        code_version: version of the code that wrote it.
        folder: where it is; None before it is saved.
        identifier: the first 16 hexadecimal digits of the SHA-256 of its weights.
        representation: what a row is; its columns have the names of the transform's `actions`.

    """

    model: E0Config
    transform: Mapping[str, Any]
    embodiment: str
    period_ns: int
    execution_horizon: int
    training: Mapping[str, Any] = field(default_factory=dict)
    code_version: str = ""
    folder: Path | None = None
    identifier: str = ""
    representation: Representation = Representation.JOINT_POSITION

    @property
    def columns(self) -> int:
        """Real action columns; the model's dimensions behind them are padding."""
        return len(self.transform.get("relative", range(self.model.action_dim)))


def code_version() -> str:
    """Version of the installed distribution, or "unknown" in a bare checkout."""
    try:
        return metadata.version("e0_ros")
    except metadata.PackageNotFoundError:
        return "unknown"


def save_checkpoint(
    folder: Path,
    tensors: Mapping[str, Tensor],
    checkpoint: Checkpoint,
    first_views: Mapping[str, ImageArray] | None = None,
) -> Checkpoint:
    """Write a checkpoint. It appears under its name when it is whole; an older checkpoint there is replaced.

    Args:
        folder: to be made; what is there already must be a checkpoint.
        tensors: the model's (or its average's) parameters by name.
        checkpoint: what it is.
        first_views: a picture of every view from its data, by which a bench tells that a camera has moved.

    Raises:
        CheckpointError: something else is at `folder`, or the tensors are not those of the configuration.

    """
    if folder.exists() and not (folder / CONFIG).is_file():
        raise CheckpointError(f"{folder} exists and is no checkpoint; choose another folder")
    _check_shapes(str(folder), {k: tuple(v.shape) for k, v in tensors.items()}, checkpoint.model)
    partial, old = (folder.with_name(f".{folder.name}.{state}") for state in ("partial", "old"))
    for leftover in (partial, old):
        shutil.rmtree(leftover, ignore_errors=True)
    partial.mkdir(parents=True)
    save_file({k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}, str(partial / WEIGHTS))
    digest = sha256(partial / WEIGHTS)
    data = {
        "format": FORMAT,
        "model": checkpoint.model.to_dict(),
        "transform": dict(checkpoint.transform),
        "embodiment": checkpoint.embodiment,
        "representation": checkpoint.representation.label,
        "period_ns": checkpoint.period_ns,
        "execution_horizon": checkpoint.execution_horizon,
        "training": dict(checkpoint.training),
        "code_version": code_version(),
        "weights_bytes": (partial / WEIGHTS).stat().st_size,
        "weights_sha256": digest,
    }
    data["sha256"] = _digest(data)
    (partial / CONFIG).write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
    if first_views:
        np.savez_compressed(partial / FIRST_VIEWS, **{view: np.asarray(image) for view, image in first_views.items()})
    for path in (*partial.iterdir(), partial):
        sync(path)
    if folder.exists():
        folder.replace(old)
    partial.replace(folder)
    sync(folder.parent)
    shutil.rmtree(old, ignore_errors=True)
    return read_checkpoint(folder)


def read_checkpoint(folder: Path) -> Checkpoint:
    """Read and check a checkpoint, both files, without loading a tensor.

    Raises:
        CheckpointError: not there, a pickle, truncated, tampered with, or of a newer format.

    """
    if folder.suffix.lower() in PICKLES:
        raise CheckpointError(f"{folder} is a pickle, which is never opened; give a folder with {WEIGHTS} and {CONFIG}")
    for name in (WEIGHTS, CONFIG):
        if not (folder / name).is_file():
            raise CheckpointError(f"{folder} has no {name}; a checkpoint is a folder with {WEIGHTS} and {CONFIG}")
    data = _read_config(folder / CONFIG)
    size, sum_ = (folder / WEIGHTS).stat().st_size, data["weights_sha256"]
    if size != data["weights_bytes"]:
        raise CheckpointError(f"{folder / WEIGHTS} has {size} bytes; {data['weights_bytes']} were written (truncated?)")
    if (got := sha256(folder / WEIGHTS)) != sum_:
        raise CheckpointError(f"{folder / WEIGHTS} has SHA-256 {got}; {sum_} was written (changed or damaged)")
    return Checkpoint(
        model=E0Config.from_dict(data["model"]),
        transform=data["transform"],
        embodiment=str(data["embodiment"]),
        period_ns=int(data["period_ns"]),
        execution_horizon=int(data["execution_horizon"]),
        training=data["training"],
        code_version=str(data["code_version"]),
        folder=folder,
        identifier=str(sum_)[:16],
        representation=Representation.of(data.get("representation", Representation.JOINT_POSITION.label)),
    )


def load_model(checkpoint: Checkpoint, device: torch.device | str = "cpu", dtype: torch.dtype | None = None) -> E0Model:
    """The model of a checkpoint that `read_checkpoint` has checked, in evaluation mode.

    Args:
        checkpoint: from `read_checkpoint`.
        device: where to.
        dtype: of the weights; as saved if None.

    Raises:
        CheckpointError: names or shapes of the tensors are not those of the configuration.

    """
    assert checkpoint.folder is not None
    path = checkpoint.folder / WEIGHTS
    try:
        with safe_open(str(path), framework="pt") as file:
            names = list(file.keys())
            _check_shapes(str(path), {n: tuple(file.get_slice(n).get_shape()) for n in names}, checkpoint.model)
            with torch.device("meta"):
                model = E0Model(checkpoint.model)
            state = {n: file.get_tensor(n).to(device=device, dtype=dtype) for n in names}
    except SafetensorError as error:
        raise CheckpointError(f"{path} is no safetensors file: {error}") from None
    model.load_state_dict(state, assign=True)
    model.columns = checkpoint.columns
    return model.eval().requires_grad_(False)


def _read_config(path: Path) -> dict[str, Any]:
    if path.stat().st_size > MAX_CONFIG_BYTES:
        raise CheckpointError(f"{path} has {path.stat().st_size} bytes; allowed are {MAX_CONFIG_BYTES}")
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path} is damaged: {error}") from None
    if not isinstance(data, dict) or not isinstance(data.get("format"), int):
        raise CheckpointError(f"{path} is not the configuration of an E0 checkpoint")
    if data["format"] not in READABLE:
        known = ", ".join(map(str, READABLE))
        raise CheckpointError(f"{path} has format {data['format']}; this code reads {known}")
    if missing := [k for k in (*_KEYS, "weights_bytes", "weights_sha256", "sha256") if k not in data]:
        raise CheckpointError(f"{path} lacks {', '.join(missing)}")
    if (got := _digest(data)) != data["sha256"]:
        raise CheckpointError(f"{path} has SHA-256 {got}; {data['sha256']} was written (edited or damaged)")
    return data


def _check_shapes(where: str, got: Mapping[str, tuple[int, ...]], config: E0Config) -> None:
    with torch.device("meta"):
        want = {k: tuple(v.shape) for k, v in E0Model(config).state_dict().items()}
    for name in sorted(got.keys() | want.keys()):
        if got.get(name) != want.get(name):
            there, needed = got.get(name, "missing"), want.get(name, "none")
            raise CheckpointError(f"{where}: tensor {name} is {there}; the configuration needs {needed}")


def _digest(data: Mapping[str, Any]) -> str:
    """SHA-256 of a configuration without its own sum, independent of layout."""
    content = {k: v for k, v in data.items() if k != "sha256"}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
