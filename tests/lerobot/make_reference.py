"""Records episodes over the graph, converts them, and writes down what LeRobot must read back.

`make lerobot-check` runs this here, then `check_dataset.py` in an environment of LeRobot's own.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from e0_ros.convert import convert
from e0_ros.core.bag_reader import Bag
from e0_ros.core.dataset_config import ConvertConfig, Selection
from sim.runs import over_graph
from tests.graph.test_same_frames import GRAPH, published

SETTINGS = {"episode_recorder": {"images": "png", "observation_images": True}}


def main(folder: Path) -> None:
    """Write `dataset` (two episodes, the second one appended) and `expected.npz` into the folder."""
    episodes = over_graph(GRAPH, range(2), folder, settings=SETTINGS)
    expected: dict[str, list] = {name: [] for name in ("state", "action", "instruction", "base", "wrist", "episode")}
    for index, episode in enumerate(episodes):
        if episode.error:
            raise SystemExit(f"episode {index} failed: {episode.error}")
        convert([Path(episode.bag)], folder / "dataset", ConvertConfig(), Selection(outcomes=("all",)))
        for frame in published(Bag(Path(episode.bag))):
            expected["episode"].append(index)
            for name in ("state", "action", "instruction"):
                expected[name].append(frame[name])
            for view, image in frame["views"].items():
                expected[view].append(image)
    np.savez_compressed(folder / "expected.npz", **{name: np.array(values) for name, values in expected.items()})
    print(f"{len(expected['episode'])} frames in {len(episodes)} episodes: {folder / 'dataset'}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
