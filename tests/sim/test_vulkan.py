from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from sim import vulkan, vulkan_fetch
from sim.vulkan_fetch import FetchError, fetch, sources

DEB822 = """Types: deb deb-src
URIs: http://mirror.example/debian
Suites: bookworm bookworm-updates
Components: main
Signed-By: /usr/share/keyrings/debian.gpg

# another
Types: deb
URIs: http://other.example
Suites: nodistro
Components: main

Types: deb
URIs: http://off.example/debian
Suites: bookworm
Components: main
Enabled: no
"""
KEY = "[signed-by=/usr/share/keyrings/debian.gpg] "


def test_sources_are_the_distributions_own_and_its_backports() -> None:
    assert sources(DEB822, "bookworm", backports=True).splitlines() == [
        f"deb {KEY}http://mirror.example/debian bookworm main",
        f"deb {KEY}http://mirror.example/debian bookworm-backports main",
        f"deb {KEY}http://mirror.example/debian bookworm-updates main",
    ]


def test_a_source_that_is_listed_twice_is_used_once() -> None:
    twice = DEB822 + "\n\ndeb http://mirror.example/debian/ bookworm main\n"
    assert sources(twice, "bookworm", backports=True) == sources(DEB822, "bookworm", backports=True)


def test_one_line_sources() -> None:
    text = "# deb http://no.example jammy main\ndeb [arch=amd64] http://mirror.example/ubuntu jammy main universe # x\n"
    text += "deb http://mirror.example/ubuntu jammy-updates main\ndeb http://vendor.example stable main\n"
    assert sources(text, "jammy", backports=False).splitlines() == [
        "deb [arch=amd64] http://mirror.example/ubuntu jammy main universe",
        "deb http://mirror.example/ubuntu jammy-updates main",
    ]
    assert sources(text, "noble", backports=False) == ""


def tool(folder: Path, name: str, script: str) -> None:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine whose apt, dpkg-deb and ldd are scripted: the driver needs libA (in a), libA needs libB (in b)."""
    etc, tools, store = tmp_path / "apt", tmp_path / "bin", tmp_path / "store"
    for folder in (etc, tools, store):
        folder.mkdir()
    (etc / "sources.list").write_text(f"deb http://mirror.example/x {release('VERSION_CODENAME')} main\n")
    tool(tools, "apt-get", 'case "$*" in *download*) for p; do cp -r "$STORE/$p.deb" . 2>/dev/null; done; true;; esac')
    tool(tools, "dpkg-deb", 'case "$1" in -x) mkdir -p "$3" && cp -r "$2"/files/. "$3";; -f) cat "$2"/depends;; esac')
    tool(tools, "ldd", 'for l in libA.so.1 libB.so.1; do [ -e "${1%/*}/$l" ] || echo "  $l => not found"; done')
    for package, file, depends in (
        ("mesa-vulkan-drivers", "libvulkan_lvp.so", "libc6 (>= 2.34), a (>= 1) | c"),
        ("a", "libA.so.1", "b"),
        ("b", "libB.so.1", ""),
    ):
        files = store / f"{package}.deb/files/usr/lib"
        files.mkdir(parents=True)
        (files / file).write_text(file)
        (store / f"{package}.deb/depends").write_text(depends)
    monkeypatch.setattr(vulkan_fetch, "_APT", etc)
    monkeypatch.setattr(vulkan_fetch, "_SAPIEN", ())
    monkeypatch.setenv("STORE", str(store))
    monkeypatch.setenv("PATH", str(tools), prepend=os.pathsep)
    return tmp_path


def release(key: str) -> str:
    lines = Path("/etc/os-release").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if "=" in line).get(key, "").strip('"')


@pytest.mark.skipif(not release("VERSION_CODENAME"), reason="no distribution with a code name")
def test_a_bare_machine_gets_every_missing_library(bare: Path) -> None:
    said: list[str] = []
    fetch(bare / "out/vulkan", said.append)
    assert sorted(p.name for p in (bare / "out/vulkan/lib").iterdir()) == ["libA.so.1", "libB.so.1", "libvulkan_lvp.so"]
    manifest = json.loads((bare / "out/vulkan/lvp_icd.json").read_text())
    assert manifest["ICD"]["library_path"] == "./lib/libvulkan_lvp.so"
    assert [p.name for p in (bare / "out").iterdir()] == ["vulkan"], "nothing else is left behind"
    assert said[1:] == ["downloading mesa-vulkan-drivers", "downloading a", "downloading b"]


@pytest.mark.skipif(not release("VERSION_CODENAME"), reason="no distribution with a code name")
def test_what_the_simulator_itself_lacks_comes_along(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (bare / "store/b.deb/files/usr/lib/libForSapien.so.6").write_text("x")
    monkeypatch.setattr(vulkan_fetch, "_SAPIEN", ("libForSapien.so.6", "libc.so.6"))
    fetch(bare / "out/vulkan", lambda line: None)
    names = {p.name for p in (bare / "out/vulkan/lib").iterdir()}
    assert "libForSapien.so.6" in names and "libc.so.6" not in names


@pytest.mark.skipif(not release("VERSION_CODENAME"), reason="no distribution with a code name")
def test_a_failure_leaves_nothing_behind(bare: Path) -> None:
    (bare / "store/b.deb/files/usr/lib/libB.so.1").unlink()
    with pytest.raises(FetchError, match=r"libB\.so\.1"):
        fetch(bare / "out/vulkan", lambda line: None)
    assert list((bare / "out").iterdir()) == []


def test_without_apt_the_cure_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(vulkan, "_FOLDERS", ())
    monkeypatch.setattr(vulkan, "setup_dir", lambda: tmp_path)
    monkeypatch.delenv("VK_DRIVER_FILES", raising=False)
    monkeypatch.delenv("VK_ICD_FILENAMES", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert vulkan.main() == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "apt-get is not there" in error and vulkan.CURE in error
    vulkan.activate.cache_clear()
    with pytest.raises(vulkan.VulkanError, match=r"python -m sim\.vulkan"):
        vulkan.activate()


@pytest.mark.parametrize("text", ["", "{}", '{"ICD": {"library_path": "/no/such/driver.so"}}', "not json"])
def test_a_broken_driver_is_passed_over(tmp_path: Path, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "lvp_icd.json").write_text(text)
    monkeypatch.setenv("VK_DRIVER_FILES", str(tmp_path / "lvp_icd.json"))
    assert vulkan.find() is None


def test_a_driver_that_is_chosen_by_hand_wins(maniskill: None) -> None:
    chosen = vulkan.find()
    assert chosen is not None
    assert set(chosen.environment.values()) == {str(chosen.manifest)}
    script = "from sim import vulkan; print(vulkan.activate().manifest)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == str(chosen.manifest)
