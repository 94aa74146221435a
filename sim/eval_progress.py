"""What an evaluation says while it runs: a bar with time left and success so far on a terminal, else a line each."""

from __future__ import annotations

import sys
import time
from typing import TextIO

from sim.eval_rollouts import ERROR, POLICY, SUCCESS, Rollout

BAR = 24


class Progress:
    """Counts rollouts as they end.

    Args:
        out: where to say it.
        now_s: of a steady clock at the start.

    """

    def __init__(self, out: TextIO = sys.stdout, now_s: float | None = None) -> None:
        self._out, self._live = out, out.isatty()
        self._start_s = time.monotonic() if now_s is None else now_s
        self._total = self._before = self._done = 0
        self._successes = self._valid = self._errors = 0
        self._doing = ""

    def begin(self, total: int, done: int) -> None:
        """So many rollouts in all, and done already."""
        self._total, self._before = total, done
        if done:
            print(f"{done} of {total} rollouts are there already", file=self._out, flush=True)

    def rollout(self, rollout: Rollout, now_s: float | None = None) -> None:
        """A rollout has ended."""
        self._done += 1
        self._errors += rollout.outcome == ERROR
        if rollout.condition == POLICY:
            self._valid += rollout.outcome != ERROR
            self._successes += rollout.outcome == SUCCESS
        self._doing = ""
        text = f"{self._before + self._done:4d}/{self._total}  {rollout.line()}"
        if not self._live or rollout.outcome == ERROR:
            print(f"\r{text}\x1b[K" if self._live else text, file=self._out, flush=True)
        self._draw(time.monotonic() if now_s is None else now_s)

    def step(self, text: str) -> None:
        """What is being done now."""
        self._doing = text
        self._draw(time.monotonic())

    def end(self) -> None:
        """Leave the line."""
        if self._live:
            print(file=self._out, flush=True)

    def line(self, now_s: float) -> str:
        """The bar in words."""
        done = self._before + self._done
        filled = BAR * done // max(self._total, 1)
        rate = f"  success {self._successes}/{self._valid}" if self._valid else ""
        rate += f" = {100 * self._successes / self._valid:.0f} %" if self._valid else ""
        errors = f"  {self._errors} errors" if self._errors else ""
        left = (self._total - done) * (now_s - self._start_s) / self._done if self._done else 0.0
        time_left = f"  {left // 60:.0f}:{left % 60:02.0f} left" if self._done else ""
        bar = "█" * filled + "·" * (BAR - filled)
        return f"{bar} {done}/{self._total}{rate}{errors}{time_left}  {self._doing}"

    def _draw(self, now_s: float) -> None:
        if self._live:
            print(f"\r{self.line(now_s)}\x1b[K", end="", file=self._out, flush=True)
