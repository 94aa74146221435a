from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from e0_policy.dataset import PackedSource
from e0_policy.embodiment import load_embodiment
from e0_policy.scene_data import SceneData
from e0_policy.train import train
from e0_policy.train_config import from_mapping
from e0_ros.config import ConfigError
from e0_ros.core.step_rows import OSC_POSE
from sim import collect_episode, fr3_plant, import_command, libero_tasks
from sim.collect import _header, collect, main, table
from sim.collect_config import CollectConfig
from sim.direct import DirectLoop, Moment
from sim.fr3_plant import Fr3Plant
from sim.plant_planner import PlantPlanner
from sim.scenes import LABELS
from sim.scripted import Seen
from sim.sources import ExpertSource

PLANT = CollectConfig(("Reach-v0", "Detour-v0"), ("base",), episodes=6, first_seed=0, size_px=16, max_steps=18)
"""So few steps that Reach-v0 succeeds now and then, and Detour-v0 does not."""


def files(folder: Path) -> dict[str, bytes]:
    """What a folder holds, but for the time that it took."""
    read = {path.name: path.read_bytes() for path in folder.iterdir()}
    return {name: re.sub(rb'"processor_s": [0-9.e-]+', b"", content) for name, content in read.items()}


@pytest.fixture(scope="module")
def plant_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("plant") / "two"
    collect(PLANT, out, workers=2)
    return out


def test_tasks_and_seeds_of_episodes() -> None:
    config = CollectConfig(("PickCube-v1", "PushCube-v1", "PickCube-v1"), first_seed=10)
    assert [config.job(index) for index in range(5)] == [
        ("PickCube-v1", 10),
        ("PushCube-v1", 10),
        ("PickCube-v1", 11),
        ("PickCube-v1", 12),
        ("PushCube-v1", 11),
    ]
    with pytest.raises(ConfigError, match="PickCube-v1 is none of fr3_plant"):
        CollectConfig(("Reach-v0", "PickCube-v1"))


def test_a_stepped_simulator_has_rows_views_and_seeds_of_its_own() -> None:
    config = CollectConfig(("Lift",))
    assert (config.simulator, config.views, config.step_names) == ("libero", ("base", "wrist"), OSC_POSE)
    assert CollectConfig().views == ("base", "side", "wrist") and not CollectConfig().step_names
    assert _header(config).action_names == OSC_POSE and _header(config).names[-1] == "gripper"
    with pytest.raises(ConfigError, match=r"disturbance_rad is 0\.02; a stepped arm is not pushed"):
        CollectConfig(("Lift",), disturbance_rad=0.02)
    with pytest.raises(ConfigError, match="Lift is none of maniskill's tasks"):
        CollectConfig(("PickCube-v1", "Lift"))


@pytest.mark.skipif(libero_tasks.package() is None, reason="libero is not installed (extra [libero])")
def test_scenes_of_liberos_evaluation_are_not_collected() -> None:
    assert CollectConfig(("libero_spatial/0", "libero_goal/1")).first_seed == libero_tasks.FIRST_DRAWN
    with pytest.raises(
        ConfigError, match="first_seed is 7, an initial state of libero_goal/1's evaluation; give 100000"
    ):
        CollectConfig(("libero_goal/1",), first_seed=7)
    with pytest.raises(ValueError, match="no task 'libero_goal/11'"):
        CollectConfig(("libero_goal/11",))


def test_failed_episodes_are_counted_and_left_out(plant_folder: Path) -> None:
    index = json.loads((plant_folder / "index.json").read_text())
    kept, left_out = index["episodes"], index["left_out"]
    assert left_out and kept and len(kept) + len(left_out) == PLANT.episodes
    assert not any(line["success"] for line in left_out) and all(line["success"] for line in kept)
    assert [line["seed"] for line in left_out if line["task"] == "Detour-v0"] == [0, 1, 2]
    assert [line["seed"] for line in kept] == sorted(line["seed"] for line in kept)
    assert f"| Reach-v0 | {len(kept)}/3 |" in table([*kept, *left_out])
    assert len(PackedSource(plant_folder).episodes) == len(kept)


def test_the_number_of_processes_changes_nothing(plant_folder: Path, tmp_path: Path) -> None:
    collect(PLANT, tmp_path / "one", workers=1)
    assert files(tmp_path / "one") == files(plant_folder)


def test_a_folder_holds_what_the_loop_saw(plant_folder: Path) -> None:
    """States and set-points to the bit, and the very pictures, beside a loop and a source of one's own."""
    arm, source = load_embodiment("fr3"), PackedSource(plant_folder)
    loop, expert = DirectLoop(Fr3Plant(("base",), 16, 16, arm.name)), ExpertSource("fr3_plant", arm)
    for index, held in enumerate(source.episodes):
        task, seed = held.identifier.rsplit("-", 1)
        seen: list[Moment] = []
        expert.reset(task, int(seed))
        assert loop.run(task, int(seed), expert, onlooker=seen.append).success
        assert len(held) == len(seen) - 1 and seen[-1].success and held.instruction == fr3_plant.TASKS[task]
        for t, moment in enumerate(seen[:-1]):
            assert held.proprioception[t].tolist() == [*moment.joint_positions.tolist(), moment.gripper_opening]
            np.testing.assert_array_equal(source.images(index, t)["base"], moment.images["base"])
        planner = PlantPlanner(arm)
        planner.begin(task, int(seed))
        plan = planner.motion(Seen(arm.home, 1.0, {}))
        assert plan is not None
        np.testing.assert_array_equal(held.actions, plan[: len(held)], "what is commanded is what was planned")


KILLED = """
import os, signal, sys
from pathlib import Path
from sim import collect as module
from tests.sim.test_collect import PLANT
write = module._write
def once(writer, *arguments):
    write(writer, *arguments)
    if len(writer.journal) == 3:
        os.kill(os.getpid(), signal.SIGKILL)
module._write = once
if __name__ == "__main__":
    module.collect(PLANT, Path(sys.argv[1]), 1)
"""


def test_a_folder_is_trained_on_as_it_is_and_as_videos(plant_folder: Path, tmp_path: Path) -> None:
    """`data:` takes both; the numbers are the same (in single precision), so both have the same statistics."""
    videos = tmp_path / "videos"
    assert import_command.main([str(plant_folder), "--out", str(videos), "--size", "16"]) == 0
    model = {"views": ["base"], "image_size": 16, "vision_width": 16, "depth": 1}
    runs = []
    for folder in (plant_folder, videos):
        run = {"output": str(tmp_path / f"run_{folder.name}"), "data": str(folder), "batch_size": 2, "augment": False}
        steps = {"steps": 2, "warmup_steps": 0, "validation_fraction": 0.0, "constant_dimensions": "hold"}
        train(from_mapping({"model": model, **run, **steps}, "test"))
        runs.append(json.loads((Path(run["output"]) / "checkpoint/config.json").read_text()))
    assert [run["embodiment"] for run in runs] == [PLANT.embodiment] * 2
    for values in ("actions", "proprioception"):
        one, other = (run["transform"][values] for run in runs)
        assert one.keys() == other.keys() and one["names"] == other["names"]
        for name in ("low", "high"):
            np.testing.assert_allclose(one[name], other[name], atol=1e-6)


def test_a_killed_run_goes_on_and_comes_to_the_same(
    plant_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    script, out = tmp_path / "killed.py", tmp_path / "out"
    script.write_text(KILLED)
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path.cwd()), os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run([sys.executable, str(script), str(out)], env=environ, capture_output=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert not out.exists()
    assert main(["--task", "Reach-v0", "--out", str(out)]) == 2
    assert "was begun with other values" in capsys.readouterr().err
    assert len(collect(PLANT, out, workers=1)) == PLANT.episodes
    assert "3 episodes are there already" in capsys.readouterr().out
    assert files(out) == files(plant_folder)


def test_the_limit_ends_a_run_with_what_is_there(tmp_path: Path) -> None:
    config = replace(PLANT, max_steps=0, tasks=("Detour-v0",), episodes=10_000)
    notes = collect(config, tmp_path / "out", workers=1, limit_s=1.0)
    assert 1 <= len(notes) < 100 and len(PackedSource(tmp_path / "out").episodes) == len(notes)


def test_a_dry_run_keeps_nothing_and_comes_to_the_same(
    plant_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    command = "--task Reach-v0 --task Detour-v0 --episodes 6 --first-seed 0 --max-steps 18 --workers 1 --dry-run"
    assert main(command.split()) == 0
    lines = json.loads((plant_folder / "index.json").read_text())
    rows = table([*lines["left_out"], *lines["episodes"]]).splitlines()[2:]
    told = capsys.readouterr().out
    assert all(row.rsplit("|", 2)[0] in told for row in rows)
    assert not list(tmp_path.iterdir())


def test_nothing_solved_is_an_error_and_no_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["--task", "Reach-v0", "--episodes", "1", "--max-steps", "2", "--workers", "1"]
    assert main([*command, "--out", str(tmp_path / "out")]) == 1
    assert "none of 1 episodes succeeded" in capsys.readouterr().err and not (tmp_path / "out").exists()


@pytest.mark.sim
@pytest.mark.usefixtures("maniskill")
def test_an_episode_of_maniskill_is_demonstration_and_scene(tmp_path: Path) -> None:
    """Where things are stands in the labels, and in nothing that a policy reads."""
    config = CollectConfig(("PushCube-v1",), ("base", "wrist"), episodes=1, first_seed=300_000, size_px=64)
    notes = collect(config, tmp_path / "out", workers=1)
    source, scenes = PackedSource(tmp_path / "out"), SceneData(tmp_path / "out", ("base", "wrist"), 64)
    (episode,) = source.episodes
    assert notes[0]["success"] and len(scenes) == len(episode) == notes[0]["steps"]
    arm = load_embodiment("panda")
    assert source.proprioception_names == source.action_names == (*arm.joint_names, "gripper")
    labels = np.load(tmp_path / "out" / "labels.npy")
    places = [LABELS.index(f"object_{axis}") for axis in "xyz"]
    for column in (*episode.proprioception.T, *episode.actions.T):
        assert not any(np.allclose(column, labels[:, place], atol=1e-4) for place in places)
    assert np.ptp(labels[:, places[0]]) > 0.05, "the cube is pushed"
    np.testing.assert_array_equal(labels[:, -8:-1], episode.proprioception[:, :7].astype(np.float32))
    assert set(source.images(0, 0)) == {"base", "wrist"}, "a policy's inputs are these pictures, and the two tables"
    again = collect_episode.take(config, "PushCube-v1", 300_000, keep=True).taken
    assert again is not None
    np.testing.assert_array_equal(again.episode.actions, episode.actions)
    np.testing.assert_array_equal(again.images[0, -1], source.images(0, len(episode) - 1)["base"])
