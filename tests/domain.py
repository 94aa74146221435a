"""What a test leaves behind that speaks in its ROS domain."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterable, Iterator, Set
from pathlib import Path


def descendants(pid: int | str = "self") -> Iterator[int]:
    """Process ids of the children of a process, and of theirs."""
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").glob("*/children"):
            for child in task.read_text().split():
                yield int(child)
                yield from descendants(child)


def speakers(pids: Iterable[int]) -> dict[int, str]:
    """Those of the processes that have loaded ROS 2, with their command lines."""
    found = {}
    for pid in pids:
        with contextlib.suppress(OSError):
            if "/librcl.so" in Path(f"/proc/{pid}/maps").read_text():
                found[pid] = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
    return found


def left_behind(before: Set[int] = frozenset(), seconds: float = 10.0) -> dict[int, str]:
    """Descendants that speak ROS, were not there before and do not end by themselves, with their command lines."""
    limit = time.monotonic() + seconds
    while (left := speakers(set(descendants()) - before)) and time.monotonic() < limit:
        time.sleep(0.05)
    return left


def end(left: Iterable[int], seconds: float = 10.0) -> None:
    """Kill processes and wait until they are gone; those of this process are reaped."""
    for pid in left:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        limit = time.monotonic() + seconds
        while Path(f"/proc/{pid}").exists() and time.monotonic() < limit:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)
            time.sleep(0.01)
