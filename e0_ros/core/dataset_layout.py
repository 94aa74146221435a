"""Where the files of a LeRobotDataset v3.0 lie and what its small ones hold, as LeRobot 0.4.4 lays them out."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from e0_policy.files import sync
from e0_policy.types import Representation
from e0_ros.config import to_mapping
from e0_ros.core.dataset_config import ConvertConfig
from e0_ros.core.dataset_facts import Facts
from e0_ros.core.dataset_table import ACTION, INTERVENTION, STATE
from e0_ros.core.dataset_video import VideoFormat
from e0_ros.core.pairing import GRIPPER, JOINTS

VERSION = 2
SHARED = ("embodiment", "joint_names", "representation", "action_names", "views", "height", "width", "fps")
"""What all episodes of a dataset have in common."""
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
    e0.setdefault("representation", Representation.JOINT_POSITION.label)
    e0.setdefault("action_names", [*e0["joint_names"], "gripper"])
    order = np.argsort(tasks["task_index"])
    return Existing(root, info, stats, e0, [tasks["task"][i] for i in order])


def check_alike(episodes: Sequence[Facts], existing: Existing | None, settings: dict[str, Any]) -> None:
    """Episodes of one dataset must agree on arm, views, image size and, with an existing one, on the settings.

    Raises:
        DatasetError: names what differs, and between which bags.

    """
    for name in SHARED:
        values = {str(getattr(e, name)): e.bag for e in episodes}
        if existing is not None:
            values.setdefault(str(existing.e0[name]), f"the dataset {existing.root}")
        if len(values) > 1:
            found = "; ".join(f"{value} ({bag})" for value, bag in list(values.items())[:4])
            raise DatasetError(f"episodes differ in {name}: {found}; convert them into datasets of their own")
    if existing is not None and (differ := _different(settings, existing.e0["settings"])):
        raise DatasetError(f"{existing.root} was converted with other settings ({differ}); choose another folder")


def new_info(example: Facts | None, existing: Existing | None, config: ConvertConfig) -> dict[str, Any]:
    """info.json but its totals, of a new dataset or of the existing one."""
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
    actions = [*facts.action_names[:-1], "gripper_opening"]
    found: dict[str, Any] = {
        STATE: {"dtype": "float32", "shape": [len(names)], "names": names},
        ACTION: {"dtype": "float32", "shape": [len(actions)], "names": actions},
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
    own = [INTERVENTION, *(f"e0.age_ms.{stream}" for stream in (*facts.views, JOINTS, GRIPPER))]
    for name in (*own, *(f"e0.skew_ms.{view}" for view in facts.views)):
        found[name] = {"dtype": "float32", "shape": [1], "names": None}
    found["timestamp"] = {"dtype": "float32", "shape": [1], "names": None}
    for name in ("frame_index", "episode_index", "index", "task_index"):
        found[name] = {"dtype": "int64", "shape": [1], "names": None}
    return found


def write_tasks(path: Path, tasks: Sequence[str]) -> None:
    """The table that pandas writes of a frame with the column task_index and the tasks as its index."""
    columns = [
        _pandas_column("task_index", "int64", "int64"),
        _pandas_column("task", "unicode", "object"),
    ]
    about = {"index_columns": ["task"], "column_indexes": [], "columns": columns, "pandas_version": "2.0.0"}
    table = pa.table({"task_index": pa.array(range(len(tasks)), pa.int64()), "task": pa.array(tasks, pa.string())})
    pq.write_table(table.replace_schema_metadata({"pandas": json.dumps(about)}), make_folder(path))


def _pandas_column(name: str, kind: str, numpy_kind: str) -> dict[str, Any]:
    return {"name": name, "field_name": name, "pandas_type": kind, "numpy_type": numpy_kind, "metadata": None}


def next_file(root: Path, folder: str, suffix: str) -> int:
    """Number of the first file behind those that a folder holds."""
    files = (root / folder).glob(f"chunk-*/file-*.{suffix}")
    numbers = [int(path.parent.name[6:]) * CHUNK + int(path.stem[5:]) for path in files]
    return max(numbers, default=-1) + 1


def link_tree(source: Path, target: Path) -> None:
    """Hard links (or copies, where the file system has none) of the files that do not change."""
    for folder in ("data", "videos", "meta/episodes"):
        for file in sorted((source / folder).rglob("*")):
            if file.is_file() and not file.is_symlink():
                place = make_folder(target / file.relative_to(source))
                try:
                    os.link(file, place)
                except OSError:
                    shutil.copyfile(file, place)


def _different(settings: dict[str, Any], before: dict[str, Any]) -> str:
    before = {**to_mapping(ConvertConfig()), **before}
    names = sorted({*settings, *before})
    return ", ".join(
        f"{n}: {before.get(n)} there, {settings.get(n)} here" for n in names if settings.get(n) != before.get(n)
    )


def _load_json(path: Path) -> Any:
    if path.stat().st_size > MAX_JSON_BYTES:
        raise ValueError(f"{path} is larger than {MAX_JSON_BYTES} bytes")
    return json.loads(path.read_text(encoding="utf-8"))


def make_folder(path: Path) -> Path:
    """The path, whose folder exists now."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def write_json(path: Path, data: Any) -> None:
    """Write a JSON file, as far as the disk."""
    with make_folder(path).open("w", encoding="utf-8") as file:
        json.dump(data, file, indent=4, ensure_ascii=False)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())


def sync_tree(root: Path) -> None:
    """Wait until a folder and all below it are on the disk."""
    for path in (root, *root.rglob("*")):
        sync(path)
