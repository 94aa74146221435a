"""An episode's work folder: a table of numbers and a video per view, and `episode.json` when all of it is whole."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from e0_policy.files import sync
from e0_policy.types import FloatArray, Observation
from e0_ros.core.dataset_facts import Facts
from e0_ros.core.dataset_stats import image_stats, vector_stats
from e0_ros.core.dataset_table import arrow_column, frame_columns, plain_stats
from e0_ros.core.dataset_video import VideoError, count_frames


def write_episode(
    folder: Path,
    facts: Facts,
    frames: list[Observation],
    actions: FloatArray,
    texts: list[str],
    histograms: Mapping[str, Sequence[NDArray[np.uint32]]],
    intervened: Sequence[bool] = (),
) -> None:
    """Write the table of an episode whose videos lie in the folder, and put its statistics into `facts`.

    Args:
        folder: with `<view>.mp4` for every view of `facts`.
        facts: with views and frames per second.
        frames: without their images.
        actions: `(frames, columns)`.
        texts: instruction of each frame.
        histograms: of each view's images (`dataset_stats.histogram`).
        intervened: of each frame, whether a human had taken over from a machine; empty: never.

    Raises:
        VideoError: a video that does not hold a frame for each row.

    """
    facts.intervened = sum(intervened)
    columns = frame_columns(frames, actions, intervened or [False] * len(frames), facts)
    stats = {name: vector_stats(values) for name, values in columns.items()}
    for view in facts.views:
        path = folder / f"{view}.mp4"
        if (counted := count_frames(path)) != len(frames):
            raise VideoError(f"the video of {view} holds {counted} frames for {len(frames)} rows")
        stats[f"observation.images.{view}"] = image_stats(histograms[view])
        sync(path)
    facts.stats = {name: plain_stats(values) for name, values in stats.items()}
    table = pa.table({name: arrow_column(values) for name, values in columns.items()} | {"task": pa.array(texts)})
    pq.write_table(table, folder / "frames.parquet")
    sync(folder / "frames.parquet")


def finish_episode(partial: Path, work: Path, facts: Facts) -> None:
    """Write `episode.json` and give the folder its name: a folder of that name is whole."""
    with (partial / "episode.json").open("w", encoding="utf-8") as file:
        file.write(json.dumps(asdict(facts), default=_plain))
        file.flush()
        os.fsync(file.fileno())
    sync(partial)
    partial.rename(work)


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else list(value)
