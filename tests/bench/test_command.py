"""`e0 bench` offers what can be measured, and ends with 0 when it was."""

from __future__ import annotations

import os
from collections.abc import Callable
from importlib import import_module
from types import SimpleNamespace

import pytest

from e0_ros.bench import command


@pytest.mark.ros
@pytest.mark.parametrize("name", command.benchmarks())
def test_every_module_that_is_offered_can_be_run(name: str) -> None:
    pytest.importorskip("rclpy", reason="rclpy is not installed")
    assert callable(import_module(f"e0_ros.bench.{name}").run)


def test_nothing_is_measured_in_the_domain_of_an_arm(monkeypatch: pytest.MonkeyPatch) -> None:
    """A measurement's executor arms itself and commands; its policy and its recorder's clients speak to everybody's."""
    for name, value in (
        ("ROS_DOMAIN_ID", "7"),
        ("ROS_AUTOMATIC_DISCOVERY_RANGE", "SUBNET"),
        ("ROS_LOCALHOST_ONLY", "0"),
    ):
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("ROS_DISTRO", "humble")
    met: list[tuple[str, ...]] = []

    def run(_: float) -> dict[str, float]:
        met.append(tuple(os.environ[name] for name in ("ROS_AUTOMATIC_DISCOVERY_RANGE", "ROS_LOCALHOST_ONLY")))
        assert os.environ["ROS_DOMAIN_ID"] not in ("", "0", "7")
        return {"figure": 1.0}

    monkeypatch.setattr(command, "import_module", lambda _: SimpleNamespace(run=run))
    assert command.main(["--repeat", "1"]) == 0 and set(met) == {("LOCALHOST", "1")}


def fails(_: float) -> dict[str, float]:
    raise RuntimeError("no camera")


@pytest.mark.parametrize(("run", "status"), [(lambda seconds: {"length_s": seconds}, 0), (fails, 1)])
def test_the_status_is_that_of_what_was_measured(
    run: Callable[[float], dict[str, float]], status: int, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    monkeypatch.setattr(command, "import_module", lambda _: SimpleNamespace(run=run))
    assert command.main(["--seconds", "2"]) == status
    said = capsys.readouterr()
    shown = all(f"{name} " in said.out and "length_s" in said.out for name in command.benchmarks())
    assert shown == (status == 0) and ("no camera" in said.err) == (status == 1)
