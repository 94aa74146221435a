"""Writes a packed folder episode by episode, when nobody knows yet how many there will be; a killed run goes on.

Until it is whole the folder is called NAME.partial. A line of its journal follows each episode's arrays to the disk,
and who opens it again cuts off whatever no line tells of.

Besides what `PackedSource` reads, a table of labels per frame may be written: with it the folder is one of scenes, too
(`SceneData`), whose labels teach an encoder where things are and are never inputs.
"""

from __future__ import annotations

import fcntl
import io
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from e0_policy.dataset import DatasetError, Episode
from e0_policy.files import sync
from e0_policy.types import ImageArray, Representation

FORMAT = 1
_BEGUN, _JOURNAL = "begun.json", "journal.jsonl"


@dataclass(frozen=True)
class Header:
    """What all episodes have in common. `labels` are names of columns; `tasks` names of tasks, in order.

    `origin` says how the episodes are made; a folder that was begun otherwise is not continued.
    """

    embodiment: str
    period_ns: int
    views: tuple[str, ...]
    side_px: int
    names: tuple[str, ...]  # columns of proprioception, and of actions that are joint positions
    labels: tuple[str, ...] = ()
    tasks: tuple[str, ...] = ()
    origin: str = ""
    step_names: tuple[str, ...] = ()  # columns of actions that are a benchmark's own rows; empty: joint positions

    @property
    def action_names(self) -> tuple[str, ...]:
        """Columns of actions."""
        return self.step_names or self.names

    @property
    def representation(self) -> Representation:
        """What rows of actions are."""
        return Representation.EE_DELTA_STEP if self.step_names else Representation.JOINT_POSITION


class PackedWriter:
    """A folder that appears under its name when `close` is called, with all episodes added until then.

    Attributes:
        journal: a line for every episode, added or left out, also of runs that were interrupted.

    Raises:
        DatasetError: the folder exists, was begun with another header, or is being written by another process.

    """

    def __init__(self, folder: Path, header: Header) -> None:
        if folder.exists():
            raise DatasetError(f"{folder} exists; give a new folder")
        self._folder, self._header = folder, header
        self._partial = folder.with_name(folder.name + ".partial")
        _begin(self._partial, json.dumps(asdict(header)))
        self.journal, self._journal = _open_journal(self._partial / _JOURNAL)
        rows, shapes = self.frames, _shapes(header)
        self._arrays = {name: _Growing(self._partial, name, *shapes[name], rows) for name in shapes}

    @property
    def frames(self) -> int:
        """Frames of all episodes so far."""
        return sum(line["frames"] for line in self.journal)

    @property
    def kept(self) -> int:
        """Episodes added so far."""
        return sum(line["frames"] > 0 for line in self.journal)

    def add(
        self,
        episode: Episode,
        images: Mapping[str, ImageArray],
        task: int = 0,
        labels: NDArray[np.float32] | None = None,
        note: Mapping[str, Any] | None = None,
    ) -> None:
        """Append an episode: `(T, side, side, 3)` images of every view, `(T, labels)` and the task's index.

        Raises:
            DatasetError: a table of another shape; nothing is written then.

        """
        count, header = len(episode), self._header
        tables: dict[str, NDArray[np.generic]] = {f"view_{v}": images[v] for v in header.views}
        tables |= {"proprioception": episode.proprioception, "actions": episode.actions}
        tables["labels"] = np.zeros((count, 0), np.float32) if labels is None else labels
        tables["task"] = np.full(count, task, np.uint8)
        for name, table in tables.items():
            self._arrays[name].check(table, count, episode.identifier)
        for name, table in tables.items():
            self._arrays[name].append(table)
        about = {"identifier": episode.identifier, "instruction": episode.instruction, "frames": count}
        scene = {"scene": episode.scene} if episode.scene else {}
        self._note({**about, **scene, **(note or {})})

    def leave_out(self, note: Mapping[str, Any]) -> None:
        """An episode that was run and is not kept."""
        self._note({"frames": 0, **note})

    def close(self) -> Path:
        """Finish the folder, which needs an episode."""
        header, count = self._header, self.frames
        for array in self._arrays.values():
            array.close()
        index = {
            "embodiment": header.embodiment,
            "period_ns": header.period_ns,
            "views": list(header.views),
            "proprioception_names": list(header.names),
            "action_names": list(header.action_names),
            "representation": header.representation.label,
            "episodes": [line for line in self.journal if line["frames"]],
            "left_out": [line for line in self.journal if not line["frames"]],
            "origin": header.origin,
        }
        if header.labels:
            index |= {"format": FORMAT, "count": count, "side_px": header.side_px}
            index |= {"labels": list(header.labels), "tasks": list(header.tasks)}
        (self._partial / "index.json").write_text(json.dumps(index), encoding="utf-8")
        for path in (*self._partial.iterdir(), self._partial):
            sync(path)
        self._partial.replace(self._folder)
        sync(self._folder.parent)
        self._journal.close()
        for name in (_BEGUN, _JOURNAL):
            (self._folder / name).unlink()
        return self._folder

    def _note(self, line: dict[str, Any]) -> None:
        self._journal.write(json.dumps(line).encode() + b"\n")
        self._journal.flush()
        os.fsync(self._journal.fileno())
        self.journal.append(line)


def _begin(partial: Path, plan: str) -> None:
    """The unfinished folder: the one that is there, if it was begun alike, or a new one."""
    begun = partial / _BEGUN
    if begun.is_file():
        if begun.read_text(encoding="utf-8") != plan:
            raise DatasetError(f"{partial} was begun with other values; delete it, or give another folder")
        (partial / "index.json").unlink(missing_ok=True)
        return
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    begun.write_text(plan, encoding="utf-8")


def _open_journal(path: Path) -> tuple[list[dict[str, Any]], IO[bytes]]:
    """The whole lines of a journal, and the file behind them, which is this process's alone."""
    file = path.open("a+b")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise DatasetError(f"{path.parent} is being written by another process") from None
    file.seek(0)
    whole, _, _ = file.read().rpartition(b"\n")
    file.truncate(len(whole) + 1 if whole else 0)
    return [json.loads(line) for line in whole.splitlines()], file


def _shapes(header: Header) -> dict[str, tuple[tuple[int, ...], type]]:
    """Of every array: the shape of a row, and the type."""
    side = header.side_px
    views = {f"view_{view}": ((side, side, 3), np.uint8) for view in header.views}
    tables = {"proprioception": header.names, "actions": header.action_names}
    numbers = {name: ((len(columns),), np.float64) for name, columns in tables.items()}
    return {**views, **numbers, "labels": ((len(header.labels),), np.float32), "task": ((), np.uint8)}


@dataclass
class _Growing:
    """An .npy file that rows are appended to; its header is right when it is closed."""

    folder: Path
    name: str
    shape: tuple[int, ...]
    kind: type
    rows: int = 0
    _file: IO[bytes] = field(init=False)

    def __post_init__(self) -> None:
        path = self.folder / f"{self.name}.npy"
        path.touch()
        self._file, head = path.open("r+b"), self._head()
        end = len(head) + self.rows * int(np.prod(self.shape)) * np.dtype(self.kind).itemsize
        if self.rows and path.stat().st_size < end:
            raise DatasetError(f"{path} has {path.stat().st_size} of {end} bytes; delete {self.folder}")
        self._file.write(head)
        self._file.truncate(end)
        self._file.seek(end)

    def check(self, table: NDArray[np.generic], count: int, episode: str) -> None:
        if table.shape != (count, *self.shape) or table.dtype != self.kind:
            needed = f"{np.dtype(self.kind)} {(count, *self.shape)}"
            raise DatasetError(f"episode {episode}: {self.name} is {table.dtype} {table.shape}; needed is {needed}")

    def append(self, table: NDArray[np.generic]) -> None:
        if table.size:
            self._file.write(np.ascontiguousarray(table).data)
        self._file.flush()
        os.fsync(self._file.fileno())
        self.rows += len(table)

    def close(self) -> None:
        self._file.seek(0)
        self._file.write(self._head())
        self._file.close()

    def _head(self) -> bytes:
        """As long for every number of rows: numpy leaves room for the first axis to grow."""
        described = {"descr": np.dtype(self.kind).str, "fortran_order": False, "shape": (self.rows, *self.shape)}
        head = io.BytesIO()
        np.lib.format.write_array_header_1_0(head, described)
        return head.getvalue()
