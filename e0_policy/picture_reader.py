"""Pictures (PNG, JPEG) that lie in parquet files, row by row, as LeRobot keeps images that are no videos."""

from __future__ import annotations

import io
import os
import threading
from collections import OrderedDict
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow.parquet as pq

from e0_policy.types import ImageArray
from e0_policy.video_reader import VideoError

HELD_GROUPS = 4
"""Row groups, still compressed, that each thread keeps in memory."""


class Pictures:
    """Pictures of many files by row. Reading rows in order reads each group once; others cost a group."""

    def __init__(self) -> None:
        self._local = threading.local()

    def read(self, path: Path, column: str, row: int) -> ImageArray:
        """The picture of a row, `uint8 (height, width, 3)` RGB.

        Raises:
            VideoError: no such row, or no picture in it.

        """
        groups = self._groups()
        for (held, name, first), values in groups.items():
            if (held, name) == (path, column) and first <= row < first + len(values):
                groups.move_to_end((held, name, first))
                return _decode(values[row - first], path, row)
        first, values = _read_group(pq.ParquetFile(path), column, row)
        groups[path, column, first] = values
        if len(groups) > HELD_GROUPS:
            groups.popitem(last=False)
        return _decode(values[row - first], path, row)

    def _groups(self) -> OrderedDict[tuple[Path, str, int], list[Any]]:
        if getattr(self._local, "process", None) != os.getpid():
            self._local.process, self._local.groups = os.getpid(), OrderedDict()
        groups: OrderedDict[tuple[Path, str, int], list[Any]] = self._local.groups
        return groups


def _read_group(file: pq.ParquetFile, column: str, row: int) -> tuple[int, list[Any]]:
    """First row and values of the row group that holds a row."""
    first = 0
    for number in range(file.num_row_groups):
        count = file.metadata.row_group(number).num_rows
        if row < first + count:
            return first, file.read_row_group(number, [column])[column].to_pylist()
        first += count
    raise VideoError(f"row {row} of {first} rows was asked for")


def _decode(value: Any, path: Path, row: int) -> ImageArray:
    content = value.get("bytes") if isinstance(value, dict) else value
    if not isinstance(content, bytes):
        raise VideoError(f"{path}: row {row} holds no picture")
    try:
        with av.open(io.BytesIO(content)) as container:
            image = next(container.decode(video=0)).to_ndarray(format="rgb24")
            return image.astype(np.uint8, copy=False)
    except (av.FFmpegError, StopIteration) as error:
        raise VideoError(f"{path}: the picture of row {row} cannot be decoded: {error}") from None
