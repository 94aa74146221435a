import errno
import json
import os
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from mcap.reader import make_reader
from mcap_ros2.decoder import DecoderFactory
from rosbags.highlevel import AnyReader
from rosbags.interfaces import QosDurability, QosReliability
from synthetic_bags import fill, make_bag, open_bag

from e0_ros.core.bag_writer import BagError, free_bytes
from e0_ros.core.definitions import DefinitionError, Definitions, installed
from e0_ros.interfaces import INSTRUCTION, JOINT_STATES, TOPICS, Qos


@pytest.mark.parametrize("compression", ["none", "lz4", "zstd"])
def test_stock_readers_open_it_and_decode_every_message(tmp_path: Path, compression: str) -> None:
    path = make_bag(tmp_path, compression=compression)
    with AnyReader([path]) as reader:
        messages = [(c, t, reader.deserialize(raw, c.msgtype)) for c, t, raw in reader.messages()]
        joints = [(t, m) for c, t, m in messages if c.topic == JOINT_STATES.name]
        assert reader.message_count == len(messages) == 330
        assert [m.position[6] for _, m in joints] == list(range(300))
        assert [t for t, _ in joints] == [10**9 + i * 10**6 for i in range(300)]
        digest = {c.topic: c.digest for c in reader.connections}[JOINT_STATES.name]
        assert digest == _type_hash(JOINT_STATES.type)
    with (path / "a_0.mcap").open("rb") as stream:
        decoder = make_reader(stream, decoder_factories=[DecoderFactory()])
        decoded = list(decoder.iter_decoded_messages(topics=[JOINT_STATES.name]))
    assert [d.decoded_message.position[0] for d in decoded] == list(range(300))
    assert [d.message.sequence for d in decoded] == list(range(300))
    assert decoded[7].message.publish_time == 10**9 + 7 * 10**6 - 5


def test_metadata_has_the_keys_and_kinds_of_rosbag2_version_8(tmp_path: Path) -> None:
    path = make_bag(tmp_path)
    text = (path / "metadata.yaml").read_text()
    assert "&id" not in text
    information = yaml.safe_load(text)["rosbag2_bagfile_information"]
    assert set(information) == {
        *("version", "storage_identifier", "duration", "starting_time", "message_count", "topics_with_message_count"),
        *("compression_format", "compression_mode", "relative_file_paths", "files", "custom_data", "ros_distro"),
    }
    assert information["version"] == 8 and information["storage_identifier"] == "mcap"
    assert information["starting_time"] == {"nanoseconds_since_epoch": 10**9}
    assert information["duration"] == {"nanoseconds": 299 * 10**6}
    assert information["custom_data"] == {"outcome": "success", "seed": "3"}
    with (path / "a_0.mcap").open("rb") as stream:
        records = {record.name: record.metadata for record in make_reader(stream).iter_metadata()}
    assert yaml.safe_load(records["rosbag2"]["serialized_metadata"]) == information


def test_mcap_has_profile_schema_hash_and_qos(tmp_path: Path) -> None:
    path = make_bag(tmp_path)
    with (path / "a_0.mcap").open("rb") as stream:
        reader = make_reader(stream)
        summary = reader.get_summary()
        assert reader.get_header().profile == "ros2"
    channel = next(c for c in summary.channels.values() if c.topic == JOINT_STATES.name)
    schema = summary.schemas[channel.schema_id]
    assert (schema.encoding, channel.message_encoding) == ("ros2msg", "cdr")
    assert b"MSG: std_msgs/Header" in schema.data and b"MSG: builtin_interfaces/Time" in schema.data
    assert channel.metadata["topic_type_hash"] == _type_hash(JOINT_STATES.type)
    assert yaml.safe_load(channel.metadata["offered_qos_profiles"])[0]["reliability"] == 1
    assert summary.statistics.chunk_count > 10


QOS_KEYS = {
    *("history", "depth", "reliability", "durability", "liveliness"),
    *("deadline", "lifespan", "liveliness_lease_duration", "avoid_ros_namespace_conventions"),
}


def test_what_humble_and_jazzy_decode_has_the_types_that_they_decode_it_as(tmp_path: Path) -> None:
    """The rules of rosbag2's own decoders: humble `metadata_io.cpp` and `qos.cpp`, jazzy `yaml.hpp` and `qos.cpp`."""
    path = make_bag(tmp_path)
    information = yaml.safe_load((path / "metadata.yaml").read_text())["rosbag2_bagfile_information"]
    texts = [topic["topic_metadata"]["offered_qos_profiles"] for topic in information["topics_with_message_count"]]
    for topic in information["topics_with_message_count"]:
        metadata = topic["topic_metadata"]
        assert type(topic["message_count"]) is int
        assert all(type(value) is str for value in metadata.values()), "below version 9 QoS is a string, too"
        assert metadata["type_description_hash"].startswith("RIHS01_")
    with (path / "a_0.mcap").open("rb") as stream:
        texts += [c.metadata["offered_qos_profiles"] for c in make_reader(stream).get_summary().channels.values()]
    for text in texts:
        for qos in yaml.safe_load(text):
            assert set(qos) == QOS_KEYS
            assert all(type(qos[key]) is int for key in ("history", "depth", "reliability", "durability", "liveliness"))
            assert qos["avoid_ros_namespace_conventions"] is False
            for key in ("deadline", "lifespan", "liveliness_lease_duration"):
                assert qos[key] == {"sec": 9223372036, "nsec": 854775807}, "rmw's infinite duration"
    (file,) = information["files"]
    assert set(file) == {"path", "starting_time", "duration", "message_count"}
    assert all(type(value) is str for value in information["custom_data"].values())


def test_offered_qos_is_read_back(tmp_path: Path) -> None:
    writer = open_bag(tmp_path)
    data = installed().encode(installed().new("std_msgs/msg/String", data="x"))
    writer.write(INSTRUCTION.name, INSTRUCTION.type, INSTRUCTION.qos, data, 1, 1, 1)
    writer.write("/weak", INSTRUCTION.type, Qos(depth=3, reliable=False), data, 1, 1, 1)
    with AnyReader([writer.close({}).path]) as reader:
        offered = {c.topic: c.ext.offered_qos_profiles[0] for c in reader.connections}
    assert offered[INSTRUCTION.name].durability == QosDurability.TRANSIENT_LOCAL
    assert (offered["/weak"].reliability, offered["/weak"].depth) == (QosReliability.BEST_EFFORT, 3)


def test_type_hashes_of_the_whole_graph_are_those_of_the_installation() -> None:
    for topic in TOPICS:
        assert installed().type_hash(topic.type) == _type_hash(topic.type), topic.type


def test_a_type_that_is_not_installed_is_named(tmp_path: Path) -> None:
    with pytest.raises(DefinitionError, match=r"no_msgs/msg/No; looked in .*install package no_msgs"):
        Definitions([tmp_path]).schema("no_msgs/msg/No")


def test_it_is_partial_until_it_is_closed(tmp_path: Path) -> None:
    writer = open_bag(tmp_path)
    fill(writer)
    writer.flush()
    assert [p.name for p in tmp_path.iterdir()] == ["a.partial"]
    assert not (tmp_path / "a.partial" / "metadata.yaml").exists()
    writer.close({})
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


def test_a_discarded_bag_is_moved_not_deleted(tmp_path: Path) -> None:
    writer = open_bag(tmp_path)
    fill(writer)
    assert writer.close({}, discard=True).path == tmp_path / "discarded" / "a"
    with AnyReader([tmp_path / "discarded" / "a"]) as reader:
        assert reader.message_count == 330


@pytest.mark.parametrize("place", ["a", "a.partial", "discarded/a"])
def test_nothing_is_overwritten(tmp_path: Path, place: str) -> None:
    (tmp_path / place).mkdir(parents=True)
    with pytest.raises(BagError, match="exists"):
        open_bag(tmp_path)


@pytest.mark.parametrize("name", ["../a", "a/b", "/tmp/a", "", "a.partial", "A"])
def test_a_name_that_must_not_become_a_path_is_refused(tmp_path: Path, name: str, record_property) -> None:
    with pytest.raises(BagError, match="cannot name a bag"):
        open_bag(tmp_path, name)
    assert not list(tmp_path.iterdir())
    record_property("figure", "name of a bag refused, 0 files written")


def test_a_file_system_that_fails_at_the_end_leaves_it_partial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = open_bag(tmp_path)
    fill(writer)

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(BagError, match=r"No space left.*stays partial"):
        writer.close({})
    assert [p.name for p in tmp_path.iterdir()] == ["a.partial"]


def test_disk_is_forced_by_recorded_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    monkeypatch.setattr(os, "fsync", calls.append)
    writer = open_bag(tmp_path, fsync_s=0.1)
    for i in range(30):
        fill(writer, 10, 10 * i)
        writer.flush()
    assert 3 <= len(calls) <= 4


def test_free_bytes_of_a_folder_that_is_still_to_be_made(tmp_path: Path) -> None:
    usage = SimpleNamespace(free=free_bytes(tmp_path))
    assert abs(free_bytes(tmp_path / "x" / "y") - usage.free) < 2**30


def _type_hash(type_name: str) -> str:
    package, _, short = type_name.partition("/msg/")
    path = next(
        p
        for prefix in os.environ["AMENT_PREFIX_PATH"].split(os.pathsep)
        if (p := Path(prefix) / "share" / package / "msg" / f"{short}.json").exists()
    )
    hashes = json.loads(path.read_text())["type_hashes"]
    return next(entry["hash_string"] for entry in hashes if entry["type_name"] == type_name)
