"""Finds a Vulkan driver that SAPIEN can render with, or provides one without root.

python -m sim.vulkan

Tried in this order: the one that VK_DRIVER_FILES or VK_ICD_FILENAMES names, NVIDIA's, the distribution's lavapipe
(Mesa on the CPU), lavapipe unpacked into the set-up folder.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from e0_ros.bootstrap.archive import ArchiveError
from sim.setup_dir import setup_dir
from sim.vulkan_fetch import DRIVER, fetch
from sim.vulkan_probe import preload

_FOLDERS = tuple(Path(p) / "vulkan/icd.d" for p in ("/etc", "/usr/local/share", "/usr/share"))
_PROBE_S = 30
CURE = "install your distribution's mesa-vulkan-drivers (Mesa 24.3 or newer) or NVIDIA's driver with Vulkan"


class VulkanError(RuntimeError):
    """No usable Vulkan driver; the message says what to do."""


@dataclass(frozen=True)
class Driver:
    """A working driver: its manifest, its device, and the libraries to load before it."""

    manifest: Path
    device: str
    cpu: bool
    preload: tuple[Path, ...] = ()

    @property
    def environment(self) -> dict[str, str]:
        """Variables that make a Vulkan loader use this driver and no other."""
        return {"VK_DRIVER_FILES": str(self.manifest), "VK_ICD_FILENAMES": str(self.manifest)}


def find() -> Driver | None:
    """The first working driver of this machine, None if there is none."""
    return next((driver for path in _candidates() if (driver := _probe(path))), None)


def provide(say: bool = True) -> Driver:
    """Find a driver, or unpack lavapipe into the set-up folder.

    Raises:
        VulkanError: neither works.

    """
    if driver := find():
        return driver
    if named := _named():
        raise VulkanError(f"{named}, named by VK_DRIVER_FILES or VK_ICD_FILENAMES, is not usable; unset it, or {CURE}")
    target = _target()
    try:
        fetch(target, (lambda line: print(f"vulkan: {line}", flush=True)) if say else lambda line: None)
    except ArchiveError as error:
        raise VulkanError(f"no usable Vulkan driver, and fetching one failed ({error}); {CURE}") from None
    if driver := _probe(target / "lvp_icd.json"):
        return driver
    raise VulkanError(f"the lavapipe of this distribution (Ubuntu 22.04: Mesa 23.2) is too old; {CURE}")


@lru_cache
def activate() -> Driver:
    """Make every Vulkan loader that starts later in this process use the driver that `find` chose.

    Raises:
        VulkanError: there is none.

    """
    driver = find()
    if driver is None:
        raise VulkanError(f"no usable Vulkan driver; run `python -m sim.vulkan`, or {CURE}")
    preload(driver.preload)
    os.environ.update(driver.environment)
    return driver


def _target() -> Path:
    return setup_dir() / "vulkan"


def _named() -> str:
    return os.environ.get("VK_DRIVER_FILES") or os.environ.get("VK_ICD_FILENAMES") or ""


def _candidates() -> list[Path]:
    if named := _named():
        return [Path(path) for path in named.split(os.pathsep)]
    installed = [
        path for name in ("*nvidia*.json", "lvp_icd*.json") for folder in _FOLDERS for path in sorted(folder.glob(name))
    ]
    return [*installed, _target() / "lvp_icd.json"]


def _probe(manifest: Path) -> Driver | None:
    try:
        library = json.loads(manifest.read_text(encoding="utf-8"))["ICD"]["library_path"]
    except (OSError, ValueError, KeyError):
        return None
    if "/" in library:
        library = str((manifest.parent / library).resolve())
    beside = manifest.parent / "lib"
    needed = tuple(sorted(p for p in beside.glob("*.so*") if p.name != DRIVER)) if beside.is_dir() else ()
    command = [sys.executable, "-m", "sim.vulkan_probe", library, *map(str, needed)]
    root = str(Path(__file__).resolve().parents[1])
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))}
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=_PROBE_S, check=False)
        found = json.loads(done.stdout) if done.returncode == 0 else []
    except (subprocess.TimeoutExpired, ValueError):
        return None
    usable = [device for device in found if device["usable"]]
    return Driver(manifest, usable[0]["name"], usable[0]["cpu"], needed) if usable else None


def main() -> int:
    """Find or provide a driver and say which; exit status 1 with the cure if that fails."""
    try:
        driver = provide()
    except VulkanError as error:
        print(f"vulkan: {error}", file=sys.stderr)
        return 1
    print(f"vulkan: {driver.device} ({driver.manifest})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
