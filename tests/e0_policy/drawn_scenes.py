"""Scenes drawn as squares, in the folder format of `e0 scenes`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

POSE = ("x", "y", "z", "qx", "qy", "qz", "qw")
LABELS = [f"{name}_{part}" for name in ("object", "goal", "tool") for part in POSE]


def draw_scenes(folder: Path, count: int, views: Sequence[str] = ("base", "wrist"), side: int = 32) -> Path:
    """A red square at the object's x and y, a green one at the goal's; every view shows them turned differently."""
    rng = np.random.default_rng(5)
    labels = np.zeros((count, len(LABELS)), np.float32)
    labels[:, [6, 13, 20]] = 1.0
    spots = rng.uniform(0.1, 0.9, (count, 2, 2))
    labels[:, :2], labels[:, 7:9] = spots[:, 0], spots[:, 1]
    folder.mkdir(parents=True)
    for turn, view in enumerate(views):
        images = np.full((count, side, side, 3), 40, np.uint8)
        for image, (thing, goal) in zip(images, spots, strict=True):
            for (x, y), channel in ((goal, 1), (thing, 0)):
                u, v = int(x * side), int(y * side)
                image[max(0, v - 2) : v + 3, max(0, u - 2) : u + 3, channel] = 230
        np.save(folder / f"view_{view}.npy", np.ascontiguousarray(np.rot90(images, turn, (1, 2))))
    np.save(folder / "labels.npy", labels)
    np.save(folder / "task.npy", (np.arange(count) % 2).astype(np.uint8))
    index = {"format": 1, "tasks": ["One-v1", "Two-v1"], "views": list(views), "count": count, "side_px": side}
    (folder / "index.json").write_text(json.dumps({**index, "labels": LABELS}), encoding="utf-8")
    return folder
