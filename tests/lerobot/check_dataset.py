"""Stock LeRobot 0.4.4 reads a converted dataset: every frame, index and statistic. Runs in LeRobot's environment."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
from lerobot.datasets.compute_stats import (
    aggregate_stats,
    auto_downsample_height_width,
    get_feature_stats,
    sample_indices,
)
from lerobot.datasets.lerobot_dataset import LeRobotDataset
from lerobot.datasets.utils import load_nested_dataset, unflatten_dict

VIEWS = ("base", "wrist")
FPS = 20


def backend() -> str:
    """LeRobot's default decoder if its libraries load here, else the one that needs none."""
    try:
        import torchcodec.decoders  # noqa: F401
    except (ImportError, OSError, RuntimeError):
        return "pyav"
    return "torchcodec"


def check_frames(dataset: LeRobotDataset, expected: dict[str, np.ndarray]) -> float:
    """Every item against what was published; returns the images' mean absolute error in 1/255."""
    assert len(dataset) == len(expected["episode"]), (len(dataset), len(expected["episode"]))
    starts = {int(e): int(np.flatnonzero(expected["episode"] == e)[0]) for e in np.unique(expected["episode"])}
    errors = []
    for i in range(len(dataset)):
        item, episode = dataset[i], int(expected["episode"][i])
        np.testing.assert_array_equal(item["observation.state"].numpy(), expected["state"][i].astype(np.float32))
        np.testing.assert_array_equal(item["action"].numpy(), expected["action"][i].astype(np.float32))
        assert item["task"] == str(expected["instruction"][i])
        frame = i - starts[episode]
        assert (int(item["index"]), int(item["episode_index"]), int(item["frame_index"])) == (i, episode, frame)
        assert float(item["timestamp"]) == np.float32(frame / FPS)
        for view in VIEWS:
            shown = item[f"observation.images.{view}"].permute(1, 2, 0).numpy() * 255
            distance = np.abs(expected[view].astype(np.float64) - shown).mean(axis=(1, 2, 3))
            assert int(distance.argmin()) == i, f"{view} of frame {i} looks like frame {distance.argmin()}"
            errors.append(distance[i])
    return float(np.mean(errors))


def check_chunks(root: Path, expected: dict[str, np.ndarray], decoder: str) -> None:
    """Action chunks by `delta_timestamps`, padded at the end of an episode."""
    times = [k / FPS for k in range(10)]
    dataset = LeRobotDataset("local/check", root=root, delta_timestamps={"action": times}, video_backend=decoder)
    for i in range(len(dataset)):
        last = int(np.flatnonzero(expected["episode"] == expected["episode"][i])[-1])
        index = np.minimum(i + np.arange(10), last)
        item = dataset[i]
        np.testing.assert_array_equal(item["action"].numpy(), expected["action"][index].astype(np.float32))
        assert item["action_is_pad"].tolist() == (i + np.arange(10) > last).tolist()


def check_statistics(dataset: LeRobotDataset, expected: dict[str, np.ndarray]) -> int:
    """Episodes' and the dataset's statistics against LeRobot's own functions; returns how many numbers agree."""
    stored = [
        unflatten_dict({k.removeprefix("stats/"): v for k, v in row.items() if k.startswith("stats/")})
        for row in load_nested_dataset(dataset.root / "meta" / "episodes")
    ]
    parts, numbers = [], 0
    table = dataset.hf_dataset.with_format("numpy")[:]
    for episode, own in enumerate(stored):
        rows = table["episode_index"] == episode
        part = {}
        for key, feature in dataset.features.items():
            if feature["dtype"] == "video":
                part[key] = image_stats(expected[key.rsplit(".", 1)[1]][expected["episode"] == episode])
            else:
                values = np.asarray(table[key])[rows]
                part[key] = get_feature_stats(values, axis=0, keepdims=values.ndim == 1)
            numbers += compare(own[key], part[key], f"episode {episode}, {key}")
        parts.append(part)
    whole = aggregate_stats(parts)
    assert set(dataset.meta.stats) == set(whole)
    return numbers + sum(compare(dataset.meta.stats[key], whole[key], key) for key in whole)


def image_stats(images: np.ndarray) -> dict[str, np.ndarray]:
    """As `compute_episode_stats`, but in floats: LeRobot 0.4.4 squares the pixels as uint8, which wraps around, so that
    its standard deviation of images is wrong.
    """
    chosen = [auto_downsample_height_width(images[i].transpose(2, 0, 1)) for i in sample_indices(len(images))]
    stats = get_feature_stats(np.array(chosen, np.float64), axis=(0, 2, 3), keepdims=True)
    return {k: v if k == "count" else np.squeeze(v / 255.0, axis=0) for k, v in stats.items()}


def compare(own: dict, theirs: dict, where: str) -> int:
    """One feature's statistics; quantiles may differ by two bins of LeRobot's histogram."""
    assert set(own) == set(theirs), (where, set(own) ^ set(theirs))
    bins = 2 * (np.asarray(theirs["max"], np.float64) - theirs["min"]) / 5000 + 1e-6
    for name, value in theirs.items():
        mine = np.asarray(own[name])
        assert mine.shape == np.shape(value), (where, name, mine.shape, np.shape(value))
        tolerance = bins if name.startswith("q") else 1e-4 * np.abs(value) + 2e-5
        if name in ("min", "max", "count"):
            tolerance = 1e-7
        assert (np.abs(mine - value) <= tolerance).all(), (where, name, mine, value)
    return sum(np.size(v) for v in theirs.values())


def main(folder: Path) -> None:
    """Check `dataset` against `expected.npz`."""
    expected = dict(np.load(folder / "expected.npz"))
    decoder = backend()
    dataset = LeRobotDataset("local/check", root=folder / "dataset", video_backend=decoder)
    error = check_frames(dataset, expected)
    check_chunks(folder / "dataset", expected, decoder)
    numbers = check_statistics(dataset, expected)
    batches = torch.utils.data.DataLoader(dataset, batch_size=8, shuffle=True)
    shapes = {tuple(batch["observation.images.base"].shape[1:]) for batch in batches}
    assert shapes == {(3, *expected["base"].shape[1:3])}
    only = LeRobotDataset("local/check", root=folder / "dataset", episodes=[1], video_backend=decoder)
    assert len(only) == int((expected["episode"] == 1).sum())
    print(
        f"LeRobot reads {len(dataset)} frames of {dataset.num_episodes} episodes as published (states, actions and "
        f"instructions to the bit, images within {error:.2f}/255 on average, decoded by {decoder}); "
        f"{numbers} numbers of statistics agree"
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
