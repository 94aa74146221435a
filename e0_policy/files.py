"""Files that can be trusted: their sum, that they can be written and have reached the disk, text that is whole."""

from __future__ import annotations

import hashlib
import json
import math
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def sha256(path: Path) -> str:
    """SHA-256 of a file in hexadecimal, read in blocks."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def sync(path: Path) -> None:
    """Wait until a file's content, or a folder's entries, are on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def check_writable(path: Path) -> None:
    """See that a file can be written, before the work whose result it is to hold; its folder is made.

    Raises:
        OSError: it cannot; the message says why.

    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder; a file is needed")
    tempfile.TemporaryFile(dir=path.parent).close()


def write_whole(path: Path, text: str) -> None:
    """Write a file beside its name, then give it that name: whole or not there, whenever the process is killed."""
    partial = path.with_name(f".{path.name}.partial")
    try:
        partial.write_text(text, encoding="utf-8")
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Write figures as strict JSON (RFC 8259), in which NaN and infinities, which it lacks, become null.

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
