import json
import threading
import time
from pathlib import Path

import pytest
from synthetic_bags import joint_state

from e0_ros.core import recording as module
from e0_ros.core.bag_reader import Bag
from e0_ros.core.bag_writer import BagError, BagWriter
from e0_ros.core.definitions import installed
from e0_ros.core.recorder_config import BagConfig, RecorderConfig, StoreConfig
from e0_ros.core.recording import Received, Recording
from e0_ros.interfaces import CLOCK, JOINT_STATES, Qos, camera_topic


def begin(root: Path, min_free: int = 0, **store: object) -> Recording:
    recording = Recording(root, "a", BagConfig(min_free_bytes=min_free), StoreConfig(**store), installed())
    recording.start({"task": "t"}, {"note.txt": "x"}, 1)
    return recording


def joints(number: int) -> Received:
    return Received(JOINT_STATES.name, JOINT_STATES.type, Qos(), joint_state(0, [float(number)]), 10**9 + number, 0)


def image(number: int) -> Received:
    topic = camera_topic("base")
    return Received(topic.name, topic.type, Qos(), b"\0\1\0\0not an image", 10**9 + number, 0)


def test_messages_are_written_in_the_order_of_put_whatever_encoding_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    late = threading.Event()

    def slow(*_: object) -> object:
        def change(topic: str, kind: str, data: bytes) -> tuple[str, str, bytes]:
            late.wait(20.0)
            return topic, kind, data

        return change

    monkeypatch.setattr(module, "transform", slow)
    recording = begin(tmp_path)
    for number in range(20):
        assert recording.put(image(number) if number % 5 == 0 else joints(number))
    late.set()
    summary = recording.close({"outcome": "success"})
    assert summary is not None and summary.messages == 20
    salvaged = Bag(summary.path, salvage=True)  # in the order of the file
    assert [m.log_ns - 10**9 for m in salvaged.messages()] == list(range(20))
    assert salvaged.custom == {"task": "t", "outcome": "success", "unencoded_by_topic": "{}"}


def test_what_does_not_fit_the_queue_is_dropped_and_said_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocked, free = threading.Event(), threading.Event()
    write = BagWriter.write

    def slow(self: BagWriter, *arguments: object) -> None:
        blocked.set()
        free.wait(20.0)
        write(self, *arguments)

    monkeypatch.setattr(BagWriter, "write", slow)
    recording = begin(tmp_path, queue_bytes=2**20)
    big = Received("/x", "std_msgs/msg/String", Qos(), bytes(2**18), 1, 0)
    assert [recording.put(big) for _ in range(6)] == [True] * 4 + [False] * 2
    assert blocked.wait(20.0)
    free.set()
    summary = recording.close({})
    assert summary is not None and summary.messages == 4


def test_room_in_the_queue_comes_back(tmp_path: Path) -> None:
    recording = begin(tmp_path, queue_bytes=2**20)
    big = Received("/x", "std_msgs/msg/String", Qos(), bytes(2**19), 1, 0)
    written = 0
    while written < 8:
        written += recording.put(big)
    summary = recording.close({})
    assert summary is not None and summary.messages == 8


def test_it_does_not_begin_without_space(tmp_path: Path) -> None:
    with pytest.raises(BagError, match="make room"):
        begin(tmp_path, min_free=2**62)
    assert not list(tmp_path.iterdir())


def test_too_little_space_while_it_runs_closes_the_bag_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, record_property
) -> None:
    recording = begin(tmp_path, min_free=2**20)
    recording.put(joints(0))
    monkeypatch.setattr(module, "free_bytes", lambda _: 2**19)
    begin_s = time.monotonic()
    recording._thread.join(20.0)
    told_s = time.monotonic() - begin_s
    record_property("figure", f"said {told_s:.2f} s after the space ran out, the bag whole")
    if told_s > 1.0:  # the thread's own pace; a busy machine may add to it
        record_property("beyond", f"said after {told_s:.2f} s")
    assert "recording stopped; make room" in recording.fault
    assert not recording.put(joints(1))
    summary = recording.close({"outcome": "success"})
    assert summary is not None and summary.messages == 1
    custom = Bag(summary.path).custom
    assert (custom["outcome"], custom["fault"]) == ("unlabelled", recording.fault)


def test_a_type_without_definition_stops_it_with_a_reason_and_a_whole_bag(tmp_path: Path) -> None:
    recording = begin(tmp_path)
    recording.put(joints(0))
    recording.put(Received("/x", "no_msgs/msg/No", Qos(), b"", 1, 0))
    summary = recording.close({})
    assert "no_msgs" in recording.fault and summary is not None
    assert len(list(Bag(summary.path).messages())) == 1


def test_a_root_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BagError, match="choose another bag_dir"):
        begin(tmp_path / "file" / "bags")


def test_the_recorder_subscribes_to_the_graph_its_cameras_and_more() -> None:
    topics = RecorderConfig(views=("left",), extra_topics=("/f geometry_msgs/msg/WrenchStamped",)).topics()
    names = [topic.name for topic in topics]
    assert camera_topic("left").name in names and len(set(names)) == len(names)
    assert names[-2:] == ["/f", CLOCK.name], "whoever publishes the clock that is heard has found the others before"


def test_what_cannot_be_encoded_is_stored_as_it_came_and_counted(tmp_path: Path) -> None:
    recording = begin(tmp_path)
    for number in range(3):
        recording.put(image(number))
    recording.put(joints(3))
    summary = recording.close({})
    assert summary is not None and summary.messages == 4
    topic = camera_topic("base").name
    assert recording.unencoded == {topic: 3}
    bag = Bag(summary.path)
    assert [m.data for m in bag.messages([topic])] == [image(0).data] * 3
    assert json.loads(bag.custom["unencoded_by_topic"]) == {topic: 3}
    assert topic in recording.complaints.get(timeout=1.0)
    assert recording.complaints.empty(), "said once per topic"


def test_an_error_that_nobody_foresaw_is_a_fault_and_the_bag_is_whole_up_to_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> object:
        def change(topic: str, kind: str, data: bytes) -> tuple[str, str, bytes]:
            raise AttributeError("no such thing")

        return change

    monkeypatch.setattr(module, "transform", broken)
    recording = begin(tmp_path)
    recording.put(joints(0))
    recording.put(image(1))
    summary = recording.close({"outcome": "success"})
    assert "AttributeError: no such thing" in recording.fault
    assert summary is not None and summary.messages == 1
    assert Bag(summary.path).custom["outcome"] == "unlabelled"
