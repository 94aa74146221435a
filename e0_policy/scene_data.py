"""Random scenes as training samples: pictures of several views, and where things are in them.

A folder as `e0 scenes` writes it. The positions are privileged: they teach an encoder, and are never inputs.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import interpolate

from e0_policy.dataset import MAX_INDEX_BYTES, DatasetError
from e0_policy.types import FloatArray

FORMAT = 1
TARGETS = (
    *(f"{name}_{axis}" for name in ("object", "goal", "object_in_tool", "goal_in_tool") for axis in "xyz"),
    *(f"turn_{part}" for part in ("cos", "sin")),
)
"""What is regressed: positions in the base frame and in the tool's [m], and the object's turn about the tool's axis.

A cube looks the same after a quarter: the turn is that of four times the angle.
"""
METRES = 12
"""The first targets, which are positions."""
_BLOCK = 256


class SceneData:
    """Pictures and targets of scenes.

    Args:
        folder: of `e0 scenes`.
        views: to read, in the model's order.
        side: of the model's pictures in px.

    Attributes:
        targets: `(N, len(TARGETS))` float32.
        tasks: names of the tasks.
        task: `(N,)` index of each scene's task.

    Raises:
        DatasetError: no such folder, a view that it lacks, or files that do not fit each other.

    """

    def __init__(self, folder: Path, views: Sequence[str], side: int) -> None:
        index = folder / "index.json"
        if not index.is_file() or index.stat().st_size > MAX_INDEX_BYTES:
            raise DatasetError(f"{folder}: no index.json of a sane size; give a folder that `e0 scenes` made")
        data = json.loads(index.read_text(encoding="utf-8"))
        if data.get("format") != FORMAT:
            raise DatasetError(f"{index} has format {data.get('format')!r}; this version reads {FORMAT}")
        if missing := sorted(set(views) - set(data["views"])):
            raise DatasetError(f"{folder} has the views {', '.join(data['views'])}; it lacks {', '.join(missing)}")
        count, px = int(data["count"]), int(data["side_px"])
        self.views, self.tasks = tuple(views), tuple(str(task) for task in data["tasks"])
        arrays = [_array(folder / f"view_{view}.npy", (count, px, px, 3), np.uint8) for view in views]
        self._images = [_scaled(array, side) for array in arrays]
        labels = _array(folder / "labels.npy", (count, len(data["labels"])), np.float32)
        self.task = np.array(_array(folder / "task.npy", (count,), np.uint8))
        self.targets = torch.from_numpy(targets_of(labels, list(data["labels"])))

    def __len__(self) -> int:
        return len(self.targets)

    def images(self, rows: NDArray[np.int64]) -> Tensor:
        """Pictures of scenes, `(B, V, 3, S, S)` float in [-1, 1]."""
        views = [torch.from_numpy(np.ascontiguousarray(array[rows])).permute(0, 3, 1, 2) for array in self._images]
        return torch.stack(views, 1).float() / 127.5 - 1.0

    def normalization(self, rows: NDArray[np.int64], device: torch.device) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of the targets of these scenes, `(len(TARGETS),)` each."""
        known = self.targets[rows]
        return known.mean(0).to(device), known.std(0).clamp(min=1e-3).to(device)


def targets_of(labels: NDArray[np.float32], names: Sequence[str]) -> NDArray[np.float32]:
    """Targets `(N, len(TARGETS))` from labels `(N, len(names))`.

    Raises:
        DatasetError: a label is missing, or is not finite.

    """
    parts = {}
    for name in ("object", "goal", "tool"):
        columns = [f"{name}_{part}" for part in ("x", "y", "z", "qx", "qy", "qz", "qw")]
        if missing := [column for column in columns if column not in names]:
            raise DatasetError(f"the labels lack {', '.join(missing)}")
        parts[name] = labels[:, [names.index(column) for column in columns]].astype(np.float64)
    base = parts["tool"][:, :3]
    tool = _rotations(parts["tool"][:, 3:])
    inside = [np.einsum("nji,nj->ni", tool, parts[name][:, :3] - base) for name in ("object", "goal")]
    turned = np.einsum("nji,njk->nik", tool, _rotations(parts["object"][:, 3:]))
    turn = 4.0 * np.arctan2(turned[:, 1, 0], turned[:, 0, 0])
    columns_ = [parts["object"][:, :3], parts["goal"][:, :3], *inside, np.cos(turn)[:, None], np.sin(turn)[:, None]]
    targets = np.concatenate(columns_, 1, dtype=np.float32)
    if not np.isfinite(targets).all():
        raise DatasetError(f"scene {int(np.argwhere(~np.isfinite(targets))[0][0])} has a label that is not finite")
    return targets


def _rotations(quaternions: FloatArray) -> FloatArray:
    """Matrices `(N, 3, 3)` of quaternions xyzw `(N, 4)`."""
    x, y, z, w = quaternions.T
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
        [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
        [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
    ]
    return np.stack([np.stack(row, -1) for row in rows], 1)


def _scaled(array: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """All pictures as `transforms.resize_with_pad` scales them, in memory; as they are, if their size is right."""
    if array.shape[1] == side:
        return array
    scaled = np.empty((len(array), side, side, 3), np.uint8)
    for start in range(0, len(array), _BLOCK):
        block = torch.from_numpy(np.array(array[start : start + _BLOCK])).permute(0, 3, 1, 2).float()
        block = interpolate(block, (side, side), mode="bilinear", antialias=True).round().clamp(0.0, 255.0)
        scaled[start : start + _BLOCK] = block.permute(0, 2, 3, 1).byte().numpy()
    return scaled


def _array(path: Path, shape: tuple[int, ...], kind: type) -> NDArray:  # type: ignore[type-arg]
    try:
        array: NDArray = np.load(path, mmap_mode="r", allow_pickle=False)  # type: ignore[type-arg]
    except (OSError, ValueError) as error:
        raise DatasetError(f"{path} cannot be read: {error}") from None
    if array.shape != shape or array.dtype != kind:
        raise DatasetError(f"{path} is {array.dtype} {array.shape}; index.json says {np.dtype(kind)} {shape}")
    return array
