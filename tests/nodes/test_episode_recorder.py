import array
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import rclpy
from geometry_msgs.msg import TransformStamped
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import Parameter
from rosbags.highlevel import AnyReader
from sensor_msgs.msg import Image, JointState
from std_msgs.msg import String
from tf2_msgs.msg import TFMessage

from e0_msgs.msg import EpisodeEvent, Observation, RecorderState
from e0_msgs.srv import EndEpisode, StartEpisode
from e0_ros.config import ConfigError
from e0_ros.core.bag_reader import Bag, BagReadError, verify
from e0_ros.core.bag_writer import BagWriter
from e0_ros.interfaces import (
    CLOCK,
    END_EPISODE,
    EPISODE_EVENT,
    INSTRUCTION,
    JOINT_STATES,
    OBSERVATION,
    RECORDER_STATE,
    START_EPISODE,
    TF_STATIC,
    Qos,
    Topic,
    camera_topic,
    message_class,
)
from e0_ros.nodes.episode_recorder import EpisodeRecorder

pytestmark = pytest.mark.ros
RNG = np.random.default_rng(0)
PIXELS = cv2.resize(RNG.integers(0, 256, (6, 8, 3), dtype=np.uint8), (64, 48))


class Bench:
    """A recorder and the clients of it in one executor, spun by hand."""

    def __init__(self, bag_dir: Path, **parameters: Any) -> None:
        self.bag_dir = bag_dir
        values = {"bag_dir": str(bag_dir), "min_free_bytes": 0, **parameters}
        overrides = [Parameter(name, value=value) for name, value in values.items()]
        self.recorder = EpisodeRecorder(parameter_overrides=overrides)
        self.node = rclpy.create_node("bench")
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self.recorder)
        self._executor.add_node(self.node)
        self._start = self.node.create_client(StartEpisode, START_EPISODE.name)
        self._end = self.node.create_client(EndEpisode, END_EPISODE.name)
        self.spin_until(lambda: self._start.service_is_ready() and self._end.service_is_ready())

    def publisher(self, topic: Topic, qos: Qos | None = None) -> Any:
        publisher = self.node.create_publisher(message_class(topic.type), topic.name, (qos or topic.qos).profile())
        self.spin_until(lambda: publisher.get_subscription_count() > 0)
        return publisher

    def start(self, **request: Any) -> Any:
        return self._call(self._start, StartEpisode.Request(**request))

    def end(self, outcome: str = "success", **request: Any) -> Any:
        return self._call(self._end, EndEpisode.Request(outcome=outcome, **request))

    def received(self, topic: Topic) -> list[Any]:
        messages: list[Any] = []
        kind = message_class(topic.type)
        self.node.create_subscription(kind, topic.name, messages.append, topic.qos.profile())
        return messages

    def spin_until(self, done: Callable[[], bool], limit_s: float = 20.0) -> None:
        end = time.monotonic() + limit_s
        while not done():
            assert time.monotonic() < end, "nothing happened in time"
            self._executor.spin_once(timeout_sec=0.05)

    def close(self) -> None:
        self._executor.shutdown()
        self.recorder.close()
        self.recorder.destroy_node()
        self.node.destroy_node()

    def _call(self, client: Any, request: Any) -> Any:
        future = client.call_async(request)
        self.spin_until(future.done)
        return future.result()


@pytest.fixture
def make_bench(ros: None, tmp_path: Path) -> Iterator[Callable[..., Bench]]:
    benches: list[Bench] = []

    def make(**parameters: Any) -> Bench:
        benches.append(Bench(tmp_path / "bags", **parameters))
        return benches[-1]

    yield make
    for bench in benches:
        bench.close()


def image(encoding: str = "rgb8", pixels: np.ndarray = PIXELS) -> Image:
    height, width = pixels.shape[:2]
    msg = Image(height=height, width=width, encoding=encoding, step=pixels.strides[0])
    msg.header.stamp.sec, msg.header.frame_id = 7, "camera"
    msg.data = array.array("B", pixels.tobytes())
    return msg


def read(path: str) -> list[tuple[str, Any]]:
    """Topics and messages by the stock reader."""
    verify(Path(path))
    with AnyReader([Path(path)]) as reader:
        return [(c.topic, reader.deserialize(raw, c.msgtype)) for c, _, raw in reader.messages()]


def test_everything_published_before_the_end_is_in_the_bag(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench()
    joints, camera = bench.publisher(JOINT_STATES), bench.publisher(camera_topic("base"))
    bench.publisher(INSTRUCTION).publish(String(data="pick the cube"))
    started = bench.start(task="PickCube-v1", seed=3)
    assert started.success and started.episode_id
    for i in range(200):
        joints.publish(JointState(name=["a"], position=[float(i)]))
    camera.publish(image())
    ended = bench.end(note="fine")
    assert (ended.success, ended.message, ended.lost) == (True, "", 0)
    assert ended.bag == started.bag == str(bench.bag_dir / started.episode_id)
    messages = read(ended.bag)
    assert ended.messages == len(messages)
    assert [m.position[0] for t, m in messages if t == JOINT_STATES.name] == list(range(200))
    assert messages[0][0] == messages[-1][0] == EPISODE_EVENT.name
    first, last = messages[0][1], messages[-1][1]
    assert (first.kind, first.task, first.seed, first.instruction) == (0, "PickCube-v1", 3, "pick the cube")
    assert (last.kind, last.outcome, last.note) == (1, "success", "fine")
    assert [m.data for t, m in messages if t == INSTRUCTION.name] == ["pick the cube"]
    assert [t for t, _ in messages].count(camera_topic("base").name + "/compressed") == 1


def test_what_arrives_after_the_request_to_end_is_waited_for(
    make_bench: Callable[..., Bench], monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = make_bench()
    joints, inputs = bench.publisher(JOINT_STATES), bench.recorder._inputs
    bench.start()
    drain = inputs.drain

    def late(quiet_s: float, limit_s: float) -> None:
        joints.publish(JointState(position=[99.0]))
        drain(quiet_s, limit_s)

    monkeypatch.setattr(inputs, "drain", late)
    stored = [m for t, m in read(bench.end().bag) if t == JOINT_STATES.name]
    assert [m.position[0] for m in stored] == [99.0]


def test_an_episode_says_how_it_was_recorded(make_bench: Callable[..., Bench], tmp_path: Path) -> None:
    graph = tmp_path / "graph.yaml"
    graph.write_text("sim: maniskill\n")
    bench = make_bench(configuration=str(graph), jpeg_quality=90)
    bench.start(episode_id="one")
    custom = Bag(Path(bench.end("failure").bag)).custom
    assert (custom["episode_id"], custom["outcome"], custom["lost"]) == ("one", "failure", "0")
    assert "jpeg_quality: 90" in custom["configuration"] and custom["code_version"]
    from mcap.reader import make_reader

    with (bench.bag_dir / "one" / "one_0.mcap").open("rb") as stream:
        attached = {a.name: a.data for a in make_reader(stream).iter_attachments()}
    assert attached["configuration.yaml"] == b"sim: maniskill\n"


@pytest.mark.parametrize(
    ("images", "encoding"), [("jpeg", "rgb8"), ("png", "bgr8"), ("jpeg", "mono8"), ("jpeg", "16UC1")]
)
def test_images_are_compressed_as_image_transport_does(
    make_bench: Callable[..., Bench], images: str, encoding: str
) -> None:
    bench = make_bench(images=images)
    pixels = PIXELS if encoding in ("rgb8", "bgr8") else PIXELS[..., 0]
    pixels = pixels.astype(np.uint16) * 200 if encoding == "16UC1" else np.ascontiguousarray(pixels)
    camera = bench.publisher(camera_topic("wrist"))
    bench.start()
    camera.publish(image(encoding, pixels))
    stored = dict(read(bench.end().bag))[camera_topic("wrist").name + "/compressed"]
    assert (stored.header.stamp.sec, stored.header.frame_id) == (7, "camera")
    codec = "png" if images == "png" or encoding == "16UC1" else "jpeg"
    assert stored.format.startswith(f"{encoding}; {codec} compressed ")
    decoded = cv2.imdecode(stored.data, cv2.IMREAD_UNCHANGED)
    if encoding == "rgb8":
        decoded = cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB)
    error = np.abs(decoded.astype(int) - pixels.astype(int))
    assert error.max() == 0 if codec == "png" else error.mean() < 4


def test_raw_images_are_stored_as_they_came(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench(images="raw")
    camera = bench.publisher(camera_topic("base"))
    bench.start()
    camera.publish(image())
    stored = dict(read(bench.end().bag))[camera_topic("base").name]
    assert stored.data.tobytes() == PIXELS.tobytes()


@pytest.mark.parametrize("broken", [image("yuv422"), Image(encoding="rgb8", width=64, height=48, step=192)])
def test_images_that_cannot_be_compressed_are_stored_as_they_came(
    make_bench: Callable[..., Bench], broken: Image
) -> None:
    bench = make_bench()
    camera = bench.publisher(camera_topic("base"))
    bench.start()
    camera.publish(broken)
    stored = dict(read(bench.end().bag))[camera_topic("base").name]
    assert (stored.encoding, len(stored.data)) == (broken.encoding, len(broken.data))


@pytest.mark.parametrize("keep", [False, True])
def test_observations_lose_their_pixels_unless_asked(make_bench: Callable[..., Bench], keep: bool) -> None:
    bench = make_bench(observation_images=keep)
    observations = bench.publisher(OBSERVATION)
    bench.start()
    observations.publish(Observation(sequence=4, view_names=["base"], views=[image()], view_skew_ns=[0]))
    stored = dict(read(bench.end().bag))[OBSERVATION.name]
    assert (stored.sequence, stored.view_names, stored.views[0].width) == (4, ["base"], 64)
    assert len(stored.views[0].data) == (PIXELS.size if keep else 0)


def test_lost_messages_are_counted_from_the_publishers_numbers(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench()
    bench.start()
    data = Bag.__doc__.encode()
    for number in (1, 2, 5, 6, 10):
        info = {"publication_sequence_number": number, "publisher_gid": {"data": b"p"}, "source_timestamp": number}
        info["received_timestamp"] = number
        bench.recorder._on_message(JOINT_STATES, data, info)
    ended = bench.end()
    assert (ended.success, ended.lost) == (True, 5)
    assert Bag(Path(ended.bag)).custom["lost_by_topic"] == f'{{"{JOINT_STATES.name}": 5}}'


def test_a_keep_last_publisher_that_overruns_is_a_loss_that_shows(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench()
    clock = bench.publisher(CLOCK)
    bench.start()
    for _ in range(50):
        clock.publish(message_class(CLOCK.type)())
    ended = bench.end()
    stored = [t for t, _ in read(ended.bag)].count(CLOCK.name)
    assert stored + ended.lost == 50


def test_requests_that_make_no_sense_are_refused_with_the_reason(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench()
    assert "no episode is running" in bench.end().message
    assert "allowed are" in bench.start(episode_id="../evil").message
    assert bench.start(episode_id="one").success
    assert "one is running" in bench.start(episode_id="two").message
    assert "did you mean 'success'" in bench.end("sucess").message
    assert bench.end().success
    assert "choose another id" in bench.start(episode_id="one").message
    assert sorted(p.name for p in bench.bag_dir.iterdir()) == ["one"]


def test_without_recording_episodes_still_live(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench(record=False)
    events = bench.received(EPISODE_EVENT)
    started = bench.start(task="t")
    assert (started.success, started.bag) == (True, "")
    ended = bench.end("failure")
    assert (ended.success, ended.bag) == (True, "")
    bench.spin_until(lambda: len(events) == 2)
    assert [e.kind for e in events] == [EpisodeEvent.START, EpisodeEvent.END]
    assert not bench.bag_dir.exists()


def test_a_discarded_episode_is_moved(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench()
    bench.start(episode_id="bad")
    ended = bench.end("discard")
    assert ended.bag == str(bench.bag_dir / "discarded" / "bad")
    assert Bag(Path(ended.bag)).custom["outcome"] == "discard"


def test_a_best_effort_publisher_is_recorded_too(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench()
    weak = Qos(depth=10, reliable=False)
    publisher = bench.node.create_publisher(JointState, JOINT_STATES.name, weak.profile())
    bench.spin_until(lambda: publisher.get_subscription_count() > 0)
    bench.start()
    publisher.publish(JointState(position=[1.0]))
    assert [t for t, _ in read(bench.end().bag)].count(JOINT_STATES.name) == 1


def test_times_are_the_simulations_where_it_has_a_clock(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench(use_sim_time=True)
    clock, joints = bench.publisher(CLOCK), bench.publisher(JOINT_STATES)
    now = message_class(CLOCK.type)()
    now.clock.sec = 42
    clock.publish(now)
    bench.spin_until(lambda: bench.recorder.get_clock().now().nanoseconds > 0)
    bench.start()
    joints.publish(JointState())
    bag = Bag(Path(bench.end().bag))
    assert {m.log_ns for m in bag.messages()} == {42 * 10**9}
    assert all(m.publish_ns > 10**18 for m in bag.messages())


def test_more_topics_by_name_and_type(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench(extra_topics=["/more std_msgs/msg/String"])
    publisher = bench.publisher(Topic("/more", "std_msgs/msg/String", Qos(), "", ""))
    bench.start()
    publisher.publish(String(data="x"))
    assert dict(read(bench.end().bag))["/more"].data == "x"


def test_a_late_subscriber_learns_the_state_and_the_last_event(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench()
    bench.start(episode_id="one")
    events, states = bench.received(EPISODE_EVENT), bench.received(RECORDER_STATE)
    bench.spin_until(lambda: bool(events) and bool(states) and states[-1].mode == RecorderState.RECORDING)
    assert events[-1].episode_id == states[-1].episode_id == "one"
    assert states[-1].free_bytes > 0 and states[-1].bag.endswith("one.partial")


def test_a_full_disk_is_a_fault_and_the_bag_is_whole_up_to_then(
    make_bench: Callable[..., Bench], tmp_path: Path
) -> None:
    disk = tmp_path / "bags"
    disk.mkdir()
    mount = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(disk)], capture_output=True, text=True
    )
    if mount.returncode:
        pytest.skip(f"a small tmpfs cannot be mounted here: {mount.stderr.strip()}")
    try:
        _fill_the_disk(make_bench(images="raw", compression="none", min_free_bytes=4 * 2**20))
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


def _fill_the_disk(bench: Bench) -> None:
    camera, states = bench.publisher(camera_topic("base")), bench.received(RECORDER_STATE)
    bench.start(episode_id="one")
    noise = RNG.integers(0, 256, (480, 640, 3), dtype=np.uint8)
    for _ in range(5):
        camera.publish(image(pixels=noise))
        bench.spin_until(lambda: True)
    bench.spin_until(lambda: any(s.mode == RecorderState.FAULT for s in states))
    assert "min_free_bytes" in states[-1].reason
    ended = bench.end()
    assert not ended.success and "recording stopped" in ended.message
    assert len([t for t, _ in read(str(bench.bag_dir / "one")) if t == camera_topic("base").name]) >= 1
    assert Bag(bench.bag_dir / "one").custom["fault"] == ended.message
    assert "make room" in bench.start().message


def test_a_write_error_is_a_fault_and_leaves_the_bag_partial(
    make_bench: Callable[..., Bench], monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = make_bench()
    joints = bench.publisher(JOINT_STATES)
    bench.start(episode_id="one")
    joints.publish(JointState(position=[1.0]))
    bench.spin_until(lambda: bench.recorder._recording.messages >= 2)

    def broken(self: BagWriter) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(BagWriter, "flush", broken)
    states = bench.received(RECORDER_STATE)
    bench.spin_until(lambda: any(s.mode == RecorderState.FAULT for s in states))
    monkeypatch.undo()
    assert "Input/output error" in bench.end().message
    with pytest.raises(BagReadError):
        Bag(bench.bag_dir / "one")
    assert bench.start(episode_id="two").success
    assert bench.end().success


@pytest.mark.parametrize(("sent", "closed"), [(signal.SIGKILL, False), (signal.SIGTERM, True), (signal.SIGINT, True)])
def test_a_recorder_that_is_stopped(ros: None, tmp_path: Path, sent: int, closed: bool) -> None:
    process = _process(f"bag_dir:={tmp_path / 'out'}", "min_free_bytes:=0")
    try:
        node = rclpy.create_node("stopper")
        client = node.create_client(StartEpisode, START_EPISODE.name)
        assert client.wait_for_service(30.0)
        events: list[EpisodeEvent] = []
        node.create_subscription(EpisodeEvent, EPISODE_EVENT.name, events.append, EPISODE_EVENT.qos.profile())
        future = client.call_async(StartEpisode.Request(episode_id="one"))
        rclpy.spin_until_future_complete(node, future, timeout_sec=30.0)
        assert future.result().success
        partial = tmp_path / "out" / "one.partial"
        _wait(lambda: sum(1 for _ in Bag(partial, salvage=True).messages()) >= 1)
        process.send_signal(sent)
        process.wait(30)
        if closed:
            _wait(lambda: rclpy.spin_once(node, timeout_sec=0.1) or [e.kind for e in events] == [0, 1])
        node.destroy_node()
    finally:
        process.kill()
    if closed:
        assert process.returncode == 0, process.stderr.read()
        assert Bag(tmp_path / "out" / "one").custom["outcome"] == "unlabelled"
        assert [m.kind for t, m in read(str(tmp_path / "out" / "one")) if t == EPISODE_EVENT.name] == [0, 1]
    else:
        with pytest.raises(BagReadError, match="did not finish"):
            Bag(partial)
        assert next(Bag(partial, salvage=True).messages()).topic == EPISODE_EVENT.name


@pytest.mark.parametrize(
    "parameter",
    [
        *("images:=jpg", "views:=3", "extra_topics:=['/a']", "extra_topics:=['/a b/msg/C']"),
        *("bag_dri:=x", "configuration:=/no/such"),
    ],
)
def test_a_bad_parameter_is_one_line_and_status_2(parameter: str) -> None:
    process = _process(parameter)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 2
    assert error.count("\n") == 1 and error.startswith("error: ")


def test_bad_parameters_raise_at_construction(make_bench: Callable[..., Bench]) -> None:
    with pytest.raises(ConfigError, match="did you mean 'jpeg'"):
        make_bench(images="jpg")


def _process(*parameters: str) -> Any:
    command = [sys.executable, "-m", "e0_ros.nodes.episode_recorder", "--ros-args"]
    for parameter in parameters:
        command += ["-p", parameter]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=os.environ)


def _wait(done: Callable[[], bool], limit_s: float = 20.0) -> None:
    end = time.monotonic() + limit_s
    while not done():
        assert time.monotonic() < end, "nothing happened in time"
        time.sleep(0.05)


def test_every_publisher_of_static_transforms_is_in_every_bag(make_bench):
    bench = make_bench()
    for frame in ("base_camera", "wrist_camera"):
        transform = TransformStamped(child_frame_id=frame)
        publisher = bench.publisher(TF_STATIC)
        for x in (1.0, 2.0):  # what it said last is what counts
            transform.transform.translation.x = x
            publisher.publish(TFMessage(transforms=[transform]))
    heard = bench.received(TF_STATIC)
    bench.spin_until(lambda: {t.child_frame_id for m in heard for t in m.transforms} == {"base_camera", "wrist_camera"})
    for name in ("one", "two"):
        assert bench.start(episode_id=name).success
        messages = [m for t, m in read(bench.end().bag) if t == TF_STATIC.name]
        found = {t.child_frame_id: t.transform.translation.x for m in messages for t in m.transforms}
        assert found == {"base_camera": 2.0, "wrist_camera": 2.0}
