"""What set-up needs from the machine. What is missing is a `Missing` with the one command that cures it."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

LOWEST, HIGHEST = (3, 10), (3, 12)
NEEDED_BYTES = 6_000_000_000
_PROBE = "import ctypes, ssl, sys, sysconfig; print('%d.%d' % sys.version_info[:2], sysconfig.get_paths()['include'])"


class Missing(Exception):
    """Something that set-up cannot provide itself: what, and what cures it."""

    def __init__(self, what: str, cure: str) -> None:
        super().__init__(f"{what}\n  cure: {cure}")
        self.what, self.cure = what, cure


class Python:
    """An interpreter that was seen to run: its path, `(major, minor)` version and folder of C headers."""

    def __init__(self, path: str, version: tuple[int, int], include: Path) -> None:
        self.path, self.version, self.include = path, version, include

    @property
    def name(self) -> str:
        """As in `3.11`."""
        return f"{self.version[0]}.{self.version[1]}"


def apt(*packages: str) -> str:
    """The command that installs Debian or Ubuntu packages."""
    return f"{'' if os.geteuid() == 0 else 'sudo '}apt-get install -y {' '.join(packages)}"


def probe(path: str, environ: dict[str, str] | None = None) -> Python | None:
    """Run an interpreter and say which it is; None if it does not run (a version manager's empty shim, say)."""
    try:
        done = subprocess.run([path, "-c", _PROBE], capture_output=True, text=True, timeout=20, env=environ)
    except (OSError, subprocess.TimeoutExpired):
        return None
    if done.returncode != 0 or not done.stdout.strip():
        return None
    version, include = done.stdout.strip().split(" ", 1)
    major, minor = version.split(".")
    return Python(path, (int(major), int(minor)), Path(include))


def find_python(default: str = sys.executable, must_import: str = "") -> Python:
    """The default interpreter if it fits, else the newest fitting one on PATH.

    Args:
        default: interpreter to prefer.
        must_import: a module that it has to import (rclpy of a sourced install, built for one version only).

    Raises:
        Missing: none fits.

    """
    seen = []
    for name in [default, *(f"python3.{minor}" for minor in range(HIGHEST[1], LOWEST[1] - 1, -1))]:
        python = probe(name) if os.sep in name or shutil.which(name) else None
        if python is None:
            continue
        seen.append(python.name)
        if LOWEST <= python.version <= HIGHEST and (not must_import or _succeeds(name, "-c", f"import {must_import}")):
            return python
    wanted = f"Python {LOWEST[0]}.{LOWEST[1]} to {HIGHEST[0]}.{HIGHEST[1]}"
    if must_import:
        wanted += f" that imports the sourced ROS 2 install's {must_import}"
    found = ", ".join(dict.fromkeys(seen)) or "none"
    cure = "source the install in this shell once more" if must_import else _python_of_the_archive()
    raise Missing(f"{wanted} is needed; found {found}", f"{cure}   (or: make setup PYTHON=/path/to/python3.12)")


def _python_of_the_archive() -> str:
    """The command that brings a fitting interpreter: apt's where the archive has one (Debian 13 has not), else uv's."""
    for minor in range(HIGHEST[1], LOWEST[1] - 1, -1):
        name = f"python3.{minor}"
        if shutil.which("apt-cache") and _succeeds("apt-cache", "show", name):
            return apt(name, f"{name}-venv", f"{name}-dev")
    newest = f"{HIGHEST[0]}.{HIGHEST[1]}"
    return f"uv python install {newest} && make setup PYTHON=$(uv python find {newest})"


def _succeeds(*command: str) -> bool:
    return subprocess.run(command, capture_output=True).returncode == 0


def check_platform(machine: str = "", system: str = "") -> None:
    """Refuse what the ROS 2 wheels are not built for.

    Raises:
        Missing: not Linux on x86-64, or a C library older than the wheels' (2.28).

    """
    machine, system = machine or platform.machine(), system or platform.system()
    if system != "Linux" or machine not in ("x86_64", "AMD64"):
        raise Missing(
            f"the ROS 2 wheels are built for Linux on x86-64, this is {system} on {machine}",
            "source a ROS 2 install (Humble, Jazzy or Kilted) and run make setup again",
        )
    name, version = platform.libc_ver()
    if name != "glibc" or tuple(int(n) for n in version.split(".")[:2]) < (2, 28):
        raise Missing(
            f"the ROS 2 wheels need glibc 2.28 or newer, this is {name or 'another C library'} {version}",
            "use Debian 12 or 13, or Ubuntu 22.04 or 24.04 (a container will do)",
        )


def check_disk(folder: Path, needed: int = NEEDED_BYTES) -> None:
    """Raise `Missing` if the file system of `folder` has less than `needed` bytes free."""
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise Missing(
            f"{needed / 1e9:.0f} GB of free disk are needed in {folder}, {free / 1e9:.1f} GB are free",
            "free some space, or clone the project to a larger disk",
        )


def check_compiler() -> None:
    """Raise `Missing` if there is no C or no C++ compiler (both generate e0_msgs' libraries)."""
    missing = []
    for variable, names in (("CC", ("cc", "gcc", "clang")), ("CXX", ("c++", "g++", "clang++"))):
        chosen = os.environ.get(variable, "").split()
        if not any(shutil.which(name) for name in (chosen[:1] or names)):
            missing.append("C" if variable == "CC" else "C++")
    if missing:
        raise Missing(f"no {' and no '.join(missing)} compiler (e0_msgs is built from source)", apt("g++"))


def check_python(python: Python) -> None:
    """Raise `Missing` if the interpreter cannot make a virtual environment or has no C headers."""
    system = Path(os.path.realpath(shutil.which(python.path) or python.path)).parent == Path("/usr/bin")
    if not _succeeds(python.path, "-c", "import venv, ensurepip"):
        raise Missing(f"Python {python.name} has no venv module", apt(f"python{python.name}-venv"))
    if not (python.include / "Python.h").is_file():
        cure = apt(f"python{python.name}-dev") if system else "install its development headers (Python.h)"
        raise Missing(f"Python {python.name} has no C headers ({python.include / 'Python.h'})", cure)


def numpy_include(python: Path) -> Path:
    """Folder of numpy's C headers in an environment."""
    done = subprocess.run(
        [str(python), "-c", "import numpy; print(numpy.get_include())"], capture_output=True, text=True, check=True
    )
    return Path(done.stdout.strip())
