"""Bags to a dataset: what gets in, what is left out, and that it is never half a one."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

import e0_ros.core.dataset_episode
import e0_ros.core.dataset_writer
from e0_ros.config import ConfigError
from e0_ros.convert import _locked, convert, main
from e0_ros.core.bag_reader import Bag
from e0_ros.core.bag_writer import BagWriter
from e0_ros.core.dataset_config import ConvertConfig, Selection
from e0_ros.core.dataset_frames import SIGNALS, STATES
from e0_ros.core.dataset_layout import DatasetError
from e0_ros.core.dataset_video import count_frames
from e0_ros.core.definitions import installed
from e0_ros.core.recorder_config import BagConfig
from e0_ros.interfaces import TOPICS, Qos
from e0_ros.synthetic_episode import MS, START_NS, SyntheticEpisode
from tests.core.test_dataset_video import decoded

ALL = Selection(outcomes=("all",))
LIVE = SyntheticEpisode(seconds=1.0, joint_hz=200.0)
TICKS = replace(LIVE, lockstep=True, images="png")


def table(out: Path, name: str = "data/chunk-000/file-000.parquet") -> dict[str, list]:
    return pq.read_table(out / name).to_pydict()


def e0(out: Path) -> dict:
    return json.loads((out / "meta" / "e0.json").read_text())


def files(out: Path) -> dict[str, bytes]:
    return {str(p.relative_to(out)): p.read_bytes() for p in sorted(out.rglob("*")) if p.is_file()}


def run(bags: Path, out: Path, selection: Selection = ALL, **settings):
    return convert([bags], out, ConvertConfig(**settings), selection)


def test_lockstep_frames_are_those_that_were_published(tmp_path: Path) -> None:
    TICKS.write(tmp_path / "bags")
    report = run(tmp_path / "bags", tmp_path / "out")
    ticks = [START_NS + i * 50 * MS for i in range(21)]
    data = table(tmp_path / "out")
    assert (report.episodes, report.frames, report.different) == (1, 21, 0)
    assert e0(tmp_path / "out")["episodes"][0]["compared"] == 21
    state = np.array(data["observation.state"], np.float32)
    np.testing.assert_array_equal(state[:, :7], np.float32([TICKS.position(t) for t in ticks]))
    np.testing.assert_allclose(state[:, 7], np.float32([TICKS.opening(t) for t in ticks]), atol=1e-7)
    rows = np.float32([TICKS.row(t) for t in ticks])
    np.testing.assert_array_equal(np.array(data["action"], np.float32), rows)
    for view in TICKS.views:
        frames = decoded(tmp_path / "out" / f"videos/observation.images.{view}/chunk-000/file-000.mp4")
        expected = np.array([TICKS.image(view, t) for t in ticks])
        assert np.abs(frames.astype(int) - expected).mean() < 8
    assert set(np.array(data["e0.age_ms.base"])) == {0.0}


def test_real_time_frames_follow_the_grids_rules_and_tell_their_ages(tmp_path: Path) -> None:
    LIVE.write(tmp_path / "bags")
    run(tmp_path / "bags", tmp_path / "out")
    data = table(tmp_path / "out")
    start = e0(tmp_path / "out")["episodes"][0]["start_ns"]
    assert start == START_NS + 33333333  # the second image: at the first one the other streams had sent nothing
    for k in range(len(data["index"])):
        t = start + k * 50 * MS
        captured = [START_NS + round(i * 1e9 / 30) for i in range(40)]
        base = max(c for c in captured if c <= t)
        wrist = max(c + 4 * MS for c in captured if c + 4 * MS <= t)
        assert data["e0.age_ms.base"][k] == pytest.approx((t - base) / MS, abs=1e-3)
        assert data["e0.age_ms.wrist"][k] == pytest.approx((t - wrist) / MS, abs=1e-3)
        assert data["e0.skew_ms.wrist"][k] == pytest.approx((wrist - base) / MS, abs=1e-3)
        np.testing.assert_allclose(data["observation.state"][k][:7], LIVE.position(t), atol=2e-6)
        row = LIVE.row(START_NS + 5 * MS + (t - START_NS - 5 * MS) // (50 * MS) * 50 * MS)
        np.testing.assert_allclose(data["action"][k], row, atol=1e-6)
    assert data["timestamp"] == [np.float32(k / 20) for k in range(len(data["index"]))]


def test_the_other_action_signals(tmp_path: Path) -> None:
    replace(LIVE, teleop=True).write(tmp_path / "bags")
    run(tmp_path / "bags", tmp_path / "next", action="measured_next")
    data = table(tmp_path / "next")
    assert data["action"][:-1] == data["observation.state"][1:]
    assert data["action"][-1] == data["observation.state"][-1]
    run(tmp_path / "bags", tmp_path / "teleop", action="teleop")
    assert e0(tmp_path / "teleop")["episodes"][0]["sources"] == ["teleop"]
    LIVE.write(tmp_path / "others")
    with pytest.raises(DatasetError, match="no set-point of signal teleop"):
        run(tmp_path / "others", tmp_path / "none", action="teleop")


def test_what_is_left_out_is_said(tmp_path: Path) -> None:
    bags = tmp_path / "bags"
    LIVE.write(bags)
    for i, (outcome, task) in enumerate([("failure", "Reach-v0"), ("discard", "Reach-v0"), ("success", "PushCube-v1")]):
        replace(LIVE, name=f"b{i}", seed=i, outcome=outcome, task=task).write(bags)
    (bags / "discarded").mkdir()
    replace(LIVE, name="gone").write(bags / "discarded")
    report = run(bags, tmp_path / "out", Selection(tasks=("Reach*",)))
    reasons = {entry["bag"]: entry["reason"] for entry in report.left_out}
    assert reasons == {"b0": "its outcome is failure", "b1": "it was discarded", "b2": "its task is 'PushCube-v1'"}
    assert e0(tmp_path / "out")["left_out"] == report.left_out
    assert [episode["bag"] for episode in e0(tmp_path / "out")["episodes"]] == ["a"]
    assert run(bags, tmp_path / "all").episodes == 3  # a discarded take is never taken


def test_a_gap_leaves_the_episode_out_or_is_held(tmp_path: Path) -> None:
    replace(LIVE, missing={"wrist": (0.4, 0.7)}).write(tmp_path / "bags")
    with pytest.raises(DatasetError, match=r"a gap after 0\.\d+ s: wrist: its latest image is 1\d\d ms old"):
        run(tmp_path / "bags", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    run(tmp_path / "bags", tmp_path / "held", gaps="hold")
    assert max(table(tmp_path / "held")["e0.age_ms.wrist"]) > 200


def test_a_camera_that_dies_is_a_gap_too(tmp_path: Path) -> None:
    replace(LIVE, seconds=2.0, missing={"base": (0.6, 9.0)}).write(tmp_path / "bags")
    with pytest.raises(DatasetError, match="a stream has died"):
        run(tmp_path / "bags", tmp_path / "out")


def test_a_damaged_bag_is_salvaged_up_to_its_first_gap(tmp_path: Path) -> None:
    bag = replace(TICKS, seconds=2.0).write(tmp_path / "bags")
    file = next(bag.glob("*.mcap"))
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 0xFF
    file.write_bytes(data)
    report = run(tmp_path / "bags", tmp_path / "out")
    assert report.salvaged == 1
    assert 5 < report.frames < 35
    (episode,) = e0(tmp_path / "out")["episodes"]
    assert episode["damage"]
    whole = tmp_path / "whole"
    replace(TICKS, seconds=2.0).write(whole)
    run(whole, tmp_path / "reference")
    reference = table(tmp_path / "reference")["observation.state"]
    assert table(tmp_path / "out")["observation.state"] == reference[: report.frames]
    with pytest.raises(DatasetError, match="damaged"):
        run(tmp_path / "bags", tmp_path / "none", salvage=False)


def test_the_label_of_a_damaged_bag_is_still_known(tmp_path: Path) -> None:
    bag = replace(TICKS, seconds=2.0).write(tmp_path / "bags")
    file = next(bag.glob("*.mcap"))
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    report = run(tmp_path / "bags", tmp_path / "out", Selection(outcomes=("success",)))
    assert (report.episodes, report.salvaged) == (1, 1)
    assert 5 < report.frames < 40


def test_an_error_of_the_code_costs_one_bag_and_is_not_kept(tmp_path: Path, monkeypatch, capsys) -> None:
    for i in range(2):
        replace(TICKS, name=f"b{i}", seed=i).write(tmp_path / "bags")
    real = e0_ros.core.dataset_episode.describe_bag

    def faulty(bag):
        if bag.path.name == "b0":
            raise ZeroDivisionError("oops")
        return real(bag)

    with monkeypatch.context() as patch:
        patch.setattr(e0_ros.core.dataset_episode, "describe_bag", faulty)
        assert main([str(tmp_path / "bags"), "--out", str(tmp_path / "out"), "--jobs", "1"]) == 1
    assert "ERROR: ZeroDivisionError: oops" in capsys.readouterr().out
    assert run(tmp_path / "bags", tmp_path / "out").episodes == 2


def test_two_conversions_into_one_folder_do_not_meet(tmp_path: Path) -> None:
    TICKS.write(tmp_path / "bags")
    with _locked(tmp_path / "out.converting"), pytest.raises(DatasetError, match="another e0 convert"):
        run(tmp_path / "bags", tmp_path / "out")


def test_a_recording_that_did_not_finish_is_unlabelled(tmp_path: Path) -> None:
    TICKS.write(tmp_path / "bags", crash=True)
    with pytest.raises(DatasetError, match="its outcome is unlabelled"):
        run(tmp_path / "bags", tmp_path / "out", Selection())
    report = run(tmp_path / "bags", tmp_path / "out")
    assert (report.salvaged, report.episodes) == (1, 1)
    assert report.frames > 10


def test_two_processes_and_one_give_the_same_bytes(tmp_path: Path) -> None:
    for i in range(3):
        replace(TICKS, name=f"b{i}", seed=i).write(tmp_path / "bags")
    convert([tmp_path / "bags"], tmp_path / "one", ConvertConfig(), ALL, processes=1)
    convert([tmp_path / "bags"], tmp_path / "two", ConvertConfig(), ALL, processes=2)
    assert files(tmp_path / "one") == files(tmp_path / "two")


def test_a_dataset_grows_by_new_bags_and_keeps_its_files(tmp_path: Path) -> None:
    bags, out = tmp_path / "bags", tmp_path / "out"
    TICKS.write(bags)
    run(bags, out)
    before = files(out)
    replace(TICKS, name="b", seed=1, instruction="another thing").write(bags)
    report = run(bags, out)
    assert (report.added, report.episodes, report.frames) == (1, 2, 42)
    assert [entry["reason"] for entry in report.left_out] == ["it is in the dataset already"]
    after = files(out)
    assert all(after[name] == content for name, content in before.items() if name.startswith(("data", "videos")))
    new = table(out, "data/chunk-000/file-001.parquet")
    assert (new["index"][0], new["episode_index"][0], new["task_index"][0]) == (21, 1, 1)
    rows = [
        row for i in range(2) for row in pq.read_table(out / f"meta/episodes/chunk-000/file-00{i}.parquet").to_pylist()
    ]
    assert [(r["dataset_from_index"], r["dataset_to_index"], r["data/file_index"]) for r in rows] == [
        (0, 21, 0),
        (21, 42, 1),
    ]
    assert json.loads((out / "meta" / "stats.json").read_text())["action"]["count"] == [42]
    assert run(bags, out).added == 0
    assert files(out) == after


def test_a_dataset_does_not_grow_by_what_does_not_fit(tmp_path: Path) -> None:
    bags, out = tmp_path / "bags", tmp_path / "out"
    TICKS.write(bags)
    run(bags, out)
    before = files(out)
    for wrong, settings, message in (
        (replace(TICKS, name="big", size=64), {}, "differ in height"),
        (replace(TICKS, name="one", views=("base",)), {}, "differ in views"),
        (replace(TICKS, name="next", seed=2), {"action": "measured_next"}, "action: commanded there"),
    ):
        path = wrong.write(tmp_path / wrong.name)
        with pytest.raises(DatasetError, match=message):
            run(path, out, **settings)
        assert files(out) == before


def test_a_folder_that_is_no_dataset_is_left_alone(tmp_path: Path) -> None:
    TICKS.write(tmp_path / "bags")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("mine")
    with pytest.raises(DatasetError, match="no whole dataset"):
        run(tmp_path / "bags", tmp_path / "out")
    assert (tmp_path / "out" / "thesis.txt").read_text() == "mine"


def test_the_same_bag_twice_is_one_episode(tmp_path: Path) -> None:
    path = TICKS.write(tmp_path / "bags")
    shutil.copytree(path, tmp_path / "bags" / "copy")
    assert run(tmp_path / "bags", tmp_path / "out").episodes == 1


def test_privileged_topics_are_not_even_read(tmp_path: Path) -> None:
    privileged = {topic.name for topic in TOPICS if topic.privileged}
    assert privileged
    assert not privileged & {*STATES, *SIGNALS}
    for name, value in (("without", 0), ("with", 12345)):
        replace(TICKS, privileged=value).write(tmp_path / name)
        run(tmp_path / name, tmp_path / f"out_{name}")
    without, having = (
        {n: c for n, c in files(tmp_path / f"out_{k}").items() if n != "meta/e0.json"} for k in ("without", "with")
    )
    assert without == having  # e0.json differs in the bag's digest


def test_videos_hold_one_frame_per_row(tmp_path: Path) -> None:
    for i in range(3):
        replace(TICKS, name=f"b{i}", seed=i, seconds=0.5 + 0.2 * i).write(tmp_path / "bags")
    report = run(tmp_path / "bags", tmp_path / "out")
    for view in TICKS.views:
        path = tmp_path / "out" / f"videos/observation.images.{view}/chunk-000/file-000.mp4"
        assert count_frames(path) == report.frames
    rows = table(tmp_path / "out", "meta/episodes/chunk-000/file-000.parquet")
    key = "videos/observation.images.base"
    assert rows[f"{key}/from_timestamp"] == [0.0, 0.55, 1.3]
    assert rows[f"{key}/to_timestamp"][:2] == [0.55, 1.3]


def test_names_from_bags_stay_inside(tmp_path: Path, record_property) -> None:
    path = replace(TICKS, instruction="../../etc", task="../x").write(tmp_path / "bags")
    path.rename(tmp_path / "bags" / "we ird;name")
    run(tmp_path / "bags", tmp_path / "deep" / "out")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["bags", "deep"]
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["out"]
    record_property("figure", "names of folder, task and instruction in a dataset: 0 files outside")


def test_the_command_line_says_what_is_wrong(tmp_path: Path, capsys) -> None:
    with pytest.raises(ConfigError, match="no such file"):
        main([str(tmp_path / "none"), "--out", str(tmp_path / "out")])
    with pytest.raises(ConfigError, match="discard"):
        main([str(tmp_path), "--out", str(tmp_path / "out"), "--outcomes", "discard"])
    replace(TICKS, outcome="failure").write(tmp_path / "bags")
    assert main([str(tmp_path / "bags"), "--out", str(tmp_path / "out"), "--jobs", "1"]) == 1
    assert "its outcome is failure" in capsys.readouterr().err
    report = tmp_path / "r.json"
    arguments = [str(tmp_path / "bags"), "--out", str(tmp_path / "out"), "--outcomes", "all", "--json", str(report)]
    assert main([*arguments, "--jobs", "1"]) == 0
    assert json.loads(report.read_text())["frames"] == 21


def test_without_ray_the_error_says_what_to_install(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    try:
        import ray  # noqa: F401
    except ModuleNotFoundError:
        TICKS.write(tmp_path / "bags")
        with pytest.raises(ConfigError, match=r"e0_ros\[ray\]"):
            convert([tmp_path / "bags"], tmp_path / "out", ConvertConfig(), ALL, ray="local")
    else:
        pytest.skip("ray is installed here: nothing to refuse")


def test_files_are_cut_at_their_largest_size(tmp_path: Path, monkeypatch) -> None:
    for i in range(4):
        replace(TICKS, name=f"b{i}", seed=i, seconds=0.5).write(tmp_path / "bags")
    run(tmp_path / "bags", tmp_path / "one")
    video = "videos/observation.images.base/chunk-000"
    size_mb = (tmp_path / "one" / video / "file-000.mp4").stat().st_size / 2**20
    monkeypatch.setattr(e0_ros.core.dataset_writer, "VIDEO_MB", 0.6 * size_mb)
    monkeypatch.setattr(e0_ros.core.dataset_writer, "DATA_MB", 1e-9)
    run(tmp_path / "bags", tmp_path / "many")
    rows = table(tmp_path / "many", "meta/episodes/chunk-000/file-000.parquet")
    key = "videos/observation.images.base"
    assert rows["data/file_index"] == [0, 1, 2, 3]
    assert rows[f"{key}/file_index"] == [0, 0, 1, 1]
    assert rows[f"{key}/from_timestamp"] == [0.0, 0.55, 0.0, 0.55]
    assert [count_frames(tmp_path / "many" / video / f"file-00{i}.mp4") for i in range(2)] == [22, 22]
    assert table(tmp_path / "many", "data/chunk-000/file-002.parquet")["index"] == list(range(22, 33))


def test_old_clock_messages_that_come_late_change_nothing(tmp_path: Path) -> None:
    """Discovery may deliver them after new ones, and in lock-step they are the log times of what comes next."""
    folder = TICKS.write(tmp_path / "plain")
    path = tmp_path / "bags" / "a"
    writer = BagWriter(path.parent, "a", BagConfig(min_free_bytes=0), installed())
    bag = Bag(folder)
    for name, text in bag.attachments.items():
        writer.attach(name, text, START_NS)
    for i, m in enumerate(bag.messages()):
        log_ns = m.log_ns - 100 * MS if 40 < i < 60 else m.log_ns
        writer.write(m.topic, m.type, Qos(), m.data, log_ns, m.publish_ns, m.sequence)
    writer.close(bag.custom)
    run(tmp_path / "plain", tmp_path / "expected")
    assert run(tmp_path / "bags", tmp_path / "out").different == 0
    name = "data/chunk-000/file-000.parquet"
    assert files(tmp_path / "out")[name] == files(tmp_path / "expected")[name]
