"""What the `meta/` folder of a LeRobotDataset v3.0 says, this project's or anybody's."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import pyarrow as pa
import pyarrow.parquet as pq

from e0_ros.core.inspection import short
from e0_ros.core.inspection_images import MAX_VIEWS

MAX_JSON_BYTES = 2**28
BAD_DATA = (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError, pa.ArrowException, av.FFmpegError)
"""What reading others' files may raise."""


class DatasetReadError(ValueError):
    """A dataset is missing, of another version or damaged; the message says which, where, and what to do."""


@dataclass(frozen=True)
class Dataset:
    """What `meta/` says: `info`, a row of plain values per episode, task texts by index, and `meta/e0.json` if ours."""

    root: Path
    info: dict[str, Any]
    episodes: list[dict[str, Any]]
    tasks: dict[int, str]
    ours: dict[str, Any]

    @property
    def fps(self) -> float:
        """Frames per second."""
        return float(self.info["fps"])

    @property
    def views(self) -> tuple[str, ...]:
        """Video features, the ones that this page has room for."""
        keys = [key for key, f in self.info["features"].items() if f.get("dtype") == "video"]
        return tuple(keys[:MAX_VIEWS])

    def file(self, template: str, **places: Any) -> Path:
        """A file by its template in `info.json`, which must stay inside the dataset.

        Raises:
            DatasetReadError: it leads out of the folder, or the template is malformed.

        """
        try:
            path = (self.root / str(self.info[template]).format(**places)).resolve()
        except (KeyError, IndexError, ValueError) as error:
            raise DatasetReadError(f"{self.root}: info.json: {template} is malformed ({error!r})") from None
        if not path.is_relative_to(self.root.resolve()):
            raise DatasetReadError(f"{self.root}: info.json: {template} leads out of the dataset")
        return path


def is_dataset(path: Path) -> bool:
    """Whether a folder looks like a LeRobot dataset of any version."""
    return (path / "meta" / "info.json").is_file()


def open_dataset(root: Path) -> Dataset:
    """Read `meta/`.

    Raises:
        DatasetReadError: another version, or files that are missing or damaged.

    """
    try:
        info = _json(root / "meta" / "info.json")
        version = str(info.get("codebase_version", ""))
        if not version.startswith("v3"):
            raise DatasetReadError(
                f"{root}: LeRobot dataset of version {short(version) or 'unknown'}; v3.0 is read, so convert it with "
                "lerobot's convert_dataset_v21_to_v30"
            )
        if not float(info["fps"]) > 0 or not all(isinstance(f, dict) for f in info["features"].values()):
            raise DatasetReadError(f"{root}: info.json: fps must be above 0 and features a mapping of mappings")
        ours = root / "meta" / "e0.json"
        return Dataset(root, info, _episodes(root), _tasks(root), _json(ours) if ours.is_file() else {})
    except DatasetReadError:
        raise
    except BAD_DATA as error:
        raise DatasetReadError(f"{root}: meta/ is damaged or incomplete ({type(error).__name__}: {error})") from None


def _episodes(root: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for path in sorted((root / "meta" / "episodes").glob("chunk-*/file-*.parquet")):
        source = pq.ParquetFile(path)
        columns = [c for c in source.schema_arrow.names if not c.startswith("stats/")]
        rows += source.read(columns=columns, use_threads=False).to_pylist()
    if not rows:
        raise DatasetReadError(f"{root}: meta/episodes holds no episodes")
    return sorted(rows, key=lambda row: int(row["episode_index"]))


def _tasks(root: Path) -> dict[int, str]:
    path = root / "meta" / "tasks.parquet"
    if not path.is_file():
        return {}
    rows = pq.read_table(path, use_threads=False).to_pylist()
    return {int(row["task_index"]): str(next((v for k, v in row.items() if k != "task_index"), "")) for row in rows}


def _json(path: Path) -> dict[str, Any]:
    if path.stat().st_size > MAX_JSON_BYTES:
        raise DatasetReadError(f"{path}: {path.stat().st_size} bytes; at most {MAX_JSON_BYTES} are read")
    data = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(data, dict):
        raise DatasetReadError(f"{path}: a JSON object is needed, got {type(data).__name__}")
    return data
