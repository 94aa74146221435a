"""`e0 bench` offers what can be measured, and ends with 0 when it was."""

from __future__ import annotations

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
