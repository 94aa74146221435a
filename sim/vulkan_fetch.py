"""Unpacks Mesa's lavapipe from the machine's own package archive into a folder, without root."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from e0_ros.bootstrap.archive import Archive

DRIVER = "libvulkan_lvp.so"
_PACKAGE = "mesa-vulkan-drivers"


def fetch(target: Path, say: Callable[[str], None]) -> None:
    """Make `target` with `lib/libvulkan_lvp.so`, the libraries that this machine lacks, and `lvp_icd.json`.

    `target` appears whole or not at all. Debian 12's driver comes from its backports: its own Mesa 22.3 is too old.

    Raises:
        ArchiveError: no apt, no network, or the packages cannot be had.

    """
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".vulkan-", dir=target.parent) as name:
        built = Path(name) / "vulkan"
        (built / "lib").mkdir(parents=True)
        archive = Archive(Path(name), say, backports=True)
        archive.fetch({_PACKAGE})
        archive.supply({DRIVER}, built / "lib")
        manifest = {"file_format_version": "1.0.0", "ICD": {"api_version": "1.3.0", "library_path": f"./lib/{DRIVER}"}}
        (built / "lvp_icd.json").write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
        shutil.rmtree(target, ignore_errors=True)
        built.rename(target)
