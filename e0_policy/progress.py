"""A progress bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from typing import TextIO

WIDTH = 30


class Bar:
    """Called with what is done and what there is to do.

    Args:
        label: what is being done.
        unit: of the counts, as in "frames".
        stream: where to; standard error if None.

    """

    def __init__(self, label: str, unit: str, stream: TextIO | None = None) -> None:
        self._label, self._unit, self._stream = label, unit, stream or sys.stderr
        self._live, self._start, self._next = self._stream.isatty(), time.monotonic(), 0.0

    def __call__(self, done: int, total: int) -> None:
        """Draw, at most ten times a second (elsewhere than on a terminal every ten seconds), and at the end."""
        now = time.monotonic()
        if now < self._next and done < total:
            return
        self._next = now + (0.1 if self._live else 10.0)
        rate = done / max(now - self._start, 1e-9)
        left_s = (total - done) / max(rate, 1e-9) if done else 0.0
        text = f"{self._label}  {done}/{total} {self._unit}  {rate:.0f}/s  {left_s:.0f} s left"
        if self._live:
            filled = WIDTH * done // max(total, 1)
            text = f"\r\x1b[K[{'#' * filled}{' ' * (WIDTH - filled)}] {text}"
        print(text, end="\n" if done >= total or not self._live else "", file=self._stream, flush=True)
