"""One line per stage on the terminal, everything else in a log file."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

TAIL_LINES = 15


class StageError(Exception):
    """A stage's command failed; the message holds the end of its output and where the rest is."""


class Progress:
    """Runs the stages of set-up.

    Args:
        log: file that receives every command and its output.
        total: number of stages, for `[2/6]`.

    """

    def __init__(self, log: Path, total: int) -> None:
        log.parent.mkdir(parents=True, exist_ok=True)
        self._path, self._log = log, log.open("w", encoding="utf-8", errors="replace")
        self._total, self._number = total, 0
        self._live = sys.stdout.isatty()

    def stage(self, name: str, done: bool, work: Callable[[], None]) -> None:
        """Do one stage, or say that it was done before."""
        self._number += 1
        head = f"[{self._number}/{self._total}] {name:<14}"
        if done:
            print(f"{head} done before", flush=True)
            return
        print(f"{head} ", end="", flush=True)
        started = time.monotonic()
        try:
            work()
        except BaseException as error:
            self._show("")
            print("interrupted" if isinstance(error, KeyboardInterrupt) else "failed", flush=True)
            raise
        self._show("")
        print(f"{time.monotonic() - started:.0f} s", flush=True)

    def run(self, command: Sequence[str], environ: dict[str, str] | None = None, cwd: Path | None = None) -> str:
        """Run a command into the log and return its output.

        Raises:
            StageError: it ended with another status than 0.

        """
        self._log.write(f"\n$ {' '.join(command)}\n")
        process = subprocess.Popen(
            list(command), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, text=True,
            errors="replace", env=environ, cwd=str(cwd) if cwd else None,
        )  # fmt: skip
        lines = []
        try:
            assert process.stdout is not None
            for line in process.stdout:
                self._log.write(line)
                self._log.flush()
                lines.append(line)
                self._show(line.strip())
            status = process.wait()
        except BaseException:
            process.terminate()
            process.wait()
            raise
        if status != 0:
            tail = "    " + "    ".join(lines[-TAIL_LINES:])
            raise StageError(f"{Path(command[0]).name} ended with status {status}; its last lines:\n{tail}")
        return "".join(lines)

    def _show(self, text: str) -> None:
        """Show the present activity after the stage's name, on a terminal only."""
        if not self._live or os.environ.get("TERM") == "dumb":
            return
        room = max(shutil.get_terminal_size().columns - 24, 10)
        print(f"\x1b7\x1b[K{text[:room]}\x1b8" if text else "\x1b[K", end="", flush=True)
