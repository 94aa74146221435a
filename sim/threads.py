"""Threads that a library started in this process, by their kernel identifiers: how urgent they are, whether they work.

Where the system does not tell (no /proc), there are none.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path

_TASKS = Path("/proc/self/task")
_AT_WORK = b"RD"
"""States of a thread that runs or could, or waits for a disk; one that waits for another thread sleeps (proc(5))."""


def threads() -> frozenset[int]:
    """Every thread of this process."""
    try:
        return frozenset(int(task.name) for task in _TASKS.iterdir())
    except OSError:
        return frozenset()


def yield_to_others(some: Iterable[int], niceness: int) -> None:
    """Let these threads have what the other threads and processes leave."""
    for thread in some:
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, thread, max(niceness, os.getpriority(os.PRIO_PROCESS, thread)))


def any_at_work(some: Iterable[int]) -> bool:
    """Whether one of these threads has something to do; one that has ended has not."""
    return any(_state(thread) in _AT_WORK for thread in some)


def _state(thread: int) -> bytes:
    try:
        line = (_TASKS / str(thread) / "stat").read_bytes()
    except OSError:
        return b"-"
    return line[line.rindex(b")") + 2 :][:1]
