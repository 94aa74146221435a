"""Which code this is: what recordings and reports name."""

from __future__ import annotations

import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path


def code_version() -> str:
    """`git describe` of a checkout (with `-dirty` if it was changed), else the installed package's version."""
    root = Path(__file__).resolve().parents[1]
    if (root / ".git").exists():
        command = ["git", "-C", str(root), "describe", "--always", "--tags", "--dirty"]
        try:
            return subprocess.run(command, capture_output=True, text=True, check=True, timeout=5).stdout.strip()
        except (OSError, subprocess.SubprocessError):
            pass
    try:
        return version("e0_ros")
    except PackageNotFoundError:
        return "unknown"
