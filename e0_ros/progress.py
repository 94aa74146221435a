"""A progress bar with rate and time left: a moving line on a terminal, a line now and then in a log."""

from __future__ import annotations

import sys
import time
from typing import TextIO

WIDTH = 24
LOG_EVERY_S = 10.0


class Progress:
    """Counts `done` of `total`; `unit` names what is counted."""

    def __init__(self, total: int, unit: str, stream: TextIO | None = None) -> None:
        self._total, self._unit, self._stream = total, unit, stream or sys.stderr
        self._terminal = self._stream.isatty()
        self._begin = self._shown = time.monotonic()
        self.done = 0

    def advance(self, note: str = "") -> None:
        """One more is done."""
        self.done += 1
        now = time.monotonic()
        due = self._terminal or now - self._shown >= LOG_EVERY_S or self.done == self._total
        if due:
            self._shown = now
            text = self.line(now - self._begin, note)
            self._stream.write(f"\r\033[K{text}" if self._terminal else f"{text}\n")
            self._stream.flush()

    def say(self, text: str) -> None:
        """Write a line above the bar."""
        self._stream.write(f"\r\033[K{text}\n" if self._terminal else f"{text}\n")
        self._stream.flush()

    def close(self) -> None:
        """End the line."""
        if self._terminal and self.done:
            self._stream.write("\n")
            self._stream.flush()

    def line(self, elapsed_s: float, note: str = "") -> str:
        """The bar as text after `elapsed_s`."""
        share = self.done / self._total if self._total else 1.0
        bar = "#" * round(share * WIDTH)
        rate = self.done / elapsed_s if elapsed_s > 0 else 0.0
        left = (self._total - self.done) / rate if rate else 0.0
        text = f"[{bar:<{WIDTH}}] {self.done}/{self._total} {self._unit}  {rate:.2f}/s  {clock(left)} left"
        return f"{text}  {note}" if note else text


def clock(seconds: float) -> str:
    """A duration as `1:02` or `1:02:03`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
