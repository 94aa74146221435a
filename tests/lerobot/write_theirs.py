"""Stock LeRobot 0.4.4 writes datasets of its own, with videos and with pictures. Runs in LeRobot's environment.

`read_theirs.py` reads them and trains on them.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from lerobot.datasets.lerobot_dataset import LeRobotDataset

FPS, SIDE = 20, 64
LENGTHS = (33, 21, 40)
VIEWS = {"base": "observation.images.front", "wrist": "observation.images.hand"}
TASKS = ("pick up the cube", "push the cube")
NUMBERS = [f"joint_{i}.pos" for i in range(1, 8)] + ["unused", "gripper.pos"]
"""Columns of their states and actions: joints in degrees, something else, the fingers' distance in m (0.08 is open)."""


def pictures(rng: np.random.Generator) -> dict[str, np.ndarray]:
    """A smooth picture per view that no other frame has."""
    y, x = np.mgrid[0:SIDE, 0:SIDE] / SIDE
    found = {}
    for feature in VIEWS.values():
        waves = [np.sin(2 * np.pi * (a * x + b * y + c)) for a, b, c in rng.uniform(0.2, 1.5, (3, 3))]
        found[feature] = (127 + 100 * np.stack(waves, -1)).astype(np.uint8)
    return found


def numbers(rng: np.random.Generator) -> np.ndarray:
    """A row of `NUMBERS`, float32."""
    return np.concatenate([rng.uniform(-90, 90, 7), [7.0], rng.uniform(0, 0.08, 1)]).astype(np.float32)


def write(root: Path, videos: bool) -> dict[str, np.ndarray]:
    """Write a dataset; what its frames were given."""
    kind = "video" if videos else "image"
    features = {feature: _feature(kind, (SIDE, SIDE, 3), ["height", "width", "channels"]) for feature in VIEWS.values()}
    features |= {name: _feature("float32", (len(NUMBERS),), NUMBERS) for name in ("observation.state", "action")}
    dataset = LeRobotDataset.create("local/theirs", FPS, features, root=root, use_videos=videos)
    rng = np.random.default_rng(0)
    given: dict[str, list[object]] = {name: [] for name in (*features, "episode", "task")}
    for episode, length in enumerate(LENGTHS):
        for _ in range(length):
            frame = {**pictures(rng), "observation.state": numbers(rng), "action": numbers(rng)}
            task = TASKS[episode % 2]
            dataset.add_frame({**frame, "task": task})
            for name, value in {**frame, "episode": episode, "task": task}.items():
                given[name].append(value)
        dataset.save_episode()
    dataset.finalize()
    return {name: np.array(values) for name, values in given.items()}


def _feature(kind: str, shape: tuple[int, ...], names: list[str]) -> dict[str, object]:
    return {"dtype": kind, "shape": shape, "names": names}


def main(folder: Path) -> None:
    """Write `videos`, `pictures` and what was given to both."""
    for name in ("videos", "pictures"):
        np.savez_compressed(folder / f"{name}.npz", **write(folder / name, name == "videos"))
        print(f"LeRobot wrote {sum(LENGTHS)} frames of {len(LENGTHS)} episodes with {name}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
