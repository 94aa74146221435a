from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from e0_ros.bootstrap.archive import ArchiveError
from sim import vulkan
from sim.vulkan_fetch import fetch
from tests.bare_machine import package, release


@pytest.mark.skipif(not release("VERSION_CODENAME"), reason="no distribution with a code name")
def test_a_bare_machine_gets_every_missing_library(bare: Path) -> None:
    package(bare, "mesa-vulkan-drivers", "libvulkan_lvp.so", "libc6 (>= 2.34), a (>= 1) | c")
    said: list[str] = []
    fetch(bare / "out/vulkan", said.append)
    assert sorted(p.name for p in (bare / "out/vulkan/lib").iterdir()) == ["libA.so.1", "libB.so.1", "libvulkan_lvp.so"]
    manifest = json.loads((bare / "out/vulkan/lvp_icd.json").read_text())
    assert manifest["ICD"]["library_path"] == "./lib/libvulkan_lvp.so"
    assert [p.name for p in (bare / "out").iterdir()] == ["vulkan"], "nothing else is left behind"
    assert said[1:] == ["downloading mesa-vulkan-drivers", "downloading a", "downloading b"]


@pytest.mark.skipif(not release("VERSION_CODENAME"), reason="no distribution with a code name")
def test_a_failure_leaves_nothing_behind(bare: Path) -> None:
    package(bare, "mesa-vulkan-drivers", "libvulkan_lvp.so", "a")
    (bare / "store/b.deb/files/usr/lib/libB.so.1").unlink()
    with pytest.raises(ArchiveError, match=r"libB\.so\.1"):
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
