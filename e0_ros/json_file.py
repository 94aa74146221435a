"""Figures as a JSON file that every parser reads: what was not measured is null."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from e0_ros.whole_file import write_whole


def write_json(path: Path, value: Any) -> None:
    """Write a value as strict JSON (RFC 8259), in which NaN and infinities, which it lacks, become null.

    The file is whole or not there; its folder is made, so that no figures are lost for a folder that is not.

    Raises:
        TypeError: something that JSON has no form for.

    """
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, json.dumps(finite(value), indent=2, allow_nan=False) + "\n")


def finite(value: Any) -> Any:
    """The same value with None for NaN and infinities."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: finite(item) for key, item in value.items()}
    return [finite(item) for item in value] if isinstance(value, list | tuple) else value
