"""The graph as users launch it, with ManiSkill in the robot's place."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from e0_ros.launcher import Launcher
from e0_ros.resolve import resolve

pytestmark = [pytest.mark.ros, pytest.mark.sim, pytest.mark.slow]
DELAYS = Path(__file__).parent / "delays"


@pytest.fixture(scope="module", autouse=True)
def simulator() -> None:
    pytest.importorskip("mani_skill", reason="ManiSkill is not installed (extra [sim])")
    from sim.vulkan import VulkanError, activate

    try:
        activate()
    except VulkanError as error:
        pytest.skip(str(error))


@contextmanager
def running(tmp_path: Path, environ: dict[str, str] | None = None, **arguments: object) -> Iterator[Launcher]:
    values = {"size": 64, "bag_dir": str(tmp_path / "bags"), **arguments}
    settings = {"bridge": {"judge": True, "timeout_s": 60.0}}
    graph = resolve("sim", values, settings)
    with Launcher(graph, log_dir=tmp_path / "logs", environ={**os.environ, **(environ or {})}) as launcher:
        launcher.wait_ready(120.0)
        yield launcher


def episodes(seeds: range, task: str = "PickCube-v1", max_steps: int = 0):
    from sim.evaluator import start

    evaluator = start("scripted", timeout_s=120.0)
    try:
        evaluator.wait_ready()
        return [evaluator.run(i, task, seed, max_steps) for i, seed in enumerate(seeds)]
    finally:
        evaluator.close()


def judged(tmp_path: Path) -> str:
    return (tmp_path / "logs" / "bridge.log").read_text(encoding="utf-8")


@pytest.mark.timeout(600)
def test_picks_cubes_in_lockstep_legally_and_with_the_same_bits_whatever_the_delays(tmp_path):
    prompt, late = tmp_path / "prompt", tmp_path / "late"
    with running(prompt, mode="lockstep"):
        first = episodes(range(3, 5))
    assert [(e.success, e.error) for e in first] == [(True, "")] * 2
    assert first[0].digest != first[1].digest
    assert "judge" in judged(prompt)
    assert "violation" not in judged(prompt).replace("0 violations", "")
    with running(late, {"PYTHONPATH": f"{DELAYS}:{os.environ.get('PYTHONPATH', '')}"}, mode="lockstep"):
        second = episodes(range(3, 5))
    assert [e.digest for e in second] == [e.digest for e in first]
    assert [e.steps for e in second] == [e.steps for e in first]


@pytest.mark.timeout(300)
def test_pushes_a_cube_in_real_time(tmp_path):
    with running(tmp_path, mode="realtime"):
        (episode,) = episodes(range(1), "PushCube-v1")
    assert episode.error == ""
    assert episode.success
    assert "violation" not in judged(tmp_path).replace("0 violations", "")
    assert (Path(episode.bag) / "metadata.yaml").is_file()
