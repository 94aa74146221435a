"""Rows of a CSV file that survives a kill: on disk one by one, and a torn last one is not there."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from e0_ros.config import ConfigError


def whole_rows(path: Path, columns: Sequence[str]) -> tuple[list[list[str]], int]:
    """Rows of a file without its head, and how many bytes they take; none if there is no file.

    Raises:
        ConfigError: it has other columns.

    """
    if not path.is_file():
        return [], 0
    data = path.read_bytes()
    data = data[: data.rfind(b"\n") + 1]
    rows = list(csv.reader(io.StringIO(data.decode("utf-8"), newline="")))
    if rows and rows[0] != list(columns):
        raise ConfigError(f"{path} has other columns than this version writes; choose another --out")
    return rows[1:], len(data)


class CsvRows:
    """Appends rows to a file, which it makes if it is not there.

    Args:
        path: of the file.
        columns: names of the columns.

    Attributes:
        rows: that were there.

    Raises:
        ConfigError: the file has other columns.

    """

    def __init__(self, path: Path, columns: Sequence[str]) -> None:
        self.rows, whole = whole_rows(path, columns)
        self._file = path.open("a", encoding="utf-8", newline="")
        self._file.truncate(whole)
        if not whole:
            self.add(columns)

    def add(self, values: Iterable[Any]) -> None:
        """Append a row; it is on disk when this returns."""
        line = io.StringIO()
        csv.writer(line, lineterminator="\n").writerow(values)
        self._file.write(line.getvalue())
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file."""
        self._file.close()
