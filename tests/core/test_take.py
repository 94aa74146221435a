from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml
from synthetic_bags import joint_state, open_bag

from e0_ros.core.bag_reader import Bag, BagReadError
from e0_ros.core.definitions import installed
from e0_ros.core.grading import grade_bag
from e0_ros.core.take import read_take, stamp_ns, stream_config
from e0_ros.interfaces import GRIPPER_STATES, JOINT_STATES, Topic, compressed_camera_topic

MS = 1_000_000
START = 10**9


def image(stamp: int, shade: int) -> bytes:
    make = installed().new
    header = make("std_msgs/msg/Header", stamp=time_of(stamp), frame_id="base_color_optical_frame")
    data = np.full(300, shade, np.uint8)
    return installed().encode(make("sensor_msgs/msg/CompressedImage", header=header, format="jpeg", data=data))


def time_of(stamp: int) -> object:
    return installed().new("builtin_interfaces/msg/Time", sec=stamp // 10**9, nanosec=stamp % 10**9)


def record(root: Path, graph: dict | None = None, frozen: bool = False, **custom: str) -> Path:
    """Two seconds of two views (20 Hz), joints (100 Hz), gripper (20 Hz)."""
    writer = open_bag(root)
    if graph is not None:
        writer.attach("configuration.yaml", yaml.safe_dump(graph), START)

    def write(topic: Topic, type_name: str, data: bytes, stamp: int, number: int) -> None:
        writer.write(topic.name, type_name, topic.qos, data, stamp, stamp, number)

    for i in range(201):
        stamp = START + i * 10 * MS
        write(JOINT_STATES, JOINT_STATES.type, joint_state(stamp, [i * 0.01] * 7), stamp, i + 1)
        if i % 5 == 0:
            write(GRIPPER_STATES, GRIPPER_STATES.type, joint_state(stamp, [0.04] * 2), stamp, i // 5 + 1)
            for view in ("base", "wrist"):
                shade = 3 if frozen and view == "wrist" else i
                topic = compressed_camera_topic(view)
                write(topic, topic.type, image(stamp, shade), stamp, i // 5 + 1)
    return writer.close({"outcome": "success", **custom}).path


GRAPH = {
    "graph": "sim",
    "arguments": {"views": ["base", "wrist"]},
    "settings": {"observation_sync": {"camera_rate_hz": 20.0, "joint_rate_hz": 100.0, "image_height": 64}},
}


def verdict(path: Path, **options: bool) -> list[tuple[str, str]]:
    return [(flag.kind, flag.stream) for flag in grade_bag(Bag(path, **options))]


def test_a_good_bag_by_its_own_configuration(tmp_path):
    path = record(tmp_path, GRAPH)
    streams = stream_config(Bag(path))
    assert (streams.camera_rate_hz, streams.joint_rate_hz, streams.views) == (20.0, 100.0, ("base", "wrist"))
    assert verdict(path) == []


def test_streams_as_recorded(tmp_path):
    take = read_take(Bag(record(tmp_path, GRAPH)), ("base", "wrist"))
    assert (take.start_ns, take.end_ns) == (START, START + 2_000 * MS)
    joints = take.streams["joints"]
    assert joints.stamps_ns.tolist() == [START + i * 10 * MS for i in range(201)]
    assert joints.value_stamps_ns.tolist() == [START + i * 20 * MS for i in range(101)]
    assert joints.values[:, 0] == pytest.approx(0.02 * np.arange(101))
    assert len(np.unique(take.streams["wrist"].fingerprints)) == 41


def test_the_same_pixels_under_fresh_stamps_have_the_same_fingerprint(tmp_path):
    assert verdict(record(tmp_path, GRAPH, frozen=True)) == [("frozen", "wrist")]


def test_without_a_configuration_the_views_are_the_recorded_ones_and_the_rates_the_defaults(tmp_path):
    path = record(tmp_path)
    assert stream_config(Bag(path)).views == ("base", "wrist")
    assert verdict(path) == [("rate", "base"), ("rate", "wrist"), ("rate", "joints")]


def test_a_configuration_of_another_version_is_no_obstacle(tmp_path):
    graph = {"settings": {"observation_sync": {"camera_rate_hz": "fast"}}}
    assert stream_config(Bag(record(tmp_path, graph))).camera_rate_hz == 30.0


def test_a_view_that_was_configured_and_never_came_is_missing(tmp_path):
    graph = {**GRAPH, "arguments": {"views": ["base", "wrist", "left"]}}
    assert verdict(record(tmp_path, graph)) == [("missing", "left")]


def test_what_the_recorder_says_of_losses_and_faults(tmp_path):
    path = record(tmp_path, GRAPH, lost_by_topic='{"/e0/observation": 2}', fault="no space")
    assert verdict(path) == [("fault", ""), ("loss", "/e0/observation")]


def test_losses_that_cannot_be_read_are_no_obstacle(tmp_path):
    assert verdict(record(tmp_path, GRAPH, lost_by_topic='{"/a": [1')) == []


def test_messages_that_are_no_samples_are_left_out(tmp_path):
    """One without a stamp, and joint states of another length: another publisher on the topic."""
    folder = record(tmp_path, GRAPH)
    bag, writer = Bag(folder), open_bag(tmp_path, "b")
    writer.attach("configuration.yaml", bag.attachments["configuration.yaml"], START)
    for m in bag.messages():
        writer.write(m.topic, m.type, JOINT_STATES.qos, m.data, m.log_ns, m.publish_ns, m.sequence)
    writer.write(GRIPPER_STATES.name, GRIPPER_STATES.type, GRIPPER_STATES.qos, b"\0\1\0\0", START + 5, START, 0)
    stamp = START + 2_000 * MS
    late = joint_state(stamp + 30 * MS, [0.0] * 2)
    writer.write(JOINT_STATES.name, JOINT_STATES.type, JOINT_STATES.qos, late, stamp, stamp, 202)
    assert verdict(writer.close({"outcome": "success"}).path) == []


def test_a_partial_bag_is_at_fault(tmp_path):
    path = record(tmp_path, GRAPH)
    (path / "metadata.yaml").unlink()
    file = next(path.glob("*.mcap"))
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    assert ("fault", "") in verdict(path, salvage=True)


def test_a_clock_that_was_set_back_shows_although_a_bag_is_read_in_the_order_of_receipt(tmp_path):
    writer = open_bag(tmp_path)
    for i in range(200):
        stamp = START + (i if i < 100 else i - 60) * 10 * MS
        data = joint_state(stamp, [i * 0.01] * 7)
        writer.write(JOINT_STATES.name, JOINT_STATES.type, JOINT_STATES.qos, data, stamp, stamp, i + 1)
    path = writer.close({"outcome": "success"}).path
    assert ("clock", "joints") in verdict(path)


def test_the_stamp_is_read_in_either_byte_order():
    data = joint_state(3_000_000_007, [0.0])
    assert stamp_ns(data) == 3_000_000_007
    assert stamp_ns(b"\0\0\0\0" + (3).to_bytes(4, "big") + (7).to_bytes(4, "big")) == 3_000_000_007


def test_a_message_without_a_stamp_is_refused_in_words():
    with pytest.raises(BagReadError, match="a message of 3 bytes has no header"):
        stamp_ns(b"\0\1\0")
