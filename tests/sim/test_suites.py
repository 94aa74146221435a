from __future__ import annotations

from pathlib import Path

import pytest

from e0_ros.config import ConfigError
from sim import suites
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
    monkeypatch.setattr(suites, "find_spec", lambda name: None)


def test_the_list_tells_what_each_needs_and_what_is_missing(nothing: None, capsys) -> None:
    assert list(SUITES) == NAMES
    assert main(["--list-suites"]) == 0
    printed = capsys.readouterr().out
    assert printed.rstrip("\n") == listing()
    for name in NAMES:
        assert f"  {name}" in printed
    assert printed.count("untested here") == 7 and "mani_skill is not installed" in printed
    assert "90 tasks" in printed and "14 joints + 2 grippers" in printed and "hf-libero" in printed


def test_the_five_tasks_are_the_papers_and_the_adapters() -> None:
    assert set(SUITES["maniskill5"].tasks) < set(TASKS) and len(SUITES["maniskill5"].tasks) == 5


@pytest.mark.parametrize("name", NAMES[1:])
def test_a_suite_without_an_adapter_is_an_error_that_says_why_and_what_to_do(name: str, nothing: None, capsys) -> None:
    assert main(["--suite", name]) == 2
    said = capsys.readouterr().err
    assert "untested here" in said and "is not installed" in said and "Suites that run: maniskill5" in said


def test_assets_of_libero_are_looked_for_without_importing_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    spec = type("Spec", (), {"submodule_search_locations": [str(tmp_path)]})()
    monkeypatch.setattr(suites, "find_spec", lambda name: spec)
    assert "assets are missing" in SUITES["libero_10"].missing()
    (tmp_path / "libero" / "assets").mkdir(parents=True)
    assert SUITES["libero_10"].missing() == ""
    assert SUITES["libero_10"].obstacle() == "untested here: this version has no adapter for it"


def test_names_are_checked(nothing: None, capsys) -> None:
    with pytest.raises(ConfigError, match=r"libero_spatial.*--list-suites"):
        suite_named("libero_spacial")
    assert main(["--suite", "maniskill5", "--task", "PickCube-v1"]) == 2
    assert "either" in capsys.readouterr().err
    assert main([]) == 2
    assert "--task or --suite" in capsys.readouterr().err
