"""Where what set-up makes for this machine lies: Vulkan driver, decimated meshes."""

from __future__ import annotations

import os
from pathlib import Path


def setup_dir() -> Path:
    """`.setup` in a checkout, else `e0_ros` in the user's cache folder."""
    root = Path(__file__).resolve().parents[1]
    if (root / "ARCHITECTURE.md").is_file():
        return root / ".setup"
    cache = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(cache) / "e0_ros"
