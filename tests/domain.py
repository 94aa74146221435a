"""A ROS domain for tests alone: what they publish, commands and hostile bytes among it, must reach nobody's arm."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import time
from collections.abc import Iterable, Iterator, Set
from pathlib import Path

DOMAINS = range(1, 101)
"""Of the 102 whose ports are below Linux's ephemeral ones; 0 is everybody's."""

_BASE, _GAIN, _FIRST, _LAST = 7400, 250, 10, 248
"""RTPS 2.5, 9.6.2.3: ports of a domain, of its first participant, and of one that no bench has (the 120th)."""


@contextlib.contextmanager
def own_domain() -> Iterator[int]:
    """Leave the shell's domain for a free one, on this host only, held until the end.

    A socket on a port that no participant gets keeps other runs of the tests out of it.
    """
    shell = os.environ.get("ROS_DOMAIN_ID", "0")
    start = os.getpid() % len(DOMAINS)
    held = None
    for domain in (*DOMAINS[start:], *DOMAINS[:start]):
        if str(domain) != shell and (held := _reserve(domain)) is not None:
            break
    if held is None:
        raise RuntimeError("every ROS domain from 1 to 100 is in use on this host; end what runs there")
    with held:
        os.environ["ROS_DOMAIN_ID"] = str(domain)
        os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
        os.environ.pop("ROS_STATIC_PEERS", None)
        yield domain


def _reserve(domain: int) -> socket.socket | None:
    """The socket that holds a domain; None if it is held, or a participant is there."""
    base = _BASE + _GAIN * domain
    held = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as first:
            first.bind(("127.0.0.1", base + _FIRST))
        held.bind(("127.0.0.1", base + _LAST))
    except OSError:
        held.close()
        return None
    return held


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
