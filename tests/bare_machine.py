"""A machine whose apt, dpkg-deb and ldd are scripted: every library needs libA (in a), and that needs libB (in b)."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from e0_ros.bootstrap import archive


def tool(folder: Path, name: str, script: str) -> None:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Script the machine; packages are folders in `tmp_path`/store."""
    etc, tools, store = tmp_path / "apt", tmp_path / "bin", tmp_path / "store"
    for folder in (etc, tools, store):
        folder.mkdir()
    (etc / "sources.list").write_text(f"deb http://mirror.example/x {release('VERSION_CODENAME')} main\n")
    tool(
        tools,
        "apt-get",
        'for p; do [ -z "$d" ] || cp -r "$STORE/$p.deb" . || exit 100; [ "$p" != download ] || d=1; done',
    )
    tool(tools, "dpkg-deb", 'case "$1" in -x) mkdir -p "$3" && cp -r "$2"/files/. "$3";; -f) cat "$2"/depends;; esac')
    tool(tools, "ldd", 'for l in libA.so.1 libB.so.1; do [ -e "${1%/*}/$l" ] || echo "  $l => not found"; done')
    package(tmp_path, "a", "libA.so.1", "b")
    package(tmp_path, "b", "libB.so.1", "")
    monkeypatch.setattr(archive, "_APT", etc)
    monkeypatch.setenv("STORE", str(store))
    monkeypatch.setenv("PATH", str(tools), prepend=os.pathsep)
    return tmp_path


def release(key: str) -> str:
    lines = Path("/etc/os-release").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if "=" in line).get(key, "").strip('"')


def package(machine: Path, name: str, file: str, depends: str) -> None:
    """Add a package with one library to the machine's archive."""
    files = machine / f"store/{name}.deb/files/usr/lib"
    files.mkdir(parents=True)
    (files / file).write_text(file)
    (machine / f"store/{name}.deb/depends").write_text(depends)
