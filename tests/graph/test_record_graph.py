"""`e0 record` as a user runs it, on the plant without physics."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from e0_ros.core.bag_reader import Bag, verify
from e0_ros.core.grading import grade_bag

pytestmark = [pytest.mark.ros, pytest.mark.slow, pytest.mark.timeout(600)]


def command(out: Path, *more: str) -> list[str]:
    words = ["record", "--task", "Reach-v0", "--simulator", "fr3_plant", "--size", "64", "--workers", "2"]
    lead = ["--set", "chunk_executor.lead_ms=50", "--set", "bridge.timeout_s=60"]
    return [sys.executable, "-m", "e0_ros.cli", *words, "--out", str(out), *lead, *more]


def children(pid: int) -> list[int]:
    """Processes that a process has started."""
    texts = [task.read_text() for task in Path(f"/proc/{pid}/task").glob("*/children")]
    return [int(word) for text in texts for word in text.split()]


def wait_for(condition, seconds: float = 240.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def bags(out: Path) -> list[str]:
    return sorted(path.name for path in out.iterdir() if (path / "metadata.yaml").is_file())


def test_a_killed_worker_costs_no_episode_and_a_second_run_has_nothing_to_do(tmp_path):
    out, figures = tmp_path / "bags", tmp_path / "figures.json"
    seeds = ("--seeds", "7:13", "--json", str(figures))
    names = [f"reach-v0-{seed:06d}" for seed in range(7, 13)]
    with subprocess.Popen(command(out, *seeds), env=dict(os.environ)) as running:
        wait_for(lambda: out.is_dir() and bags(out))
        os.kill(children(running.pid)[0], signal.SIGKILL)
        assert running.wait(400.0) == 0
    assert bags(out) == names and not list(out.glob("*.partial"))
    for name in names:
        verify(out / name)
        bag = Bag(out / name)
        assert bag.custom["outcome"] == "success" and bag.custom["seed"] == str(int(name[-6:]))
        assert grade_bag(bag) == []
    said = json.loads(figures.read_text())
    assert said["episodes"] == said["successes"] == 6 and not said["errors"] and not said["flagged"]
    assert subprocess.run(command(out, *seeds), check=False).returncode == 0
    again = json.loads(figures.read_text())
    assert again["skipped"] == 6 and again["episodes"] == 0 and again["wall_s"] < 1.0


def test_an_interrupt_ends_the_running_episodes_whole(tmp_path):
    out = tmp_path / "bags"
    with subprocess.Popen(command(out, "--seeds", "0:500")) as running:
        wait_for(lambda: out.is_dir() and bags(out))
        running.send_signal(signal.SIGINT)
        assert running.wait(120.0) == 1
    assert 1 <= len(bags(out)) < 100 and not list(out.glob("*.partial"))
    assert all(Bag(out / name).custom["outcome"] == "success" for name in bags(out))
