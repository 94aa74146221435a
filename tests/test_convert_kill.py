"""A conversion killed at random: no folder that reads as a dataset but is not whole, and the next run finishes it.

`E0_KILLS=100 make test TESTS=tests/test_convert_kill.py` kills it a hundred times.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from e0_ros.convert import convert, main
from e0_ros.core.dataset_config import ConvertConfig, Selection
from e0_ros.core.dataset_layout import load_existing
from e0_ros.synthetic_episode import SyntheticEpisode
from tests.test_convert import files

KILLS = int(os.environ.get("E0_KILLS", "4"))
SMALL = SyntheticEpisode(seconds=0.5, joint_hz=100.0, lockstep=True)


@pytest.fixture(scope="module")
def bags(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("bags")
    for i in range(3):
        replace(SMALL, name=f"b{i}", seed=i).write(folder)
    return folder


@pytest.fixture(scope="module")
def whole(bags: Path, tmp_path_factory) -> tuple[dict[str, bytes], float]:
    """The dataset of an undisturbed conversion, and the time that one takes as a process of its own [s]."""
    folder = tmp_path_factory.mktemp("whole")
    begin = time.monotonic()
    assert start(bags, folder / "out").wait(240) == 0
    return files(folder / "out"), time.monotonic() - begin


def start(bags: Path, out: Path, jobs: int = 1) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "e0_ros.convert", str(bags), "--out", str(out), "--jobs", str(jobs)]
    return subprocess.Popen(command, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def kill_after(process: subprocess.Popen[bytes], seconds: float) -> None:
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(90)


def check_whole_or_absent(out: Path, expected: dict[str, bytes]) -> None:
    if out.exists():
        load_existing(out)
        assert files(out) == expected


@pytest.mark.parametrize("repetition", range(KILLS))
def test_killed_at_a_random_time(bags: Path, whole, tmp_path: Path, repetition: int) -> None:
    expected, duration_s = whole
    chance, out = random.Random(repetition), tmp_path / "out"
    while not out.exists():
        kill_after(start(bags, out, jobs=1 + repetition % 2), chance.uniform(0.2, 1.1) * duration_s)
        check_whole_or_absent(out, expected)
        duration_s *= 1.2  # each run goes on where the last one was; on a loaded machine a start alone takes long
    assert main([str(bags), "--out", str(out), "--jobs", "1"]) == 0
    check_whole_or_absent(out, expected)
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


class Stopped(BaseException):
    """Stands for the power cut."""


@pytest.mark.parametrize("growing", [False, True])
def test_stopped_at_every_change_of_the_file_system(bags: Path, whole, tmp_path: Path, monkeypatch, growing) -> None:
    """Every rename of a conversion in turn is the last thing that happens; then the conversion is run again."""
    names = sorted(bags.iterdir())
    first = names[:1] if growing else []
    expected = tmp_path / "expected"
    for group in [first, names] if growing else [names]:
        convert(group, expected, ConvertConfig(), Selection())
    number = 0
    while True:
        out = tmp_path / f"run{number}" / "out"
        out.parent.mkdir()
        if growing:
            convert(first, out, ConvertConfig(), Selection())
        before = files(out) if growing else None
        if not interrupted(names, out, monkeypatch, number):
            break
        if out.exists():
            assert files(out) in (before, files(expected))
        convert(names, out, ConvertConfig(), Selection())
        assert files(out) == files(expected)
        assert [p.name for p in out.parent.iterdir()] == ["out"]
        number += 1
    assert number == 4  # two or three episodes, the old dataset away if there is one, the new one in its place


def interrupted(bags: list[Path], out: Path, monkeypatch, after: int) -> bool:
    """Convert until `after` renames are done and stop at the next one; False if there is none."""
    rename, count = Path.rename, 0

    def counted(self, target):
        nonlocal count
        if count == after:
            raise Stopped
        count += 1
        return rename(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", counted)
        try:
            convert(bags, out, ConvertConfig(), Selection())
        except Stopped:
            return True
    return False
