"""Episodes to a dataset folder in the layout of LeRobotDataset v3.0, as LeRobot 0.4.4 writes it.

    meta/info.json  meta/stats.json  meta/tasks.parquet  meta/episodes/chunk-000/file-000.parquet
    data/chunk-000/file-000.parquet  videos/<video key>/chunk-000/file-000.mp4  meta/e0.json (ours, written last)

A dataset is made in a folder of another name and renamed when it is whole. To append is to make a new folder with hard
links to the files of the old one, and to exchange the two.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from e0_policy.files import sync
from e0_ros.core.dataset_config import ConvertConfig
from e0_ros.core.dataset_episode import ACTION, STATE, Facts, arrow_column, plain_stats
from e0_ros.core.dataset_stats import Stats, aggregate, vector_stats
from e0_ros.core.dataset_video import VideoError, VideoFormat, frame_times, join
from e0_ros.core.pairing import GRIPPER, JOINTS

VERSION = 1
CHUNK = 1000
DATA_MB, VIDEO_MB = 100, 200
CHUNK_FILE = "chunk-{chunk_index:03d}/file-{file_index:03d}"
DATA_PATH, VIDEO_PATH = f"data/{CHUNK_FILE}.parquet", f"videos/{{video_key}}/{CHUNK_FILE}.mp4"
EPISODES_PATH = f"meta/episodes/{CHUNK_FILE}.parquet"
MAX_JSON_BYTES = 2**28


class DatasetError(ValueError):
    """A dataset folder cannot be written or grown; the message says why and what to do."""


@dataclass
class Existing:
    """What a whole dataset folder says of itself."""

    root: Path
    info: dict[str, Any]
    stats: dict[str, Any]
    e0: dict[str, Any]
    tasks: list[str] = field(default_factory=list)

    @property
    def digests(self) -> set[str]:
        """SHA-256 of the bags that are in it."""
        return {episode["digest"] for episode in self.e0["episodes"]}


def load_existing(root: Path) -> Existing:
    """Read what is needed to grow a dataset.

    Raises:
        DatasetError: the folder is not a whole dataset of this project.

    """
    try:
        info, stats, e0 = (_load_json(root / "meta" / name) for name in ("info.json", "stats.json", "e0.json"))
        tasks = pq.read_table(root / "meta" / "tasks.parquet").to_pydict()
    except (OSError, ValueError, pa.ArrowException) as error:
        raise DatasetError(f"{root}: exists and is no whole dataset of e0 convert ({error}); choose another") from None
    if e0.get("version") != VERSION:
        raise DatasetError(f"{root}: its version is {e0.get('version')!r}; this code writes {VERSION}")
    order = np.argsort(tasks["task_index"])
    return Existing(root, info, stats, e0, [tasks["task"][i] for i in order])


def check_alike(episodes: Sequence[Facts], existing: Existing | None, settings: dict[str, Any]) -> None:
    """Episodes of one dataset must agree on arm, views, image size and, with an existing one, on the settings.

    Raises:
        DatasetError: names what differs, and between which bags.

    """
    for name in ("embodiment", "joint_names", "views", "height", "width", "fps"):
        values = {str(getattr(e, name)): e.bag for e in episodes}
        if existing is not None:
            values.setdefault(str(existing.e0[name]), f"the dataset {existing.root}")
        if len(values) > 1:
            found = "; ".join(f"{value} ({bag})" for value, bag in list(values.items())[:4])
            raise DatasetError(f"episodes differ in {name}: {found}; convert them into datasets of their own")
    if existing is not None and (differ := _different(settings, existing.e0["settings"])):
        raise DatasetError(f"{existing.root} was converted with other settings ({differ}); choose another folder")


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
        _link_tree(existing.root, target)
    dataset = _Dataset(target, existing, config)
    for facts, work in episodes:
        dataset.add(facts, work)
    return dataset.finish([facts for facts, _ in episodes], about)


@dataclass
class _Place:
    """Where the next episode of a kind of file goes."""

    number: int
    size: float = 0.0

    def take(self, size: float, limit: float) -> bool:
        """Make room for `size` more; True if that begins a new file."""
        new = self.size > 0 and self.size + size > limit
        self.number += new
        self.size = size if new else self.size + size
        return new

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
        self._data = _Place(_next_file(root, "data", "parquet"))
        self._videos: dict[str, _Place] = {}
        self._parts: dict[str, list[Path]] = {}
        self._tables: list[pa.Table] = []

    def add(self, facts: Facts, work: Path) -> None:
        table = pq.read_table(work / "frames.parquet")
        if self._data.take(table.nbytes / 2**20, DATA_MB):
            self._close_data(self._data.number - 1)
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
            self._close_video(key, place.number)
        self._write_episodes()
        _write_tasks(self._root / "meta" / "tasks.parquet", self._tasks)
        example = episodes[0] if episodes else None
        info = _info(example, self._existing, self._config) | {
            "total_episodes": self._episode,
            "total_frames": self._frames,
            "total_tasks": len(self._tasks),
            "splits": {"train": f"0:{self._episode}"},
        }
        _write_json(self._root / "meta" / "info.json", info)
        _write_json(self._root / "meta" / "stats.json", self._all_stats())
        e0 = self._e0(episodes, about)
        _sync_tree(self._root)
        _write_json(self._root / "meta" / "e0.json", e0)
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
            self._videos[key] = _Place(_next_file(self._root, f"videos/{key}", "mp4"))
        place = self._videos[key]
        if place.take(part.stat().st_size / 2**20, VIDEO_MB):
            self._close_video(key, place.number - 1)
        before = sum(e["length"] for e in self._episodes if e.get(f"videos/{key}/number") == place.number)
        self._parts.setdefault(key, []).append(part)
        row: dict[str, Any] = {f"videos/{key}/{name}": value for name, value in place.indices.items()}
        row[f"videos/{key}/from_timestamp"] = before / facts.fps
        row[f"videos/{key}/to_timestamp"] = (before + facts.frames) / facts.fps
        row[f"videos/{key}/number"] = place.number
        return row

    def _close_data(self, number: int) -> None:
        if not self._tables:
            return
        path = _make(self._root / DATA_PATH.format(**_Place(number).indices))
        with pq.ParquetWriter(path, self._tables[0].schema, compression="snappy") as writer:
            for table in self._tables:
                writer.write_table(table)
        self._tables = []

    def _close_video(self, key: str, number: int) -> None:
        parts = self._parts.pop(key, [])
        path = _make(self._root / VIDEO_PATH.format(video_key=key, **_Place(number).indices))
        join(parts, path, self._config.fps)
        rows = sum(e["length"] for e in self._episodes if e.get(f"videos/{key}/number") == number)
        if frame_times(path, self._config.fps) != list(range(rows)):
            raise VideoError(f"{path.name} of {key} does not hold one frame for each of its {rows} rows")

    def _write_episodes(self) -> None:
        if not self._episodes:
            return
        place = _Place(_next_file(self._root, "meta/episodes", "parquet"))
        rows = [{k: v for k, v in row.items() if not k.endswith("/number")} for row in self._episodes]
        for row in rows:
            row |= {f"meta/episodes/{name}": value for name, value in place.indices.items()}
        path = _make(self._root / EPISODES_PATH.format(**place.indices))
        pq.write_table(pa.table({key: [row[key] for row in rows] for key in rows[0]}), path, compression="snappy")

    def _all_stats(self) -> dict[str, Any]:
        parts = [{name: _arrays(values) for name, values in self._existing.stats.items()}] if self._existing else []
        parts += self._stats
        return {name: plain_stats(aggregate([part[name] for part in parts])) for name in parts[0]}

    def _e0(self, episodes: list[Facts], about: dict[str, Any]) -> dict[str, Any]:
        before = self._existing.e0 if self._existing else {"episodes": [], "left_out": [], "code_versions": []}
        shared = {k: before[k] for k in _SHARED} if self._existing else {k: getattr(episodes[0], k) for k in _SHARED}
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


_SHARED = ("embodiment", "joint_names", "views", "height", "width", "fps")
_OWN = (
    *("bag", "digest", "episode_id", "task", "seed", "instructions", "outcome", "frames", "start_ns", "period_ns"),
    *("at_observations", "lockstep", "sources", "leading", "held", "lost", "compared", "different"),
    *("salvaged", "damage", "recorded_by"),
)


def _episode_entry(index: int, facts: Facts) -> dict[str, Any]:
    return {"episode_index": index, **{name: getattr(facts, name) for name in _OWN}}


def _info(example: Facts | None, existing: Existing | None, config: ConvertConfig) -> dict[str, Any]:
    if existing is not None:
        return dict(existing.info)
    assert example is not None
    return {
        "codebase_version": "v3.0",
        "robot_type": example.embodiment,
        "chunks_size": CHUNK,
        "data_files_size_in_mb": DATA_MB,
        "video_files_size_in_mb": VIDEO_MB,
        "fps": config.fps,
        "data_path": DATA_PATH,
        "video_path": VIDEO_PATH,
        "features": features(example, config),
    }


def features(facts: Facts, config: ConvertConfig) -> dict[str, Any]:
    """The `features` of info.json."""
    names = [*facts.joint_names, "gripper_opening"]
    found: dict[str, Any] = {
        STATE: {"dtype": "float32", "shape": [len(names)], "names": names},
        ACTION: {"dtype": "float32", "shape": [len(names)], "names": names},
    }
    codec, pixels = VideoFormat.of(config, facts.height, facts.width).stored
    video = {
        "video.height": facts.height,
        "video.width": facts.width,
        "video.codec": codec,
        "video.pix_fmt": pixels,
        "video.is_depth_map": False,
        "video.fps": config.fps,
        "video.channels": 3,
        "has_audio": False,
    }
    for view in facts.views:
        shape = [facts.height, facts.width, 3]
        image = {"dtype": "video", "shape": shape, "names": ["height", "width", "channels"], "info": video}
        found[f"observation.images.{view}"] = image
    own = [f"e0.age_ms.{stream}" for stream in (*facts.views, JOINTS, GRIPPER)]
    for name in (*own, *(f"e0.skew_ms.{view}" for view in facts.views)):
        found[name] = {"dtype": "float32", "shape": [1], "names": None}
    found["timestamp"] = {"dtype": "float32", "shape": [1], "names": None}
    for name in ("frame_index", "episode_index", "index", "task_index"):
        found[name] = {"dtype": "int64", "shape": [1], "names": None}
    return found


def _write_tasks(path: Path, tasks: Sequence[str]) -> None:
    """The table that pandas writes of a frame with the column task_index and the tasks as its index."""
    columns = [
        _pandas_column("task_index", "int64", "int64"),
        _pandas_column("task", "unicode", "object"),
    ]
    about = {"index_columns": ["task"], "column_indexes": [], "columns": columns, "pandas_version": "2.0.0"}
    table = pa.table({"task_index": pa.array(range(len(tasks)), pa.int64()), "task": pa.array(tasks, pa.string())})
    pq.write_table(table.replace_schema_metadata({"pandas": json.dumps(about)}), _make(path))


def _pandas_column(name: str, kind: str, numpy_kind: str) -> dict[str, Any]:
    return {"name": name, "field_name": name, "pandas_type": kind, "numpy_type": numpy_kind, "metadata": None}


def _arrays(values: dict[str, Any]) -> Stats:
    return {name: np.array(value) for name, value in values.items()}


def _next_file(root: Path, folder: str, suffix: str) -> int:
    """Number of the first file behind those that a folder holds."""
    files = (root / folder).glob(f"chunk-*/file-*.{suffix}")
    numbers = [int(path.parent.name[6:]) * CHUNK + int(path.stem[5:]) for path in files]
    return max(numbers, default=-1) + 1


def _link_tree(source: Path, target: Path) -> None:
    """Hard links (or copies, where the file system has none) of the files that do not change."""
    for folder in ("data", "videos", "meta/episodes"):
        for file in sorted((source / folder).rglob("*")):
            if file.is_file() and not file.is_symlink():
                place = _make(target / file.relative_to(source))
                try:
                    os.link(file, place)
                except OSError:
                    shutil.copyfile(file, place)


def _different(settings: dict[str, Any], before: dict[str, Any]) -> str:
    names = sorted({*settings, *before})
    return ", ".join(
        f"{n}: {before.get(n)} there, {settings.get(n)} here" for n in names if settings.get(n) != before.get(n)
    )


def _load_json(path: Path) -> Any:
    if path.stat().st_size > MAX_JSON_BYTES:
        raise ValueError(f"{path} is larger than {MAX_JSON_BYTES} bytes")
    return json.loads(path.read_text(encoding="utf-8"))


def _make(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def _write_json(path: Path, data: Any) -> None:
    with _make(path).open("w", encoding="utf-8") as file:
        json.dump(data, file, indent=4, ensure_ascii=False)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())


def _sync_tree(root: Path) -> None:
    paths: Iterable[Path] = (root, *root.rglob("*"))
    for path in paths:
        sync(path)
