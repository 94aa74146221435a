"""Plays a plan that grows as chunks: when its rows are due, which observation gets a chunk, which rows are in it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from e0_policy.types import MAX_ROWS, FloatArray
from e0_ros.config import check, setting

_PAST_ROWS = 2
"""Rows before the present one, so that a curve through the rows is the same at the seam of two chunks."""
_MOST_ROWS = 100_000
"""Of an episode: more than an hour of rows for 20 Hz."""


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
    """Answers observations with windows of the rows added so far.

    playback = Playback(50, PlaybackConfig(window_rows=4, replan_rows=2))
    playback.over(1000)               # True: there is no row yet
    playback.add(rows 0 1 2, 1000)
    playback.answer(1000)             # rows 0 1 2 2 from 1000
    playback.answer(1050)             # None: that window is still good
    playback.over(1150)               # True: row 2 has been in force for its period
    playback.add(rows 3 4, 1170)      # too late for 1150: row 2 is held once more, row 3 is due at 1200
    playback.answer(1150)             # rows 1 2 2 3 from 1050, ...

    After the end the last row is repeated, so that the arm holds there for as long as it is asked.
    """

    def __init__(self, period_ns: int, config: PlaybackConfig) -> None:
        self._period_ns, self._config = period_ns, config
        self._rows: list[FloatArray] = []
        self._start_ns = 0
        self._due_row = self._told = 0

    def over(self, stamp_ns: int) -> bool:
        """Whether every row has been in force for its period."""
        return not self._rows or self._row(stamp_ns) >= len(self._rows)

    def add(self, rows: FloatArray, from_ns: int) -> None:
        """Go on with `rows` `(steps, columns)`, none of which is due before `from_ns`.

        Raises:
            ValueError: that is too long after the first.

        """
        if not self._rows:
            self._start_ns = from_ns
        due = -((self._start_ns - from_ns) // self._period_ns)
        if due > _MOST_ROWS:
            raise ValueError(f"a motion from row {due} of an episode on; {_MOST_ROWS} rows are allowed")
        self._rows += self._rows[-1:] * (due - len(self._rows))
        self._rows += list(rows)

    def answer(self, stamp_ns: int) -> Window | None:
        """The window for an observation of that stamp, None if there is nothing new to say."""
        row = self._row(stamp_ns)
        if not self._rows or (row < self._due_row and self._told == len(self._rows)):
            return None
        self._due_row, self._told = row + self._config.replan_rows, len(self._rows)
        first = max(0, row - _PAST_ROWS)
        index = np.minimum(np.arange(first, first + self._config.window_rows), len(self._rows) - 1)
        return Window(np.array(self._rows)[index], self._start_ns + first * self._period_ns)

    def _row(self, stamp_ns: int) -> int:
        return (stamp_ns - self._start_ns) // self._period_ns
