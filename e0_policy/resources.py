"""Where the project's own data files lie: beside the sources, or in the share folder of an installation."""

from __future__ import annotations

import sys
from pathlib import Path


def config_dir() -> Path:
    """Folder of the shipped configuration (`config/`).

    In a checkout or an editable install it is the repository's own folder; otherwise `share/e0_ros/config` below
    the installation prefix that holds this package (a wheel's or colcon's).

    Raises:
        FileNotFoundError: none of those folders exists.

    """
    beside = Path(__file__).resolve().parents[1] / "config"
    candidates = [beside]
    candidates += [parent / "share" / "e0_ros" / "config" for parent in Path(__file__).resolve().parents]
    candidates.append(Path(sys.prefix) / "share" / "e0_ros" / "config")
    for candidate in candidates:
        if (candidate / "embodiment").is_dir():
            return candidate
    raise FileNotFoundError(f"no configuration folder of e0_ros; looked in {', '.join(map(str, candidates))}")
