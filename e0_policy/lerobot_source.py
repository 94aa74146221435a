"""A LeRobotDataset v3.0 folder as a source: numbers from parquet, images from mp4 on demand.

Ours have `meta/e0.json`, written last: it says embodiment, joint names and what action rows are, and that the folder is
whole. Datasets of others lack it; a `Layout` says then which arm it is and where its joints, gripper and views are.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from e0_policy.dataset import DatasetError, Episode, IndexArray
from e0_policy.embodiment import load_embodiment
from e0_policy.lerobot_layout import NEXT_STATE, Layout, LayoutError
from e0_policy.picture_reader import Pictures
from e0_policy.transforms import BoolArray, resize_with_pad
from e0_policy.types import FloatArray, ImageArray, Representation
from e0_policy.video_reader import Videos, frames_in_header

INFO, OWN = "meta/info.json", "meta/e0.json"
IMAGES = "observation.images."
MAX_META_BYTES = 256 * 1024 * 1024
_OWN_KEYS = ("embodiment", "joint_names", "period_ns", "episodes")
_TEMPLATE = re.compile(r"(?:[\w./-]|\{(?:chunk_index|file_index|video_key)(?::0?\d+d)?\})+")


class LeRobotSource:
    """Episodes of a folder; frames are decoded when asked for.

    An episode with several tasks is cut where its task changes, so that each has one instruction.

    Raises:
        DatasetError: not such a folder, not whole, or without what the layout names.

    """

    def __init__(self, folder: Path, layout: Layout | None = None) -> None:
        self.folder, self.layout = folder, layout or Layout()
        self._info = _read_json(folder / INFO)
        version = str(self._info.get("codebase_version"))
        if not version.startswith("v3."):
            raise DatasetError(f"{folder} is LeRobotDataset {version}; v3.0 is read. lerobot has a converter")
        own = _read_json(folder / OWN) if (folder / OWN).is_file() else None
        if own is not None and (missing := [key for key in _OWN_KEYS if key not in own]):
            raise DatasetError(f"{folder / OWN} lacks {', '.join(missing)}")
        if own is None and not self.layout.embodiment:
            raise DatasetError(
                f"{folder} has no {OWN}: it is not whole (go on with e0 convert), or was written by others "
                "(then give its embodiment, see Layout)"
            )
        self.embodiment = str(own["embodiment"]) if own else self.layout.embodiment
        self.period_ns = int(own["period_ns"]) if own else round(1e9 / float(self._info["fps"]))
        names = tuple(own["joint_names"]) if own else load_embodiment(self.embodiment).joint_names
        self.proprioception_names: tuple[str, ...] = (*names, "gripper")
        told = own if own and self.layout.action != NEXT_STATE else {}
        self.representation = Representation.of(told.get("representation", Representation.JOINT_POSITION.label))
        self.action_names: tuple[str, ...] = tuple(told.get("action_names", self.proprioception_names))
        self._scenes = _scenes(own["episodes"]) if own else {}
        self._own_frames = sum(int(e["frames"]) for e in own["episodes"]) if own else None
        self._features = self._views()
        self.views: tuple[str, ...] = tuple(self._features)
        self._videos, self._pictures = Videos(), Pictures()
        self._read()

    def images(self, episode: int, frame: int) -> Mapping[str, ImageArray]:
        """Views of one frame."""
        return {view: self._image(view, episode, frame) for view in self.views}

    def gather(
        self, views: Sequence[str], episodes: IndexArray, frames: IndexArray, side: int
    ) -> tuple[ImageArray, BoolArray]:
        """Many frames at once, as `dataset.gather`; in the order of the files, which saves seeks."""
        images = np.zeros((len(episodes), len(views), side, side, 3), np.uint8)
        present = np.zeros((len(episodes), len(views)), bool)
        for v, view in enumerate(views):
            if view not in self._features:
                continue
            present[:, v] = True
            for i in np.lexsort((frames, episodes)).tolist():
                images[i, v] = resize_with_pad(self._image(view, int(episodes[i]), int(frames[i])), side, view)
        return images, present

    def digest(self) -> str:
        """Changes with the dataset: SHA-256 of names, sizes and times of its files, and of its JSON files."""
        lines = []
        for path in sorted(p for p in self.folder.rglob("*") if p.suffix in (".parquet", ".mp4", ".json")):
            stat = path.stat()
            content = hashlib.sha256(path.read_bytes()).hexdigest() if path.suffix == ".json" else stat.st_mtime_ns
            lines.append(f"{path.relative_to(self.folder).as_posix()} {stat.st_size} {content}\n")
        return hashlib.sha256("".join([repr(self.layout), *lines]).encode()).hexdigest()

    def _image(self, view: str, episode: int, frame: int) -> ImageArray:
        row, first = self._part[episode]
        path, start = self._places[view][row]
        feature = self._features[view]
        if self._info["features"][feature]["dtype"] == "image":
            return self._pictures.read(path, feature, int(start) + first + frame)
        return self._videos.read(path, start + (first + frame) / float(self._info["fps"]))

    def _views(self) -> dict[str, str]:
        """Our names of views to features, checked to be videos or pictures."""
        features: Mapping[str, Any] = self._info["features"]
        images = {k.removeprefix(IMAGES): k for k, v in features.items() if v["dtype"] in ("video", "image")}
        chosen = dict(self.layout.views) or images
        for feature in chosen.values():
            if feature not in images.values():
                raise DatasetError(f"{self.folder} has no images {feature!r}; it has {', '.join(images.values())}")
        return chosen

    def _read(self) -> None:
        rows = self._episode_rows()
        files = {self._path("data_path", r["data/chunk_index"], r["data/file_index"]): None for r in rows}
        columns = sorted({self.layout.state, self.layout.action} - {NEXT_STATE})
        tables = [_read_table(p, [*columns, "episode_index", "frame_index", "task_index"]) for p in files]
        data = pa.concat_tables(tables)
        self._check_counts(rows, len(data))
        states = self._columns(data, self.layout.state, self.layout.state_columns, self.proprioception_names)
        numbers = {n: data[n].to_numpy() for n in ("episode_index", "frame_index", "task_index")}
        if self.layout.action == NEXT_STATE:
            same = np.append(np.diff(numbers["episode_index"]) == 0, False)
            actions = states[np.arange(len(states)) + same]
        else:
            actions = self._columns(data, self.layout.action, self.layout.action_columns, self.action_names)
        self._make_episodes(rows, numbers, states, actions)
        self._places: dict[str, list[tuple[Path, float]]] = {}
        for view, feature in self._features.items():
            video = self._info["features"][feature]["dtype"] == "video"
            self._places[view] = self._video_places(rows, feature) if video else self._row_places(rows)

    def _make_episodes(
        self, rows: list[dict[str, Any]], numbers: Mapping[str, Any], states: FloatArray, actions: FloatArray
    ) -> None:
        instructions = _tasks(self.folder)
        self.episodes: Sequence[Episode] = (made := [])
        self._part: list[tuple[int, int]] = []
        at = 0
        for row_number, row in enumerate(rows):
            here = slice(at, at + row["length"])
            at = here.stop
            expected = row["episode_index"], row["length"]
            got = numbers["episode_index"][here], numbers["frame_index"][here]
            if (got[0] != expected[0]).any() or (got[1] != np.arange(expected[1])).any():
                raise DatasetError(
                    f"{self.folder}: episode {expected[0]} has not the {expected[1]} rows it should have"
                )
            tasks = numbers["task_index"][here]
            cuts = [0, *(np.flatnonzero(np.diff(tasks)) + 1).tolist(), len(tasks)]
            for a, b in pairwise(cuts):
                part = slice(here.start + a, here.start + b)
                name = f"{expected[0]}" if len(cuts) == 2 else f"{expected[0]}.{a}"
                if (task := int(tasks[a])) not in instructions:
                    raise DatasetError(f"{self.folder}: episode {expected[0]} has task {task}, which has no text")
                scene = self._scenes.get(expected[0])
                made.append(Episode(name, instructions[task], states[part], actions[part], f"{expected[0]}", scene))
                self._part.append((row_number, a))

    def _episode_rows(self) -> list[dict[str, Any]]:
        """Rows of meta/episodes in order, without their statistics."""
        wanted = ["episode_index", "length", "data/chunk_index", "data/file_index"]
        for feature in self._features.values():
            if self._info["features"][feature]["dtype"] == "image":
                continue
            wanted += [f"videos/{feature}/{n}" for n in ("chunk_index", "file_index", "from_timestamp")]
        tables = [_read_table(p, wanted) for p in sorted((self.folder / "meta/episodes").glob("*/*.parquet"))]
        if not tables:
            raise DatasetError(f"{self.folder}/meta/episodes holds no parquet file; the dataset is not whole")
        rows: list[dict[str, Any]] = pa.concat_tables(tables).to_pylist()
        return sorted(rows, key=lambda row: int(row["episode_index"]))

    def _check_counts(self, rows: list[dict[str, Any]], data_rows: int) -> None:
        frames, stated = sum(r["length"] for r in rows), int(self._info["total_frames"])
        counts = {f"{INFO} says": stated, "its episodes have": frames, "its data files have": data_rows}
        if self._own_frames is not None:
            counts[f"{OWN} says"] = self._own_frames
        if len(set(counts.values())) > 1 or len(rows) != int(self._info["total_episodes"]):
            text = ", ".join(f"{name} {count} frames" for name, count in counts.items())
            raise DatasetError(
                f"{self.folder} is not whole: {text}; {self._info['total_episodes']} episodes stated, {len(rows)} there"
            )

    def _video_places(self, rows: list[dict[str, Any]], feature: str) -> list[tuple[Path, float]]:
        """File and time of each episode's first frame; every file has as many frames as rows (of others: or more)."""
        places, frames = [], dict[Path, int]()
        for row in rows:
            key = f"videos/{feature}"
            path = self._path("video_path", row[f"{key}/chunk_index"], row[f"{key}/file_index"], feature)
            places.append((path, float(row[f"{key}/from_timestamp"])))
            frames[path] = frames.get(path, 0) + row["length"]
        for path, needed in frames.items():
            there = frames_in_header(path) or self._videos.count(path)
            if there < needed or (self._own_frames is not None and there != needed):
                raise DatasetError(f"{self.folder} is not whole: {path} has {there} frames for {needed} rows")
        return places

    def _row_places(self, rows: list[dict[str, Any]]) -> list[tuple[Path, float]]:
        """Data file of each episode, and the number of its first row there."""
        places, frames = [], dict[Path, int]()
        for row in rows:
            path = self._path("data_path", row["data/chunk_index"], row["data/file_index"])
            places.append((path, float(frames.get(path, 0))))
            frames[path] = frames.get(path, 0) + row["length"]
        return places

    def _columns(self, data: pa.Table, feature: str, columns: Sequence[int], names: Sequence[str]) -> FloatArray:
        """Joints [rad], or what ours has in their place, and gripper [0, 1] of a feature `(rows, len(names))`."""
        values = data[feature].combine_chunks().flatten().to_numpy(zero_copy_only=False).reshape(len(data), -1)
        try:
            return self.layout.joints_and_gripper(values, feature, columns, names)
        except LayoutError as error:
            raise DatasetError(f"{self.folder}: {error}") from None

    def _path(self, template: str, chunk: int, file: int, feature: str = "") -> Path:
        """A file below the folder by the template of that name in info.json."""
        text = str(self._info[template])
        if not _TEMPLATE.fullmatch(text):
            raise DatasetError(f"{self.folder}/{INFO}: {template} is {text[:200]!r}, which is no template of paths")
        path = text.format(chunk_index=chunk, file_index=file, video_key=feature)
        if PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts:
            raise DatasetError(f"{self.folder}/{INFO}: {template} leads to {path[:200]!r}, outside of the folder")
        return self.folder / path


def _tasks(folder: Path) -> dict[int, str]:
    """Instructions by task index; pandas writes the text as the table's index, under a name of its own."""
    table = _read_table(folder / "meta/tasks.parquet", None)
    text = next(n for n in table.column_names if n != "task_index")
    return dict(zip(table["task_index"].to_pylist(), map(str, table[text].to_pylist()), strict=True))


def _read_table(path: Path, columns: list[str] | None) -> pa.Table:
    try:
        found = pq.ParquetFile(path).read(columns=columns)
    except (OSError, pa.ArrowException) as error:
        raise DatasetError(f"{path} cannot be read: {error}; the dataset is not whole") from None
    if missing := [c for c in columns or () if c not in found.column_names]:
        raise DatasetError(f"{path} lacks {', '.join(missing)}")
    return found


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise DatasetError(f"{path} is missing; give a LeRobotDataset v3.0 folder")
    if path.stat().st_size > MAX_META_BYTES:
        raise DatasetError(f"{path} has {path.stat().st_size} bytes; allowed are {MAX_META_BYTES}")
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DatasetError(f"{path} is damaged: {error}") from None
    if not isinstance(data, dict):
        raise DatasetError(f"{path} holds {type(data).__name__}; a mapping is needed")
    return data


def _scenes(episodes: Sequence[Mapping[str, Any]]) -> dict[int, tuple[str, int]]:
    """Task and seed by number of episode, of those that a simulator made."""
    return {int(e["episode_index"]): (str(e["task"]), int(e["seed"])) for e in episodes if e.get("task")}
