"""Recipes of the Makefile that run for hours, with a stand-in that writes down what it is asked to do."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from sim import record_bulk

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def asked(tmp_path: Path):
    """Runs a target in an empty folder; the words of every `e0` command of its recipe."""
    stand_in = tmp_path / "python"
    stand_in.write_text('#!/bin/sh\nshift 2\necho "$@" >> asked\n')
    stand_in.chmod(0o755)

    def run(*words: str) -> list[list[str]]:
        command = ["make", "-f", str(ROOT / "Makefile"), "-o", "setup", f"RUN={stand_in}", *words]
        subprocess.run(command, cwd=tmp_path, check=True, timeout=60)
        return [line.split() for line in (tmp_path / "asked").read_text().splitlines()]

    return run


def test_no_stage_of_the_checkpoint_is_left_out_because_it_is_half_done(asked, tmp_path) -> None:
    for half in ("runs/encoder/encoder.safetensors", "runs/pick_push/checkpoint/model.safetensors"):
        (tmp_path / half).parent.mkdir(parents=True)
        (tmp_path / half).touch()
    (tmp_path / "data/scenes").mkdir(parents=True)  # appears when it is whole
    calls = asked("checkpoint", "SCALE=0.01", "STEPS=20")
    assert [call[0] for call in calls] == ["record"] * 4 + ["convert"] * 2 + ["pretrain", "train"]
    takes = [record_bulk.parser().parse_args(call[1:]) for call in calls[:4]]
    assert [take.seeds for take in takes] == ["10000:10008", "10000:10002", "10000:10002", "10000:10001"]
    for call in calls[6:]:
        assert "--continue" in call and "steps=20" in call


def test_the_whole_checkpoint_is_what_benchmarks_says(asked) -> None:
    calls = asked("checkpoint")
    takes = [record_bulk.parser().parse_args(call[1:]) for call in calls[:4]]
    counts = [int(last) - int(first) for first, last in (take.seeds.split(":") for take in takes)]
    assert counts == [864, 214, 248, 100]
    assert calls[6] == ["scenes", "--count", "12000", "--workers", "2", "--out", "data/scenes"]
    assert all(not any(word.startswith("steps=") for word in call) for call in calls)


def test_demonstrations_of_five_tasks_are_collected_once(asked, tmp_path) -> None:
    (tmp_path / "data/five/StackCube-v1").mkdir(parents=True)
    calls = asked("small-data", "SCALE=0.1")
    assert [call[call.index("--task") + 1] for call in calls[:-1]] == [
        "PickCube-v1", "PushCube-v1", "PegInsertionSide-v1", "PlugCharger-v1"
    ]  # fmt: skip
    assert calls[-1][0] == "import" and calls[-1][1] == "data/five/StackCube-v1"


def test_only_a_python_of_the_command_line_is_asked_for(monkeypatch) -> None:
    def recipe(*words: str) -> str:
        command = ["make", "-n", "setup", *words]
        return subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True, timeout=60).stdout

    monkeypatch.delenv("PYTHON", raising=False)
    monkeypatch.delenv("MAKEFLAGS", raising=False)
    assert "python3 -m e0_ros.bootstrap" in recipe() and "--python" not in recipe()
    assert '--python "python3.12"' in recipe("PYTHON=python3.12")
    monkeypatch.setenv("PYTHON", "python3.13")
    assert "--python" not in recipe()
