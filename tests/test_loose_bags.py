"""Folders of .mcap files: loose ones are so many bags, those of a split rosbag2 bag are one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import yaml

from e0_ros.convert_bags import find_bags
from e0_ros.core.bag_check import WHOLE, check_bag
from e0_ros.core.bag_reader import Bag, BagMessage
from e0_ros.core.bag_writer import BagWriter
from e0_ros.core.dataset_bag import bag_digest
from e0_ros.core.definitions import installed
from e0_ros.core.recorder_config import BagConfig
from e0_ros.inspect_command import inspect
from e0_ros.interfaces import Qos
from e0_ros.synthetic_episode import START_NS
from tests.test_convert import TICKS, e0, files, run


def loose(tmp_path: Path) -> Path:
    """Two bags' files in a folder without metadata.yaml, beside a folder that is a bag."""
    folder = tmp_path / "takes"
    replace(TICKS, name="whole", seed=9).write(folder)
    for i in range(2):
        bag = replace(TICKS, name=f"b{i}", seed=i).write(tmp_path / "made")
        next(bag.glob("*.mcap")).rename(folder / f"b{i}.mcap")
    return folder


def split(bag: Path, root: Path, parts: int) -> Path:
    """The bag as rosbag2 splits one: files that follow each other, each whole, and one metadata.yaml."""
    read = Bag(bag)
    messages = list(read.messages(as_written=True))
    folder, paths, counts = root / bag.name, [], {}
    folder.mkdir(parents=True)
    for part in range(parts):
        writer = BagWriter(root / "parts", f"p{part}", BagConfig(min_free_bytes=0), installed())
        for name, text in read.attachments.items():
            writer.attach(name, text, START_NS)
        for m in messages[part * len(messages) // parts : (part + 1) * len(messages) // parts]:
            writer.write(m.topic, m.type, Qos(), m.data, m.log_ns, m.publish_ns, m.sequence)
            counts[m.topic] = counts.get(m.topic, 0) + 1
        written = next(writer.close(read.custom).path.glob("*.mcap"))
        paths.append(written.rename(folder / f"{bag.name}_{part}.mcap").name)
    about = yaml.safe_load((bag / "metadata.yaml").read_text())
    told = about["rosbag2_bagfile_information"]
    told["relative_file_paths"] = paths
    (folder / "metadata.yaml").write_text(yaml.safe_dump(about))
    return folder


def test_loose_files_are_so_many_bags(tmp_path: Path) -> None:
    folder = loose(tmp_path)
    assert [path.name for path in find_bags([folder])] == ["b0.mcap", "b1.mcap", "whole"]
    report = run(folder, tmp_path / "out")
    assert (report.episodes, report.salvaged, report.left_out) == (3, 0, [])
    assert [(e["bag"], e["seed"]) for e in e0(tmp_path / "out")["episodes"]] == [
        ("b0.mcap", 0),
        ("b1.mcap", 1),
        ("whole", 9),
    ]
    takes = inspect([folder])
    assert [(take.name, take.fault, take.findings) for take in takes] == [
        ("b0", "", []),
        ("b1", "", []),
        ("whole", "", []),
    ]


def test_a_split_bag_reads_as_the_whole_one(tmp_path: Path) -> None:
    bag = TICKS.write(tmp_path / "whole")
    parts = split(bag, tmp_path / "split", 12)  # "_10" comes before "_2" by name
    whole, read = Bag(bag), Bag(parts)
    assert len(read.files) == 12
    for order in (False, True):
        assert list(read.messages(as_written=order)) == list(whole.messages(as_written=order))
    assert (read.counts, read.span_ns, read.custom) == (whole.counts, whole.span_ns, whole.custom)
    assert check_bag(parts).state == WHOLE
    assert find_bags([tmp_path / "split"]) == [parts]
    run(bag, tmp_path / "one")
    run(parts, tmp_path / "two")
    one, two = files(tmp_path / "one"), files(tmp_path / "two")
    assert {name: two[name] for name in one if name != "meta/e0.json"} == {
        name: content for name, content in one.items() if name != "meta/e0.json"
    }
    (take,) = inspect([parts], pictures=True)
    assert (take.fault, take.findings, take.frames) == ("", [], 21)


def test_a_damaged_part_is_salvaged_and_changes_the_digest(tmp_path: Path) -> None:
    parts = split(TICKS.write(tmp_path / "whole"), tmp_path / "split", 3)
    before, whole = bag_digest(parts), list(Bag(parts).messages(as_written=True))
    file = parts / "a_1.mcap"
    file.write_bytes(file.read_bytes()[:1000])
    bag = Bag(parts, salvage=True)
    found: list[BagMessage] = list(bag.messages())
    third = len(whole) // 3
    assert bag.damage and found == [*whole[:third], *whole[2 * len(whole) // 3 :]]
    assert bag.counts.total() == len(found) and bag.span_ns == (whole[0].log_ns, whole[-1].log_ns)
    assert bag_digest(parts) != before
