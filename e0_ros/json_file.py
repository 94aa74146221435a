"""Figures as a JSON file that every parser reads: what was not measured is null."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def write_json(path: Path, value: Any) -> None:
    """Write a value as strict JSON (RFC 8259), in which NaN and infinities, which it lacks, become null.

    Raises:
        TypeError: something that JSON has no form for.

    """
    path.write_text(json.dumps(_strict(value), indent=2, allow_nan=False) + "\n", encoding="utf-8")


def _strict(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _strict(item) for key, item in value.items()}
    return [_strict(item) for item in value] if isinstance(value, list | tuple) else value
