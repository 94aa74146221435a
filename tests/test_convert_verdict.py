"""The verdict on a take: the same from `e0 record`, `e0 inspect` and `e0 convert`, which keeps it in the dataset."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from e0_ros.convert import convert, main
from e0_ros.core.bag_reader import Bag
from e0_ros.core.bag_writer import BagWriter
from e0_ros.core.dataset_config import ConvertConfig, Selection
from e0_ros.core.dataset_layout import DatasetError
from e0_ros.core.definitions import installed
from e0_ros.core.grading import grade_bag
from e0_ros.core.inspection_bag import inspect_bag
from e0_ros.core.recorder_config import BagConfig
from e0_ros.interfaces import EPISODE_EVENT, Qos
from e0_ros.synthetic_episode import START_NS, SyntheticEpisode
from tests.test_convert import ALL, TICKS, e0, run

LIVE = SyntheticEpisode(seconds=1.5)
GOOD = replace(LIVE, name="good")
SLOW = replace(LIVE, name="slow", seed=1, joint_hz=500.0)
"""Joint states at half of their rate: no gap, so it is converted."""
HELD = replace(LIVE, name="held", seed=2, missing={"wrist": (0.4, 0.8)})


def again(folder: Path, root: Path, name: str, drop: str = "", **custom: str) -> Path:
    """A bag's messages in another bag, but those of one topic, with other custom data."""
    bag, writer = Bag(folder), BagWriter(root, name, BagConfig(min_free_bytes=0), installed())
    for attachment, text in bag.attachments.items():
        writer.attach(attachment, text, START_NS)
    for m in bag.messages(as_written=True):
        if m.topic != drop:
            writer.write(m.topic, m.type, Qos(), m.data, m.log_ns, m.publish_ns, m.sequence)
    return writer.close({**bag.custom, **custom}).path


@pytest.mark.parametrize("take", [GOOD, SLOW, HELD, replace(LIVE, lockstep=True)])
def test_record_inspect_and_convert_say_the_same(tmp_path: Path, take: SyntheticEpisode) -> None:
    bag = take.write(tmp_path / "bags")
    run(tmp_path / "bags", tmp_path / "out", gaps="hold")
    (episode,) = e0(tmp_path / "out")["episodes"]
    expected = [str(flag) for flag in grade_bag(Bag(bag))]
    assert episode["flags"] == expected == inspect_bag(bag).flags
    assert bool(expected) == (take in (SLOW, HELD))


def test_a_view_that_is_not_converted_is_judged_too(tmp_path: Path) -> None:
    HELD.write(tmp_path / "bags")
    run(tmp_path / "bags", tmp_path / "out", views=("base",))
    (episode,) = e0(tmp_path / "out")["episodes"]
    assert episode["flags"][0].startswith("gap wrist: nothing for 4")


def test_flagged_takes_are_named_and_taken_unless_they_are_refused(tmp_path: Path, capsys) -> None:
    bags, out, report = tmp_path / "bags", tmp_path / "out", tmp_path / "r.json"
    for take in (GOOD, SLOW, HELD):
        take.write(bags)
    arguments = [str(bags), "--out", str(out), "--gaps", "hold", "--jobs", "1"]
    assert main([*arguments, "--json", str(report)]) == 0
    printed = capsys.readouterr().out
    assert "2 of the new episodes are flagged (rate 2, gap 1, skew 1); --flagged refuse leaves such out" in printed
    assert "  held: gap wrist: nothing for 433 ms at 0.37 s; allowed are 140 ms\n  held: rate wrist" in printed
    assert "  slow: rate joints: 500.0 Hz of 1000.0 Hz" in printed
    flagged = json.loads(report.read_text())["flagged"]
    assert [entry["bag"] for entry in flagged] == ["held", "slow"]
    assert flagged == [{"bag": e["bag"], "flags": e["flags"]} for e in e0(out)["episodes"] if e["flags"]]

    shutil.rmtree(out)
    assert main([*arguments, "--flagged", "refuse"]) == 0
    assert "slow: it is flagged: rate joints: 500.0 Hz" in capsys.readouterr().out
    assert [episode["bag"] for episode in e0(out)["episodes"]] == ["good"]
    with pytest.raises(DatasetError, match="it is flagged: gap wrist"):
        convert([bags / "held"], tmp_path / "none", ConvertConfig(gaps="hold"), Selection(flagged="refuse"))


def test_a_damaged_bag_is_judged_as_a_whole_although_it_is_taken_up_to_its_first_gap(tmp_path: Path) -> None:
    bag = replace(TICKS, seconds=2.0).write(tmp_path / "bags")
    file = next(bag.glob("*.mcap"))
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 0xFF
    file.write_bytes(data)
    run(tmp_path / "bags", tmp_path / "out")
    (episode,) = e0(tmp_path / "out")["episodes"]
    expected = [str(flag) for flag in grade_bag(Bag(bag, salvage=True))]
    assert episode["flags"] == expected
    assert expected[0].startswith("fault: ")
    assert set(inspect_bag(bag).flags) == set(expected[1:])  # the damage is its fault


def test_a_bag_of_another_recorder_is_not_judged(tmp_path: Path) -> None:
    again(SLOW.write(tmp_path / "ours"), tmp_path / "bags", "theirs", drop=EPISODE_EVENT.name)
    report = run(tmp_path / "bags", tmp_path / "out")
    assert e0(tmp_path / "out")["episodes"][0]["flags"] is None
    assert report.flagged == []


@pytest.mark.parametrize(
    ("said", "lost", "counted"), [("0", 0, True), ("3", 3, True), ("at least 3", 3, False), ("unknown", 0, False)]
)
def test_what_was_said_of_losses_is_kept(tmp_path: Path, said: str, lost: int, counted: bool) -> None:
    bag = again(replace(GOOD, lockstep=True).write(tmp_path / "first"), tmp_path / "bags", "b", lost=said)
    convert([bag], tmp_path / "out", ConvertConfig(), ALL)
    (episode,) = e0(tmp_path / "out")["episodes"]
    assert (episode["lost"], episode["lost_counted"]) == (lost, counted)
    take = inspect_bag(bag)
    assert (take.lost, take.lost_counted) == (lost, counted)
