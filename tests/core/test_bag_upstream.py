"""Bags against what rosbag2's own C++ reads of them, stored in vectors/rosbag2_storage.json."""

import json
from pathlib import Path

import pytest
import yaml
from mcap.reader import make_reader
from synthetic_bags import fill, open_bag

from e0_ros.core.definitions import installed
from e0_ros.interfaces import INSTRUCTION, Qos

VECTORS = json.loads((Path(__file__).resolve().parents[1] / "vectors/rosbag2_storage.json").read_text(encoding="utf-8"))
"""By rosbag2_storage (`MetadataIo`) and rosbag2_storage_mcap (`MCAPStorage`, order of receipt, as `ros2 bag play` has
it), both 0.29.0 of ros2/rosbag2 (branch rolling), from the bag that `make` writes."""


def make(root: Path) -> Path:
    """Volatile, latched and best-effort topics over many chunks, with messages that reach the writer late."""
    writer = open_bag(root)
    fill(writer, 40)
    text = installed().encode(installed().new("std_msgs/msg/String", data="pick the cube"))
    writer.write(INSTRUCTION.name, INSTRUCTION.type, INSTRUCTION.qos, text, 10**9 + 1, 10**9, 1)
    fill(writer, 40, start=40)
    writer.write("/wrench", "std_msgs/msg/String", Qos(reliable=False, depth=3), text, 10**9 + 7 * 10**6, 10**9, 1)
    return writer.close({"outcome": "success"}).path


@pytest.fixture
def bag(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ROS_DISTRO", "kilted")
    return make(tmp_path)


def test_metadata_is_the_text_that_rosbag2_has_read(bag: Path) -> None:
    """Another form has to be read by rosbag2 first; the vector then holds what came of it."""
    assert (bag / "metadata.yaml").read_text(encoding="utf-8") == VECTORS["metadata"]


def test_rosbag2_sees_the_quality_of_service_that_was_meant(bag: Path) -> None:
    told = yaml.safe_load((bag / "metadata.yaml").read_text(encoding="utf-8"))["rosbag2_bagfile_information"]
    for topic in told["topics_with_message_count"]:
        name, seen = topic["topic_metadata"]["name"], VECTORS["topics"][topic["topic_metadata"]["name"]]
        assert seen["type"] == topic["topic_metadata"]["type"]
        assert seen["hash"] == topic["topic_metadata"]["type_description_hash"]
        assert seen["messages"] == topic["message_count"]
        latched, reliable = name == INSTRUCTION.name, name != "/wrench"
        assert seen["durability"] == ("transient_local" if latched else "volatile")
        assert seen["reliability"] == ("reliable" if reliable else "best_effort")
    assert VECTORS["topics"]["/wrench"]["depth"] == 3 and VECTORS["messages"] == told["message_count"]


def test_rosbag2_reads_every_message_in_order_of_receipt(bag: Path) -> None:
    with (bag / "a_0.mcap").open("rb") as stream:
        ours = [[c.topic, m.log_time, m.publish_time, len(m.data)] for _, c, m in make_reader(stream).iter_messages()]
    assert VECTORS["read"] == ours and len(ours) == VECTORS["messages"]
