"""Shared libraries that wheels take from the system and a bare Debian or Ubuntu lacks, unpacked into `.venv/lib`.

python -m e0_ros.bootstrap.libraries

ROS 2's wheels have every Python of the environment look there.
"""

from __future__ import annotations

import contextlib
import ctypes
import sys
import tempfile
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from e0_ros.bootstrap.archive import Archive, ArchiveError

NEEDS: dict[str, dict[str, tuple[str, ...]]] = {
    "cv2": {"libGL.so.1": ("libgl1",), "libgthread-2.0.so.0": ("libglib2.0-0t64", "libglib2.0-0")},
    "sapien": {"libX11.so.6": ("libx11-6",)},
}
"""Per module: library, and the packages that hold it by one name or another."""


def missing(modules: Sequence[str] = tuple(NEEDS)) -> dict[str, tuple[str, ...]]:
    """Libraries that installed modules need and that cannot be loaded, each with the names of its package."""
    needed = {name: packages for module in modules if find_spec(module) for name, packages in NEEDS[module].items()}
    return {name: packages for name, packages in needed.items() if not _loadable(name)}


def supply(wanted: dict[str, tuple[str, ...]], folder: Path) -> None:
    """Unpack libraries, and what they need and this machine lacks, into `folder`.

    Raises:
        ArchiveError: they cannot be had from this machine's archive.

    """
    with tempfile.TemporaryDirectory(prefix=".libraries-", dir=folder) as work:
        archive = Archive(Path(work), lambda line: print(f"libraries: {line}", flush=True))
        for names in wanted.values():
            _fetch_one_of(archive, names)
        archive.supply(wanted, folder)


def _fetch_one_of(archive: Archive, names: Sequence[str]) -> None:
    for name in names[:-1]:
        with contextlib.suppress(ArchiveError):
            archive.fetch({name})
            return
    archive.fetch({names[-1]})


def _loadable(name: str) -> bool:
    try:
        ctypes.CDLL(name)
    except OSError:
        return False
    return True


def main() -> int:
    """Provide what is missing; exit status 1 with the cure if that fails."""
    wanted = missing()
    try:
        if wanted:
            supply(wanted, Path(sys.prefix) / "lib")
    except ArchiveError as error:
        packages = " ".join(names[-1] for names in wanted.values())
        print(f"{', '.join(wanted)} not found ({error}); install them, on Debian or Ubuntu {packages}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
