"""A person at a terminal, for tests: starts `e0`, reads what it shows and presses keys.

with Person(["record", "--attach"]) as person:
    person.wait_for("space start")
    person.press(" ")
"""

from __future__ import annotations

import os
import pty
import re
import select
import subprocess
import sys
import time
from collections.abc import Callable

ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class Person:
    """Reads the terminal and presses keys."""

    def __init__(self, words: list[str]) -> None:
        """Start `e0` with these words."""
        self.handle, terminal = pty.openpty()
        command = [sys.executable, "-m", "e0_ros.cli", *words]
        self.process = subprocess.Popen(command, stdin=terminal, stdout=terminal, stderr=terminal, close_fds=True)
        os.close(terminal)
        self.seen = ""

    def press(self, keys: str) -> None:
        os.write(self.handle, keys.encode())

    def wait_for(self, pattern: str, seconds: float = 120.0) -> re.Match[str]:
        """The next match of what is shown; what came before it is forgotten."""
        deadline = time.monotonic() + seconds
        while not (found := re.search(pattern, self.seen)):
            assert time.monotonic() < deadline, f"no {pattern!r} in {self.seen[:2000]!r} ... {self.seen[-1000:]!r}"
            if select.select([self.handle], [], [], 0.2)[0]:
                self.seen += ESCAPES.sub("", self._read())
        self.seen = self.seen[found.end() :]
        return found

    def _read(self) -> str:
        try:
            return os.read(self.handle, 65536).decode("utf-8", "replace")
        except OSError:  # it has ended
            raise AssertionError(f"it ended, having said {self.seen[-2000:]!r}") from None

    def end(self) -> int:
        """Its exit status, once it has ended."""
        return self.process.wait(60.0)

    def __enter__(self) -> Person:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.handle)


Seat = Callable[[list[str]], Person]
"""Starts a person, who is gone after the test."""
