"""Commands that start a graph refuse to beside another one: on the same topics the two are one, down to the motors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from e0_ros import launch_command, readiness, record_command
from e0_ros.launcher import Launcher
from e0_ros.resolve import GraphError
from sim import demo
from sim.trial_bench import Bench

THERE = ["chunk_executor", "controller_manager", "episode_recorder", "observation_sync", "policy", "wrist"]
SAID = "(chunk_executor, controller_manager, episode_recorder, observation_sync and 2 more)"


@pytest.fixture(autouse=True)
def another_graph_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    def there(limit_s: float, rivals: Sequence[str]) -> list[str]:
        return [name for name in THERE if name in rivals or name == "wrist"]

    monkeypatch.setattr(readiness, "wait_until_alone", there)
    monkeypatch.setattr(Launcher, "start", lambda self: pytest.fail(f"{self.graph.name} was started"))
    monkeypatch.setenv("ROS_DOMAIN_ID", "7")


@pytest.mark.parametrize(
    ("command", "words", "status"),
    [
        (launch_command.main, ["sim", "simulator:=fr3_plant"], 2),
        (record_command.main, ["sim", "simulator:=fr3_plant"], 1),
        (demo.main, ["--simulator", "fr3_plant", "--task", "Reach-v0", "--out", "run"], 1),
    ],
)
def test_a_command_that_starts_a_graph_says_what_runs_and_what_to_do(
    command: Callable[[Sequence[str]], int],
    words: list[str],
    status: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert command(words) == status
    said = capsys.readouterr().err
    assert SAID in said and "ROS domain 7" in said and "another ROS_DOMAIN_ID" in said


def test_so_do_trials(tmp_path: Path) -> None:
    person: Any = None
    trials = Bench("sim", ["simulator:=fr3_plant"], tmp_path, person, print)
    with pytest.raises(GraphError, match="another ROS_DOMAIN_ID"):
        trials.up({"checkpoint": "ws://127.0.0.1:1", "settings": {}}).__enter__()


def test_what_would_be_started_is_shown_beside_a_graph_too(capsys: pytest.CaptureFixture[str]) -> None:
    assert launch_command.main(["sim", "simulator:=fr3_plant", "--show"]) == 0
    assert "chunk_executor" in capsys.readouterr().out
