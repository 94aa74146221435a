"""Episodes to a dataset folder in the layout of LeRobotDataset v3.0, as LeRobot 0.4.4 writes it.

    meta/info.json  meta/stats.json  meta/tasks.parquet  meta/episodes/chunk-000/file-000.parquet
    data/chunk-000/file-000.parquet  videos/<video key>/chunk-000/file-000.mp4  meta/e0.json (ours, written last)

A dataset is made in a folder of another name and renamed when it is whole. To append is to make a new folder with hard
links to the files of the old one, and to exchange the two.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from e0_policy.files import sync
from e0_ros.core.dataset_config import ConvertConfig
from e0_ros.core.dataset_facts import Facts
from e0_ros.core.dataset_layout import (
    CHUNK,
    DATA_MB,
    DATA_PATH,
    EPISODES_PATH,
    SHARED,
    VERSION,
    VIDEO_MB,
    VIDEO_PATH,
    Existing,
    link_tree,
    make_folder,
    new_info,
    next_file,
    sync_tree,
    write_json,
    write_tasks,
)
from e0_ros.core.dataset_stats import Stats, aggregate, vector_stats
from e0_ros.core.dataset_table import arrow_column, plain_stats
from e0_ros.core.dataset_video import VideoError, frame_times, join


def write_dataset(
    target: Path,
    episodes: Sequence[tuple[Facts, Path]],
    existing: Existing | None,
    config: ConvertConfig,
    about: dict[str, Any],
) -> dict[str, Any]:
    """Write a whole dataset into `target`, which must not exist; returns `meta/e0.json`.

    Args:
        target: folder to make.
        episodes: in order, with their work folders.
        existing: dataset that is continued; its files are linked.
        config: settings of the conversion.
        about: more for `e0.json` (code version, settings, what was left out).

    Raises:
        VideoError: a video that does not hold the frames that its rows say.

    """
    target.mkdir(parents=True)
    if existing is not None:
        link_tree(existing.root, target)
    dataset = _Dataset(target, existing, config)
    for facts, work in episodes:
        dataset.add(facts, work)
    return dataset.finish([facts for facts, _ in episodes], about)


@dataclass
class _Place:
    """Where the next episode of a kind of file goes: a file's number, and what it holds [MiB, frames]."""

    number: int
    size: float = 0.0
    frames: int = 0

    def begins(self, size: float, limit: float) -> bool:
        """Whether `size` more begins a new file, which then becomes this place."""
        if not self.size or self.size + size <= limit:
            return False
        self.number, self.size, self.frames = self.number + 1, 0.0, 0
        return True

    def take(self, size: float, frames: int) -> int:
        """Take an episode; returns how many frames lie before it."""
        before = self.frames
        self.size, self.frames = self.size + size, before + frames
        return before

    @property
    def indices(self) -> dict[str, int]:
        return {"chunk_index": self.number // CHUNK, "file_index": self.number % CHUNK}


class _Dataset:
    """Collects episodes into files."""

    def __init__(self, root: Path, existing: Existing | None, config: ConvertConfig) -> None:
        self._root, self._existing, self._config = root, existing, config
        self._tasks = list(existing.tasks) if existing else []
        self._episodes: list[dict[str, Any]] = []
        self._stats: list[dict[str, Stats]] = []
        info = existing.info if existing else {}
        self._first = self._episode = int(info.get("total_episodes", 0))
        self._frames = int(info.get("total_frames", 0))
        self._video_keys = list(existing.e0["video_keys"]) if existing else []
        self._data = _Place(next_file(root, "data", "parquet"))
        self._videos: dict[str, _Place] = {}
        self._parts: dict[str, list[Path]] = {}
        self._tables: list[pa.Table] = []

    def add(self, facts: Facts, work: Path) -> None:
        table = pq.read_table(work / "frames.parquet")
        if self._data.begins(table.nbytes / 2**20, DATA_MB):
            self._close_data(self._data.number - 1)
        self._data.take(table.nbytes / 2**20, facts.frames)
        row: dict[str, Any] = {"episode_index": self._episode, "tasks": facts.instructions, "length": facts.frames}
        row |= {f"data/{name}": value for name, value in self._data.indices.items()}
        row |= {"dataset_from_index": self._frames, "dataset_to_index": self._frames + facts.frames}
        for view in facts.views:
            row |= self._add_video(f"observation.images.{view}", work / f"{view}.mp4", facts)
        stats = {name: _arrays(values) for name, values in facts.stats.items()}
        self._tables.append(self._rows(table, stats))
        for name, values in stats.items():
            row |= {f"stats/{name}/{key}": value.tolist() for key, value in values.items()}
        self._episodes.append(row)
        self._stats.append(stats)
        self._episode += 1
        self._frames += facts.frames

    def finish(self, episodes: list[Facts], about: dict[str, Any]) -> dict[str, Any]:
        self._close_data(self._data.number)
        for key, place in self._videos.items():
            self._close_video(key, place.number, place.frames)
        self._write_episodes()
        write_tasks(self._root / "meta" / "tasks.parquet", self._tasks)
        example = episodes[0] if episodes else None
        info = new_info(example, self._existing, self._config) | {
            "total_episodes": self._episode,
            "total_frames": self._frames,
            "total_tasks": len(self._tasks),
            "splits": {"train": f"0:{self._episode}"},
        }
        write_json(self._root / "meta" / "info.json", info)
        write_json(self._root / "meta" / "stats.json", self._all_stats())
        e0 = self._e0(episodes, about)
        sync_tree(self._root)
        write_json(self._root / "meta" / "e0.json", e0)
        sync(self._root / "meta")
        return e0

    def _rows(self, table: pa.Table, stats: dict[str, Stats]) -> pa.Table:
        """An episode's table with the columns that depend on its place, and their statistics."""
        texts = table.column("task").to_pylist()
        for text in dict.fromkeys(texts):
            if text not in self._tasks:
                self._tasks.append(text)
        count = len(texts)
        places = {text: self._tasks.index(text) for text in dict.fromkeys(texts)}
        columns = {
            "episode_index": np.full(count, self._episode, np.int64),
            "index": np.arange(self._frames, self._frames + count, dtype=np.int64),
            "task_index": np.array([places[text] for text in texts], np.int64),
        }
        stats |= {name: vector_stats(values) for name, values in columns.items()}
        table = table.drop_columns(["task"])
        for name, values in columns.items():
            table = table.append_column(name, arrow_column(values))
        return table

    def _add_video(self, key: str, part: Path, facts: Facts) -> dict[str, Any]:
        if key not in self._videos:
            self._videos[key] = _Place(next_file(self._root, f"videos/{key}", "mp4"))
        place = self._videos[key]
        size, frames = part.stat().st_size / 2**20, place.frames
        if place.begins(size, VIDEO_MB):
            self._close_video(key, place.number - 1, frames)
        before = place.take(size, facts.frames)
        self._parts.setdefault(key, []).append(part)
        row: dict[str, Any] = {f"videos/{key}/{name}": value for name, value in place.indices.items()}
        row[f"videos/{key}/from_timestamp"] = before / facts.fps
        row[f"videos/{key}/to_timestamp"] = (before + facts.frames) / facts.fps
        return row

    def _close_data(self, number: int) -> None:
        if not self._tables:
            return
        path = make_folder(self._root / DATA_PATH.format(**_Place(number).indices))
        with pq.ParquetWriter(path, self._tables[0].schema, compression="snappy") as writer:
            for table in self._tables:
                writer.write_table(table)
        self._tables = []

    def _close_video(self, key: str, number: int, rows: int) -> None:
        parts = self._parts.pop(key, [])
        path = make_folder(self._root / VIDEO_PATH.format(video_key=key, **_Place(number).indices))
        join(parts, path, self._config.fps)
        if frame_times(path, self._config.fps) != list(range(rows)):
            raise VideoError(f"{path.name} of {key} does not hold one frame for each of its {rows} rows")

    def _write_episodes(self) -> None:
        if not self._episodes:
            return
        place = _Place(next_file(self._root, "meta/episodes", "parquet"))
        where = {f"meta/episodes/{name}": value for name, value in place.indices.items()}
        rows = [row | where for row in self._episodes]
        path = make_folder(self._root / EPISODES_PATH.format(**place.indices))
        pq.write_table(pa.table({key: [row[key] for row in rows] for key in rows[0]}), path, compression="snappy")

    def _all_stats(self) -> dict[str, Any]:
        parts = [{name: _arrays(values) for name, values in self._existing.stats.items()}] if self._existing else []
        parts += self._stats
        return {name: plain_stats(aggregate([part[name] for part in parts])) for name in parts[0]}

    def _e0(self, episodes: list[Facts], about: dict[str, Any]) -> dict[str, Any]:
        before = self._existing.e0 if self._existing else {"episodes": [], "left_out": [], "code_versions": []}
        shared = {k: before[k] for k in SHARED} if self._existing else {k: getattr(episodes[0], k) for k in SHARED}
        own = [_episode_entry(self._first + i, facts) for i, facts in enumerate(episodes)]
        left_out = {entry["bag"]: entry for entry in (*before["left_out"], *about["left_out"])}
        return {
            "format": "e0_ros dataset",
            "version": VERSION,
            **shared,
            "period_ns": round(1e9 / self._config.fps),
            "action": {"signal": self._config.action, "rows": self._config.action_rows},
            "video_keys": [f"observation.images.{view}" for view in shared["views"]],
            "settings": about["settings"],
            "code_versions": list(dict.fromkeys([*before["code_versions"], about["code_version"]])),
            "episodes": [*before["episodes"], *own],
            "left_out": [e for b, e in left_out.items() if b not in {facts.bag for facts in episodes}],
        }


_OWN = (
    *("bag", "digest", "episode_id", "task", "seed", "instructions", "outcome", "frames", "start_ns", "period_ns"),
    *("at_observations", "lockstep", "sources", "leading", "held", "intervened", "lost", "lost_counted"),
    *("compared", "different", "salvaged", "damage", "recorded_by", "recovered_from", "flags", "gap_bounds_ms"),
)


def _episode_entry(index: int, facts: Facts) -> dict[str, Any]:
    return {"episode_index": index, **{name: getattr(facts, name) for name in _OWN}}


def _arrays(values: dict[str, Any]) -> Stats:
    return {name: np.array(value) for name, value in values.items()}
