"""The graph as users launch it, with ManiSkill in the robot's place."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sim.runs import over_graph, scripted_directly

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


def episodes(folder: Path, seeds: range, environ: dict[str, str] | None = None, settings=None, **arguments: object):
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (environ or {}).items():
            patch.setenv(name, value)
        common = {"bridge": {"judge": True, "timeout_s": 60.0}, "chunk_executor": {"lead_ms": 50.0}}
        return over_graph({"size": 64, **arguments}, seeds, folder, settings={**common, **(settings or {})})


@pytest.mark.timeout(600)
def test_picks_cubes_in_lockstep_legally_and_with_the_same_bits_with_delays_and_without_topics(tmp_path):
    arguments = {"mode": "lockstep", "task": "PickCube-v1"}
    prompt = episodes(tmp_path / "prompt", range(3, 5), **arguments)
    assert [(e.success, e.error, e.violations, e.lost) for e in prompt] == [(True, "", 0, 0)] * 2
    assert prompt[0].digest != prompt[1].digest
    late = {"PYTHONPATH": f"{DELAYS}:{os.environ.get('PYTHONPATH', '')}"}
    delayed = episodes(tmp_path / "late", range(3, 5), late, **arguments)
    assert [(e.digest, e.steps) for e in delayed] == [(e.digest, e.steps) for e in prompt]
    from sim.maniskill import ManiSkillAdapter

    direct = scripted_directly("maniskill", ManiSkillAdapter(("base", "wrist"), 64, 64), "PickCube-v1", range(3, 5))
    assert [(e.digest, e.steps) for e in direct] == [(e.digest, e.steps) for e in prompt]


@pytest.mark.timeout(300)
def test_poses_of_the_tool_pick_a_cube_too_and_as_they_do_without_topics(tmp_path):
    task, poses = "PickCube-v1", {"experts": {"control": "ee_pose"}}
    (episode,) = episodes(tmp_path, range(3, 4), settings=poses, mode="lockstep", task=task)
    assert (episode.success, episode.error, episode.violations, episode.holds) == (True, "", 0, [])
    from sim.maniskill import ManiSkillAdapter

    adapter = ManiSkillAdapter(("base", "wrist"), 64, 64)
    (direct,) = scripted_directly("maniskill", adapter, task, range(3, 4), "ee_pose")
    (joints,) = scripted_directly("maniskill", adapter, task, range(3, 4))
    assert direct.digest == episode.digest != joints.digest


@pytest.mark.timeout(300)
def test_pushes_a_cube_in_real_time(tmp_path):
    (episode,) = episodes(tmp_path, range(1), mode="realtime", task="PushCube-v1")
    assert episode.error == ""
    assert episode.violations == 0
    assert episode.success or episode.real_time_factor < 0.95, "only a machine that cannot keep up is excused"
    assert episode.steps > 20
    assert (Path(episode.bag) / "metadata.yaml").is_file()
