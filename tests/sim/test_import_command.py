"""Imports of small files in the layouts of ManiSkill 3 and LIBERO, and of a collected folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from e0_policy.dataset import Episode, PackedSource
from e0_policy.embodiment import load_embodiment
from e0_policy.lerobot_source import LeRobotSource
from e0_policy.packed_writer import Header, PackedWriter
from e0_policy.types import Representation
from e0_ros.core.dataset_layout import load_existing
from e0_ros.core.inspection_dataset import inspect_episodes
from e0_ros.core.inspection_lerobot import open_dataset
from e0_ros.core.step_rows import OSC_POSE
from sim import import_command
from sim.import_command import main
from sim.trajectories import read_trajectories

h5py = pytest.importorskip("h5py")
SIDE, STEPS = 32, 12
STILL = (4, 5, 9)
"""Steps that ask for no motion; the gripper closes at step 4."""
DELTAS = 0.05 + np.arange(STEPS * 6).reshape(STEPS, 6) / 100


def joints() -> np.ndarray:
    """`(STEPS + 1, 7)`: 20 mrad a step, none in those of `STILL`."""
    step = np.where(np.isin(np.arange(STEPS), STILL), 0.0, 0.02)
    return np.concatenate([[0.0], np.cumsum(step)])[:, None] + np.arange(7) / 10


def closing() -> np.ndarray:
    return np.where(np.arange(STEPS) < 4, 1.0, -1.0)


def pictures(count: int) -> np.ndarray:
    """The top is bright, and brighter with time."""
    images = np.zeros((count, SIDE, SIDE, 3), np.uint8)
    images[:, : SIDE // 2] = (100 + 10 * np.arange(count)[:, None, None, None]).astype(np.uint8)
    return images


def maniskill(path: Path, mode: str = "pd_joint_pos", views: bool = True, **changes: Any) -> Path:
    """Three episodes of StackCube-v1, the last of which failed."""
    q = joints()
    fingers = np.repeat(np.append(0.04, 0.04 * (closing() + 1) / 2)[:, None], 2, axis=1)
    episodes = []
    with h5py.File(path, "w") as file:
        for i in range(3):
            group = file.create_group(f"traj_{i}")
            actions = q[1:] if mode == "pd_joint_pos" else np.diff(q, axis=0)
            group["actions"] = np.column_stack([actions, closing()]).astype(np.float32)
            group["obs/agent/qpos"] = np.column_stack([q, fingers]).astype(np.float32)
            for camera in ("base_camera", "hand_camera") if views else ():
                group[f"obs/sensor_data/{camera}/rgb"] = pictures(STEPS + 1)
            group["success"] = np.arange(STEPS) == STEPS - 1
            episodes.append({"episode_id": i, "episode_seed": 100 + i, "control_mode": mode, "success": i < 2})
    about = {"env_info": {"env_id": "StackCube-v1", "env_kwargs": {"control_mode": mode}}, "episodes": episodes}
    path.with_suffix(".json").write_text(json.dumps({**about, **changes}))
    return path


def libero(path: Path) -> Path:
    q = joints()[:STEPS]
    with h5py.File(path, "w") as file:
        data = file.create_group("data")
        data.attrs["problem_info"] = json.dumps({"language_instruction": '"open the drawer"'})
        for i in (0, 2, 10):
            group = data.create_group(f"demo_{i}")
            deltas = np.where(np.isin(np.arange(STEPS), STILL)[:, None], 0.0, DELTAS)
            group["actions"] = np.column_stack([deltas, -closing()])
            group["obs/joint_states"] = q  # of after the action of the same index
            group["obs/gripper_states"] = np.column_stack([np.full(STEPS, 0.04), np.full(STEPS, -0.04)])
            for camera in ("agentview_rgb", "eye_in_hand_rgb"):
                group[f"obs/{camera}"] = pictures(STEPS)[:, ::-1]
    return path


def test_maniskill_rows_are_the_targets_and_a_grasp_keeps_its_first_step(tmp_path: Path) -> None:
    first, _, last = read_trajectories(maniskill(tmp_path / "t.h5"))
    assert (first.task, first.seed, first.success, last.success) == ("StackCube-v1", 100, True, False)
    assert first.instruction == "put the red cube on top of the green cube" and first.signal == "commanded"
    np.testing.assert_allclose(first.actions[:, :7], joints()[1:], atol=1e-6)
    np.testing.assert_allclose(first.states[:, :7], joints()[:-1], atol=1e-6)
    assert set(first.actions[:, 7]) == {0.0, 1.0} and first.states[0, 7] == pytest.approx(1.0)
    kept = first.without_noops()
    assert len(kept.states) == STEPS - 2, "two of the three still steps; in the first the gripper closes"
    assert [len(images) for images in kept.views.values()] == [STEPS - 2] * 2 and list(kept.views) == ["base", "wrist"]
    assert (kept.views["base"][4] == first.views["base"][4]).all()
    assert (kept.views["base"][5] == first.views["base"][6]).all()


def test_rows_of_delta_modes_are_what_was_reached(tmp_path: Path) -> None:
    first = next(read_trajectories(maniskill(tmp_path / "t.h5", "pd_joint_delta_pos")))
    np.testing.assert_allclose(first.actions[:, :7], joints()[1:], atol=1e-6)
    assert first.signal == "measured_next"


@pytest.mark.parametrize("rows", ["own", "joint_position"])
def test_liberos_pictures_are_upright_its_gripper_the_other_way_round_and_a_frame_has_the_next_action(
    rows: str, tmp_path: Path
) -> None:
    """Its files hold what was seen after each action, so the last picture has none."""
    demos = list(read_trajectories(libero(tmp_path / "open_drawer_demo.hdf5"), rows))
    assert [d.name for d in demos] == ["demo_0", "demo_2", "demo_10"]
    demo = demos[0]
    assert demo.instruction == "open the drawer" and demo.task == "open_drawer_demo"
    assert all(images[:, 0].min() >= 100 and images[:, -1].max() == 0 for images in demo.views.values())
    assert {len(images) for images in demo.views.values()} == {len(demo.states)} == {STEPS - 1}
    np.testing.assert_allclose(demo.states[:, :7], joints()[: STEPS - 1])
    if rows == "own":
        np.testing.assert_array_equal(demo.actions[:, :6][demo.moves], DELTAS[1:][demo.moves])
        assert (demo.step_names, demo.signal) == (OSC_POSE, "commanded")
    else:
        np.testing.assert_allclose(demo.actions[:, :7], joints()[1:STEPS])
        assert (demo.step_names, demo.signal) == ((), "measured_next")
    assert (demo.actions[:, -1] == (closing()[1:] + 1) / 2).all() and (demo.states[:, 7] == 1.0).all()
    assert np.flatnonzero(~demo.moves).tolist() == [step - 1 for step in STILL]
    assert len(demo.without_noops().states) == STEPS - 3, "two of the three still steps; the gripper closes in one"


def test_a_dataset_of_libero_says_what_its_rows_are_and_mixes_with_no_other(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, arm = libero(tmp_path / "demo.hdf5"), load_embodiment("panda")
    for rows, names in (("own", OSC_POSE), ("joint_position", (*arm.joint_names, "gripper"))):
        out = tmp_path / rows
        assert main([str(file), "--out", str(out), "--size", str(SIDE), "--rows", rows]) == 0
        source, e0 = LeRobotSource(out), load_existing(out).e0
        own = rows == "own"
        kind = Representation.EE_DELTA_STEP if own else Representation.JOINT_POSITION
        assert (source.representation, source.action_names) == (kind, names)
        assert source.proprioception_names == (*arm.joint_names, "gripper")
        assert (e0["representation"], tuple(e0["action_names"])) == (kind.label, names)
        features = load_existing(out).info["features"]
        assert features["action"]["names"] == [*names[:-1], "gripper_opening"]
        assert features["action"]["shape"] == [len(names)] and features["observation.state"]["shape"] == [8]
        kept = next(read_trajectories(file, rows)).without_noops()
        np.testing.assert_allclose(source.episodes[0].actions, kept.actions, atol=1e-6)
        (report, *_) = inspect_episodes(open_dataset(out), [0], pictures=False)
        assert not report.fault and report.motion is not None
    other = maniskill(tmp_path / "t.h5")
    assert main([str(other), str(file), "--out", str(tmp_path / "mixed"), "--size", str(SIDE)]) == 2
    assert "episodes differ in representation: joint_position" in capsys.readouterr().err
    e0_file = tmp_path / "joint_position" / "meta" / "e0.json"
    told = {k: v for k, v in json.loads(e0_file.read_text()).items() if k not in ("representation", "action_names")}
    e0_file.write_text(json.dumps(told))
    assert LeRobotSource(e0_file.parents[1]).action_names[-2:] == ("panda_joint7", "gripper")
    assert load_existing(e0_file.parents[1]).e0["representation"] == "joint_position"


def test_a_collected_folder_of_steps_stays_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = (*load_embodiment("panda").joint_names, "gripper")
    header = Header("panda", 50_000_000, ("base",), SIDE, names, step_names=OSC_POSE)
    writer = PackedWriter(tmp_path / "data", header)
    states, rows = np.zeros((STEPS, 8)), np.ones((STEPS, 7))
    states[:, 7], rows[4:9] = np.interp(np.arange(STEPS), [4, 7], [1.0, 0.4]), [*np.zeros(6), 0.0]
    writer.add(Episode("Lift-1", "lift", states, rows), {"base": pictures(STEPS)})
    folder = writer.close()
    assert main([str(folder), "--out", str(tmp_path / "set"), "--size", str(SIDE)]) == 0
    source = LeRobotSource(tmp_path / "set")
    assert (source.representation, source.action_names) == (Representation.EE_DELTA_STEP, OSC_POSE)
    left = np.delete(rows, [7, 8], axis=0)  # nothing is asked for, and the gripper has closed
    np.testing.assert_array_equal(source.episodes[0].actions, left)
    assert main([str(folder), "--keep-noops", "--out", str(tmp_path / "all"), "--size", str(SIDE)]) == 0
    np.testing.assert_array_equal(LeRobotSource(tmp_path / "all").episodes[0].actions, rows)
    assert main([str(folder), "--rows", "joint_position", "--out", str(tmp_path / "other")]) == 2
    assert "are ee_delta_step, asked for are joint_position" in capsys.readouterr().err


def test_a_collected_folder_becomes_a_small_dataset_with_the_same_numbers(tmp_path: Path) -> None:
    names = (*load_embodiment("panda").joint_names, "gripper")
    writer = PackedWriter(tmp_path / "data", Header("panda", 50_000_000, ("base", "wrist"), SIDE, names))
    rng = np.random.default_rng(0)
    for seed in (5, 7):
        states, rows = rng.uniform(size=(2, STEPS, 8)).astype(np.float32).astype(np.float64)
        views = {"base": pictures(STEPS), "wrist": pictures(STEPS)[:, ::-1]}
        episode = Episode(f"StackCube-v1-{seed}", "stack the cubes", states, rows)
        writer.add(episode, views, note={"task": "StackCube-v1", "seed": seed})
    folder = writer.close()
    assert main([str(folder), "--out", str(tmp_path / "set"), "--size", str(SIDE), "--gop", "250"]) == 0
    packed, dataset = PackedSource(folder), LeRobotSource(tmp_path / "set")
    assert dataset.embodiment == "panda" and dataset.views == ("base", "wrist")
    for index, (one, other) in enumerate(zip(packed.episodes, dataset.episodes, strict=True)):
        np.testing.assert_array_equal(one.proprioception, other.proprioception)
        np.testing.assert_array_equal(one.actions, other.actions)
        assert one.instruction == other.instruction
        shown, stored = packed.images(index, 3), dataset.images(index, 3)
        assert all(np.abs(shown[v].astype(int) - stored[v]).mean() < 4 for v in ("base", "wrist"))
    assert [f["seed"] for f in load_existing(tmp_path / "set").e0["episodes"]] == [5, 7]
    assert main([str(tmp_path), "--out", str(tmp_path / "other")]) == 2


def test_what_other_code_made_of_a_file_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = [str(maniskill(tmp_path / "t.h5")), "--out", str(tmp_path / "set"), "--size", str(SIDE)]
    made: list[str] = []
    fill = import_command._fill

    def counts(folder: Path, trajectory: Any, *rest: Any) -> None:
        made.append(trajectory.name)
        fill(folder, trajectory, *rest)

    def dies(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(import_command, "_fill", counts)
    with monkeypatch.context() as killed, pytest.raises(KeyboardInterrupt):
        killed.setattr(import_command, "write_dataset", dies)
        main(words)
    monkeypatch.setattr(import_command, "code_version", lambda: "v2/other")
    assert main(words) == 0 and made == ["traj_0", "traj_1"] * 2


def test_a_dataset_holds_the_frames_and_an_interrupted_import_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    file, out, figures = maniskill(tmp_path / "t.h5"), tmp_path / "set", tmp_path / "figures.json"
    words = [str(file), "--out", str(out), "--size", str(SIDE), "--json", str(figures)]
    made: list[str] = []
    fill = import_command._fill

    def dies(folder: Path, trajectory: Any, *rest: Any) -> None:
        if trajectory.name == "traj_1" and not made.count("traj_1"):
            made.append("traj_1")
            raise KeyboardInterrupt
        made.append(trajectory.name)
        fill(folder, trajectory, *rest)

    monkeypatch.setattr(import_command, "_fill", dies)
    with pytest.raises(KeyboardInterrupt):
        main(words)
    assert not out.exists()
    assert main(words) == 0
    assert made == ["traj_0", "traj_1", "traj_1"], "what was whole is not made again"
    assert "2 episodes, 20 frames; 4 steps without motion left out" in capsys.readouterr().out
    assert json.loads(figures.read_text())["left_out"][0]["reason"].endswith("it failed")
    whole = load_existing(out)
    assert whole.info["total_episodes"] == 2 and whole.e0["action"]["signal"] == "commanded"
    table = pq.read_table(out / "data/chunk-000/file-000.parquet")
    kept = next(read_trajectories(file)).without_noops()
    for column, values in (("observation.state", kept.states), ("action", kept.actions)):
        np.testing.assert_allclose(np.array(table.column(column).to_pylist())[:10], values, atol=1e-6)
    assert main(words) == 2 and "exists" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda p: maniskill(p, views=False), "replay_trajectory"),
        (lambda p: maniskill(p, episodes=[{"episode_id": 7}]), "lacks traj_7"),
        (lambda p: maniskill(p).with_suffix(".json").unlink(), "is missing"),
        (lambda p: h5py.File(p, "w").close(), "neither"),
        (lambda p: p.write_bytes(b"no hdf5"), "cannot be read"),
        (lambda p: None, "no such file"),
    ],
)
def test_what_cannot_be_imported_is_told_with_its_cure(make: Any, text: str, tmp_path: Path, capsys) -> None:
    make(tmp_path / "t.h5")
    assert main([str(tmp_path / "t.h5"), "--out", str(tmp_path / "set")]) == 2
    assert text in capsys.readouterr().err and not (tmp_path / "set").exists()
