"""Plays a known plan as chunks: when it starts, which observation gets a chunk, and which rows are in it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from e0_policy.types import MAX_ROWS, FloatArray
from e0_ros.config import check, setting

_PAST_ROWS = 2
"""Rows before the present one, so that a curve through the rows is the same at the seam of two chunks."""


@dataclass(frozen=True)
class PlaybackConfig:
    """How much of the plan each chunk carries."""

    window_rows: int = setting(60, "rows of a chunk", low=4, high=MAX_ROWS)
    replan_rows: int = setting(10, "rows between two chunks", low=1, high=MAX_ROWS)

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True)
class Window:
    """`rows[i]` is in force from `t0_ns + i * period_ns`."""

    rows: FloatArray
    t0_ns: int


class Playback:
    """Answers observations with windows of `rows` `(steps, columns)`, which start at the first one answered.

    playback = Playback(rows, 50, PlaybackConfig(window_rows=4, replan_rows=2))
    playback.answer(1000)  # rows 0 1 2 3 from 1000
    playback.answer(1050)  # None: that window is still good
    playback.answer(1100)  # rows 0 1 2 3 from 1000, then at 1200 rows 2 3 4 5 from 1100, ...

    After the end the last row is repeated, so that the arm holds there for as long as it is asked.
    """

    def __init__(self, rows: FloatArray, period_ns: int, config: PlaybackConfig) -> None:
        self._rows, self._period_ns, self._config = rows, period_ns, config
        self._start_ns: int | None = None
        self._due_row = 0

    def answer(self, stamp_ns: int) -> Window | None:
        """The window for an observation of that stamp, None if there is nothing new to say."""
        if self._start_ns is None:
            self._start_ns = stamp_ns
        row = (stamp_ns - self._start_ns) // self._period_ns
        if row < self._due_row:
            return None
        self._due_row = row + self._config.replan_rows
        first = max(0, row - _PAST_ROWS)
        index = np.minimum(np.arange(first, first + self._config.window_rows), len(self._rows) - 1)
        return Window(self._rows[index], self._start_ns + first * self._period_ns)
