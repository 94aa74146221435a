"""Writes a packed folder episode by episode, when nobody knows yet how many there will be.

Besides what `PackedSource` reads, a table of labels per frame may be written: with it the folder is one of scenes, too
(`SceneData`), whose labels teach an encoder where things are and are never inputs.
"""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from e0_policy.dataset import DatasetError, Episode
from e0_policy.files import sync
from e0_policy.types import ImageArray

FORMAT = 1


@dataclass(frozen=True)
class Header:
    """What all episodes have in common. `labels` are names of columns; `tasks` names of tasks, in order."""

    embodiment: str
    period_ns: int
    views: tuple[str, ...]
    side_px: int
    names: tuple[str, ...]  # columns of proprioception and of actions
    labels: tuple[str, ...] = ()
    tasks: tuple[str, ...] = ()


class PackedWriter:
    """A folder that appears under its name when `close` is called, with all episodes added until then.

    Raises:
        DatasetError: the folder exists.

    """

    def __init__(self, folder: Path, header: Header) -> None:
        if folder.exists():
            raise DatasetError(f"{folder} exists; give a new folder")
        self._folder, self._header = folder, header
        self._partial = folder.with_name(folder.name + ".partial")
        shutil.rmtree(self._partial, ignore_errors=True)
        self._partial.mkdir(parents=True)
        side, columns = header.side_px, len(header.names)
        self._arrays = {f"view_{view}": _Growing(self._partial, f"view_{view}", (side, side, 3), np.uint8)
                        for view in header.views}  # fmt: skip
        self._arrays |= {n: _Growing(self._partial, n, (columns,), np.float64) for n in ("proprioception", "actions")}
        self._arrays["labels"] = _Growing(self._partial, "labels", (len(header.labels),), np.float32)
        self._arrays["task"] = _Growing(self._partial, "task", (), np.uint8)
        self.episodes: list[dict[str, str | int]] = []

    @property
    def frames(self) -> int:
        """Frames of all episodes so far."""
        return self._arrays["task"].rows

    def add(
        self,
        episode: Episode,
        images: Mapping[str, ImageArray],
        task: int = 0,
        labels: NDArray[np.float32] | None = None,
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
        self.episodes.append(
            {"identifier": episode.identifier, "instruction": episode.instruction, "frames": len(episode)}
        )

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
            "action_names": list(header.names),
            "episodes": self.episodes,
        }
        if header.labels:
            index |= {"format": FORMAT, "count": count, "side_px": header.side_px}
            index |= {"labels": list(header.labels), "tasks": list(header.tasks)}
        (self._partial / "index.json").write_text(json.dumps(index), encoding="utf-8")
        for path in (*self._partial.iterdir(), self._partial):
            sync(path)
        self._partial.replace(self._folder)
        sync(self._folder.parent)
        return self._folder


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
        self._file = (self.folder / f"{self.name}.npy").open("wb")
        self._file.write(self._head())

    def check(self, table: NDArray[np.generic], count: int, episode: str) -> None:
        if table.shape != (count, *self.shape) or table.dtype != self.kind:
            needed = f"{np.dtype(self.kind)} {(count, *self.shape)}"
            raise DatasetError(f"episode {episode}: {self.name} is {table.dtype} {table.shape}; needed is {needed}")

    def append(self, table: NDArray[np.generic]) -> None:
        self._file.write(np.ascontiguousarray(table).data)
        self.rows += len(table)

    def close(self) -> None:
        self._file.seek(0)
        self._file.write(self._head())
        self._file.close()

    def _head(self) -> bytes:
        """As long for every number of rows: numpy leaves room for the first axis to grow."""
        described = {"descr": np.dtype(self.kind).str, "fortran_order": False, "shape": (self.rows, *self.shape)}
        head = io.BytesIO()
        np.lib.format.write_array_header_1_0(head, described)  # type: ignore[no-untyped-call]
        return head.getvalue()
