import subprocess
import sys
from pathlib import Path

import pytest

from e0_ros.bootstrap import libraries
from e0_ros.bootstrap.archive import ArchiveError, sources
from tests.bare_machine import package, release

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


needs_release = pytest.mark.skipif(not release("VERSION_CODENAME"), reason="no distribution with a code name")


@needs_release
def test_a_bare_machine_gets_the_libraries_of_the_wheels_under_either_name_of_a_package(bare: Path) -> None:
    package(bare, "libgl1", "libGL.so.1", "a")
    package(bare, "libglib2.0-0", "libgthread-2.0.so.0", "")
    folder = bare / "venv/lib"
    folder.mkdir(parents=True)
    libraries.supply(libraries.NEEDS["cv2"], folder)
    names = sorted(p.name for p in folder.iterdir())
    assert names == ["libA.so.1", "libB.so.1", "libGL.so.1", "libgthread-2.0.so.0"], "and nothing of the work is left"


@needs_release
def test_what_the_archive_lacks_is_said_with_the_cure(
    bare: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(libraries, "missing", lambda: libraries.NEEDS["sapien"])
    monkeypatch.setattr(libraries.sys, "prefix", str(bare))
    (bare / "lib").mkdir()
    assert libraries.main() == 1
    assert "libX11.so.6 not found" in (said := capsys.readouterr().err) and "install" in said and "libx11-6" in said


def test_only_what_an_installed_module_needs_and_cannot_load_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    needs = {"json": {"libNone.so.9": ("none",), "libc.so.6": ("libc6",)}, "no_such_module": {"libNo.so": ("no",)}}
    monkeypatch.setattr(libraries, "NEEDS", needs)
    assert libraries.missing(tuple(needs)) == {"libNone.so.9": ("none",)}


def test_libraries_in_the_environments_own_folder_are_found_by_every_python_of_it() -> None:
    """What the stage rests on: the wheels, or our own start, put `lib` of the environment on the library path."""
    code = "import os, sys; print(sys.prefix + '/lib' in os.environ['LD_LIBRARY_PATH'].split(':'))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "True"


def test_a_machine_without_apt_is_told_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ArchiveError, match="apt-get is not there"):
        libraries.supply(libraries.NEEDS["sapien"], tmp_path)
