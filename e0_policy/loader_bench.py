"""`e0 bench loader`: how fast one core reads demonstrations, from the videos and from decoded arrays.

A frame is one image of one view; seconds are those of the processor, so that other programs hardly matter. Videos are
read in their own size and scaled to the model's; the last line is a whole batch (images, text, state, action tokens)
against a training step of the model on one thread.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from e0_policy.dataset import IndexArray, Source, gather
from e0_policy.distributed import Workers
from e0_policy.files import write_json
from e0_policy.lerobot_source import LeRobotSource
from e0_policy.train import prepare
from e0_policy.train_batch import Collator
from e0_policy.train_config import TrainConfig, from_mapping
from e0_policy.train_setup import open_folder

STEPS = 5


@dataclass(frozen=True)
class Rates:
    """Frames per second of one core, and what a batch takes of a training step (medians)."""

    folder: str
    views: int
    video_px: str
    model_px: int
    videos_in_order: float
    videos_at_random: float
    videos_scaled_at_random: float
    arrays_made: float
    arrays_at_random: float
    batch: int
    batch_ms: float
    step_ms: float

    @property
    def share(self) -> float:
        """Share of reading in reading and training."""
        return self.batch_ms / (self.batch_ms + self.step_ms)


def measure(config: TrainConfig, seconds: float) -> Rates:
    """Measure a LeRobotDataset; its arrays are made below the configuration's `cache_dir`.

    Raises:
        DatasetError: not a whole LeRobotDataset.

    """
    torch.set_num_threads(1)
    data, side, views = config.folders[0], config.model.image_size, config.model.views
    videos = LeRobotSource(Path(data.folder), data.layout)
    places = np.concatenate([[(e, t) for t in range(len(x))] for e, x in enumerate(videos.episodes)])
    mixed = places[np.random.default_rng(0).permutation(len(places))]
    start = time.process_time()
    arrays = open_folder(data, config)
    made_s = time.process_time() - start
    batch_ms, step_ms = _training(config)
    height, width = videos.images(0, 0)[views[0]].shape[:2]
    one, every = len(views), len(videos.views)
    return Rates(
        data.folder,
        one,
        f"{width} x {height}",
        side,
        every * _rate(lambda i: videos.images(*places[i % len(places)].tolist()), seconds),
        every * _rate(lambda i: videos.images(*mixed[i % len(mixed)].tolist()), seconds),
        one * config.batch_size * _rate(lambda i: _gather(videos, config, mixed, i), seconds),
        one * len(places) / made_s,
        one * config.batch_size * _rate(lambda i: _gather(arrays, config, mixed, i), seconds),
        config.batch_size,
        batch_ms,
        step_ms,
    )


def _gather(source: Source, config: TrainConfig, places: IndexArray, number: int) -> None:
    first = number * config.batch_size
    chosen = places[np.arange(first, first + config.batch_size) % len(places)]
    gather(source, config.model.views, chosen[:, 0], chosen[:, 1], config.model.image_size)


def _training(config: TrainConfig) -> tuple[float, float]:
    """Median times of a batch and of the step that it feeds [ms]."""
    run = prepare(config, Workers(0, 1, torch.device("cpu")), None)
    collate, rng = Collator(run.data.transform, run.data.writing), np.random.default_rng(0)
    batch_s, step_s = [], []
    for step in range(STEPS + 1):
        indices = rng.integers(len(run.data.dataset), size=config.batch_size).tolist()
        start = time.process_time()
        samples = collate(run.data.dataset.batch(indices))
        middle = time.process_time()
        run.update(step, samples)
        batch_s.append(middle - start)
        step_s.append(time.process_time() - middle)
    return statistics.median(batch_s[1:]) * 1e3, statistics.median(step_s[1:]) * 1e3


def _rate(call: Callable[[int], object], seconds: float) -> float:
    """Calls per second, after one that does not count."""
    call(0)
    start, count = time.process_time(), 0
    while time.process_time() - start < seconds:
        count += 1
        call(count)
    return count / (time.process_time() - start)


def table(rates: Rates) -> str:
    """The figures as a Markdown table."""
    lines = [
        ("videos, in order", f"{rates.video_px} px", rates.videos_in_order),
        ("videos, at random", f"{rates.video_px} px", rates.videos_at_random),
        ("videos, at random, scaled", f"{rates.model_px} px", rates.videos_scaled_at_random),
        ("arrays, made once", f"{rates.model_px} px", rates.arrays_made),
        ("arrays, at random", f"{rates.model_px} px", rates.arrays_at_random),
    ]
    rows = [f"| {name:<26}| {size:<14}| {value:>12.0f} |" for name, size, value in lines]
    head = [f"| {'read':<26}| {'images':<14}| {'frames/s':>12} |", f"| {'-' * 25} | {'-' * 13} | {'-' * 12} |"]
    text = (
        f"a batch of {rates.batch} x {rates.views} views: {rates.batch_ms:.1f} ms; the step that it feeds: "
        f"{rates.step_ms:.0f} ms; share of reading {rates.share:.1%}"
    )
    return "\n".join([*head, *rows, "", text])


def main(argv: Sequence[str] | None = None) -> int:
    """`e0 bench loader`: 0 measured, 2 wrong arguments."""
    parser = argparse.ArgumentParser(
        prog="e0 bench loader",
        description="Frames per second of one core, from videos and from decoded arrays.",
        epilog="example: e0 bench loader --data datasets/pick --size nano --json loader.json",
    )
    parser.add_argument("--data", type=Path, required=True, help="a LeRobotDataset v3.0 folder")
    parser.add_argument("--size", default="nano", help="preset of the model (default: nano)")
    parser.add_argument("--views", nargs="+", help="views that the model reads (default: its preset's)")
    parser.add_argument("--batch", type=int, default=64, help="samples per batch (default: 64)")
    parser.add_argument("--seconds", type=float, default=3.0, help="of each measurement (default: 3)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures as JSON")
    options = parser.parse_args(argv)
    model = {"preset": options.size} | ({"views": options.views} if options.views else {})
    try:
        with tempfile.TemporaryDirectory() as folder:
            values = {"model": model, "data": str(options.data), "batch_size": options.batch, "cache_dir": folder}
            values |= {"output": f"{folder}/run", "device": "cpu", "precision": "bf16", "constant_dimensions": "hold"}
            rates = measure(from_mapping(values, "e0 bench loader"), options.seconds)
    except ValueError as error:
        print(f"e0 bench loader: {error}", file=sys.stderr)
        return 2
    print(table(rates))
    if options.json:
        write_json(options.json, {**asdict(rates), "share": rates.share})
    return 0


if __name__ == "__main__":
    sys.exit(main())
