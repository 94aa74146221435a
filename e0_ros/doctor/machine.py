"""Everything that a check may look at: files under a root, the environment, programs, free disk, live topics."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from e0_ros.core.pairing import SyncConfig
from e0_ros.core.take import Take

MAX_FILE_BYTES = 1 << 20
COMMAND_S = 10.0


@dataclass(frozen=True)
class Output:
    """What a program said and how it ended."""

    status: int
    out: str
    err: str = ""


def run_program(command: Sequence[str], timeout_s: float) -> Output | None:
    """Run a program in the C locale; None if it is not there or does not end in time."""
    environ = {**os.environ, "LC_ALL": "C"}
    try:
        done = subprocess.run(
            list(command), capture_output=True, text=True, errors="replace", timeout=timeout_s, env=environ, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return Output(done.returncode, done.stdout, done.stderr)


def free_bytes(path: Path) -> int | None:
    """Bytes free for this user on a path's file system; None if there is no such path."""
    try:
        return shutil.disk_usage(path).free
    except OSError:
        return None


def no_topics(streams: SyncConfig, seconds: float) -> Take | None:
    """Nobody listens: no topic is seen."""
    return None


@dataclass(frozen=True)
class Machine:
    """A machine as the checks see it; tests put a folder, a table of outputs and a recording in its place.

    Args:
        root: folder that absolute paths (`/proc`, `/sys`, `/dev`) are looked up in.
        environ: environment variables.
        prefix: prefix of the Python environment; `python` is its version.
        program: runs a program for at most some seconds.
        free: bytes free on a path's file system.
        listen: hears the sensor topics of a running graph for some seconds; None if there is no graph, or no ROS.

    """

    root: Path = Path("/")
    environ: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    prefix: str = sys.prefix
    python: tuple[int, int] = (sys.version_info[0], sys.version_info[1])
    program: Callable[[Sequence[str], float], Output | None] = run_program
    free: Callable[[Path], int | None] = free_bytes
    listen: Callable[[SyncConfig, float], Take | None] = no_topics

    def path(self, absolute: str) -> Path:
        """Where an absolute path of the machine lies."""
        return self.root / absolute.lstrip("/")

    def text(self, path: str | Path) -> str | None:
        """A small file's text without the white space around it; None if it cannot be read."""
        try:
            with self.path(str(path)).open("rb") as file:
                return file.read(MAX_FILE_BYTES).decode("utf-8", "replace").strip()
        except OSError:
            return None

    def glob(self, pattern: str) -> list[Path]:
        """Paths that match an absolute pattern, sorted."""
        return sorted(self.root.glob(pattern.lstrip("/")))

    def run(self, *command: str, timeout_s: float = COMMAND_S) -> Output | None:
        """What a program answers; None if it is not there or does not end in time."""
        return self.program(command, timeout_s)
