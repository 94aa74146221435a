"""Rows for `ReplayPolicy` out of a bag's action chunks or an .npz file."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from e0_policy.types import ActionChunk, FloatArray, NoChunk, Representation
from e0_ros import interfaces
from e0_ros.core.bag_reader import Bag

ReadChunk = Callable[[Any], ActionChunk | NoChunk]

MAX_NPZ_BYTES = 256 * 1024 * 1024
MAX_ROWS = 1_000_000


@dataclass(frozen=True)
class Recording:
    """Absolute joint-position rows `(rows, columns)`, `period_ns` apart, and whose they are."""

    rows: FloatArray
    period_ns: int
    embodiment: str


def load_recording(path: Path, read_chunk: ReadChunk) -> Recording:
    """Read `.npz` (keys `rows`, `period_ns`, `embodiment`) or a bag in MCAP with action chunks.

    `read_chunk` makes a value of a bag's message, which has the fields of e0_msgs/ActionChunk.

    Raises:
        ValueError: no such path, or nothing in it to replay.

    """
    if not path.exists():
        raise ValueError(f"{path}: nothing there to replay; give a bag's folder, an .mcap or an .npz file")
    return _load_npz(path) if path.suffix == ".npz" else merge_chunks(_bag_chunks(path, read_chunk), str(path))


def merge_chunks(chunks: Iterable[ActionChunk], where: str = "chunks") -> Recording:
    """Rows on one time grid, as they were in force: each chunk from its t0 until the next one's.

    The grid starts at the first chunk's t0 and has its period. A grid time takes the row in force at it; behind the
    end of a chunk its last row stays in force.

    Raises:
        ValueError: no joint-position chunk, or chunks of several embodiments, sizes or periods.

    """
    plans = sorted(
        (c for c in chunks if c.representation == Representation.JOINT_POSITION), key=lambda c: (c.t0_ns, c.sequence)
    )
    if not plans:
        raise ValueError(f"{where}: no joint-position action chunk to replay")
    kinds = {(c.embodiment, c.rows.shape[1], c.period_ns) for c in plans}
    if len(kinds) > 1:
        raise ValueError(f"{where}: chunks of {len(kinds)} kinds (embodiment, columns, period): {sorted(kinds)}")
    start_ns, period_ns = plans[0].t0_ns, plans[0].period_ns
    count = (max(c.end_ns for c in plans) - start_ns) // period_ns + 1
    if count > MAX_ROWS:
        raise ValueError(f"{where}: {count} rows between the first and the last chunk; allowed are {MAX_ROWS}")
    rows = np.empty((count, plans[0].rows.shape[1]))
    for chunk in plans:
        first = -((start_ns - chunk.t0_ns) // period_ns)
        index = (start_ns + np.arange(first, count) * period_ns - chunk.t0_ns) // period_ns
        rows[first:] = chunk.rows[np.minimum(index, len(chunk.rows) - 1)]
    return Recording(rows, period_ns, plans[0].embodiment)


def _load_npz(path: Path) -> Recording:
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(entry.file_size for entry in archive.infolist())
        if size > MAX_NPZ_BYTES:
            raise ValueError(f"{path}: {size} bytes unpacked; allowed are {MAX_NPZ_BYTES}")
        with np.load(path, allow_pickle=False) as data:
            return Recording(
                np.asarray(data["rows"], dtype=np.float64), int(data["period_ns"]), str(data["embodiment"].item())
            )
    except (KeyError, ValueError, zipfile.BadZipFile, OSError) as error:
        raise ValueError(f"{path}: not a replay file (rows, period_ns, embodiment): {error}") from None


def _bag_chunks(path: Path, read_chunk: ReadChunk) -> Iterator[ActionChunk]:
    bag = Bag(path)
    for message in bag.messages([interfaces.ACTION_CHUNK.name]):
        chunk = read_chunk(bag.decode(message))
        if isinstance(chunk, ActionChunk):
            yield chunk
