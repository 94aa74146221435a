"""What set-up installs: requirements of the wished extras, and keys that tell whether a stage is up to date."""

from __future__ import annotations

import configparser
import contextlib
import fcntl
import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

CONSTRAINTS = "requirements/constraints.txt"
_EXTRA = re.compile(r"e0_ros\[(\w+)\]")


def extras_of(root: Path) -> dict[str, list[str]]:
    """Requirements per extra of setup.cfg; the base's under the empty name."""
    config = configparser.RawConfigParser()
    config.read(root / "setup.cfg", encoding="utf-8")
    extras = {"": _lines(config["options"]["install_requires"])}
    extras.update((name, _lines(text)) for name, text in config["options.extras_require"].items())
    return extras


def requirements(root: Path, wished: Iterable[str]) -> list[str]:
    """Every requirement of the base and the wished extras, without references among extras.

    Raises:
        ValueError: an extra that setup.cfg lacks.

    """
    extras, found = extras_of(root), []
    for name in _with_named(extras, wished):
        found += [line for line in extras[name] if not _EXTRA.fullmatch(line) and line not in found]
    return found


def bare_requirements(root: Path, wished: Iterable[str]) -> list[str]:
    """What is installed beside the wished extras without its own requirements."""
    config = configparser.RawConfigParser()
    config.read(root / "setup.cfg", encoding="utf-8")
    bare = config["e0_ros.bare"] if config.has_section("e0_ros.bare") else {}
    return [line for name in _with_named(extras_of(root), wished) for line in _lines(bare.get(name, ""))]


def _with_named(extras: Mapping[str, list[str]], wished: Iterable[str]) -> list[str]:
    """The base, the wished extras and those that they name."""
    queue, names = ["", *wished], list[str]()
    while queue:
        name = queue.pop(0)
        if name not in extras:
            raise ValueError(f"no extra {name!r}; there are {', '.join(sorted(e for e in extras if e))}")
        if name not in names:
            names.append(name)
            queue += [inner.group(1) for line in extras[name] if (inner := _EXTRA.fullmatch(line))]
    return names


def build_pins(root: Path) -> list[str]:
    """The pins that generated messages depend on."""
    lines = (root / CONSTRAINTS).read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line.startswith(("ros-", "empy==", "numpy=="))]


def key(root: Path, paths: Iterable[str], *facts: str) -> str:
    """Fingerprint of files (whole folders too) and facts; equal as long as nothing changed."""
    digest = hashlib.sha256(json.dumps(facts).encode())
    for name in paths:
        top = root / name
        for path in sorted(top.rglob("*")) if top.is_dir() else [top]:
            if path.is_file() and "__pycache__" not in path.parts:
                digest.update(f"{path.relative_to(root)}\0".encode() + path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


@contextlib.contextmanager
def only_one(lock: Path) -> Iterator[None]:
    """Hold a lock file; it is free again when the process ends, however it does.

    Raises:
        ValueError: another set-up holds it.

    """
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ValueError(f"another set-up is running here ({lock} is locked); wait for its end") from None
        yield


class Stamps:
    """Which stage was finished with which key, in a file that is written after each stage."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._keys = dict(json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError):
            self._keys = {}

    def fresh(self, stage: str, wanted: str) -> bool:
        """Whether the stage was finished with this key."""
        return self._keys.get(stage) == wanted

    def finish(self, stage: str, reached: str) -> None:
        """Record a finished stage."""
        self._keys[stage] = reached
        self._write()

    def _write(self) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        partial = self._path.with_suffix(".part")
        partial.write_text(json.dumps(self._keys, indent=1), encoding="utf-8")
        partial.replace(self._path)

    def get(self, stage: str) -> str:
        """Key of a finished stage, or empty."""
        return str(self._keys.get(stage, ""))

    def clear(self) -> None:
        """Forget every stage."""
        self._keys = {}
        self._write()


def unfinished(site: Path) -> list[Path]:
    """Records of packages whose installation was cut short, which pip would take for whole.

    pip writes a package's files first, INSTALLER after them, and last RECORD, in which it then names INSTALLER.
    """
    found = []
    for folder in sorted(site.glob("*.dist-info")):
        record = folder / "RECORD"
        text = record.read_text(encoding="utf-8", errors="replace") if record.is_file() else ""
        if f"{folder.name}/INSTALLER," not in text:
            found.append(folder)
    return found


def wished_extras(text: str, stamps: Stamps, wheels: bool) -> list[str]:
    """The extras named in `text` (comma-separated) and those installed before; `ros` exactly where wheels serve."""
    names = {name.strip() for name in f"{text},{stamps.get('extras')}".split(",")} - {"", "ros"}
    return sorted(names | ({"ros"} if wheels else set()))


def _lines(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
