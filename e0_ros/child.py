"""One process of a graph: its own process group, its output line by line, its end by signals."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

_LIBC = ctypes.CDLL(None, use_errno=True)
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36


def die_with_parent() -> None:
    """No node outlives a launcher that was killed (Linux; fires when the thread that started it ends), and each hears
    SIGINT, which a shell's background jobs inherit as ignored. SIGTERM would end `ros2 launch` alone: it passes on
    SIGINT, if its stdin is no terminal, and leaves its processes behind at SIGTERM.
    """
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGINT)
    signal.signal(signal.SIGINT, signal.SIG_DFL)


class Child:
    """A started process.

    Args:
        name: as in the graph.
        command: what to run.
        environ: its environment.
        on_line: called with the name and each line of its output, from a thread of its own.

    """

    def __init__(
        self, name: str, command: Sequence[str], environ: Mapping[str, str], on_line: Callable[[str, str], None]
    ) -> None:
        self.name, self.command = name, tuple(command)
        self.started_s = time.monotonic()
        self._on_line = on_line
        self._process = subprocess.Popen(
            list(command),
            env=dict(environ),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=die_with_parent,
        )
        self._reader = threading.Thread(target=self._read, name=f"output of {name}", daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        """Process id, also of its group."""
        return self._process.pid

    def processor_s(self) -> float:
        """Processor time that its threads have used so far [s]; 0 if it has ended, or the system does not tell."""
        with contextlib.suppress(OSError):
            fields = Path(f"/proc/{self.pid}/stat").read_bytes().rsplit(b")", 1)[1].split()
            return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")  # utime and stime of proc(5)
        return 0.0

    def poll(self) -> int | None:
        """Exit status, negative for a signal; None while it runs."""
        return self._process.poll()

    def send(self, number: int) -> None:
        """Signal the whole group; also after its leader has ended, for what that left behind."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, number)

    def finish_output(self, timeout_s: float) -> None:
        """Wait until the last line was read."""
        self._reader.join(timeout_s)

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as stream:
            for line in stream:
                self._on_line(self.name, line.decode("utf-8", "replace").rstrip("\r\n"))


def describe_status(status: int) -> str:
    """`status 3`, or the signal's name."""
    if status >= 0:
        return f"status {status}"
    try:
        return signal.Signals(-status).name
    except ValueError:
        return f"signal {-status}"


def shell_status(status: int) -> int:
    """Exit status as a shell gives it: 128 + number for a signal."""
    return status if status >= 0 else 128 - status


def stop_all(children: Sequence[Child], patience_s: Sequence[tuple[int, float]], hurry: threading.Event) -> None:
    """Signal running groups, ever more firmly, until every leader has ended; then kill what they left behind.

    Args:
        children: the processes.
        patience_s: signals and how long to wait after each [s].
        hurry: set to skip to the last signal.

    """
    for number, patience in patience_s:
        running = [child for child in children if child.poll() is None]
        if hurry.is_set() and number != patience_s[-1][0]:
            continue
        for child in running:
            child.send(number)
        deadline = time.monotonic() + patience
        while any(child.poll() is None for child in running) and time.monotonic() < deadline:
            if hurry.wait(0.02) and number != patience_s[-1][0]:
                break
    for child in children:
        child.send(signal.SIGKILL)
        child.finish_output(1.0)


def adopt_orphans() -> None:
    """Become the parent of what a child leaves behind when it dies (Linux), so that `orphans` finds it."""
    _LIBC.prctl(_PR_SET_CHILD_SUBREAPER, 1)


def orphans(known: Iterable[int]) -> list[int]:
    """Process ids of this process's children beside the known ones; those that have ended are reaped."""
    found = {int(pid) for task in Path("/proc/self/task").glob("*/children") for pid in task.read_text().split()}
    return [pid for pid in sorted(found - set(known)) if not _reaped(pid)]


def _reaped(pid: int) -> bool:
    with contextlib.suppress(ChildProcessError):
        return os.waitpid(pid, os.WNOHANG)[0] == pid
    return True
