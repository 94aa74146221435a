import errno
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticStatus
from geometry_msgs.msg import TransformStamped
from rclpy.serialization import serialize_message
from sensor_msgs.msg import Image, JointState
from std_msgs.msg import String
from tf2_msgs.msg import TFMessage

from e0_msgs.msg import EpisodeEvent, Observation, RecorderState
from e0_ros.config import ConfigError
from e0_ros.core.bag_reader import Bag, BagReadError
from e0_ros.core.bag_writer import BagWriter
from e0_ros.interfaces import (
    CLOCK,
    DIAGNOSTICS,
    EPISODE_EVENT,
    INSTRUCTION,
    JOINT_STATES,
    OBSERVATION,
    RECORDER_STATE,
    TF_STATIC,
    Qos,
    Topic,
    camera_topic,
    message_class,
)
from tests.nodes.recorder_bench import PIXELS, RNG, Bench, image, read

pytestmark = pytest.mark.ros


@pytest.fixture
def make_bench(ros: None, tmp_path: Path) -> Iterator[Callable[..., Bench]]:
    benches: list[Bench] = []

    def make(**parameters: Any) -> Bench:
        benches.append(Bench(tmp_path / "bags", **parameters))
        return benches[-1]

    yield make
    for bench in benches:
        bench.close()


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
    states = bench.received(RECORDER_STATE)
    ended = bench.end()
    topic = camera_topic("base").name
    stored = dict(read(ended.bag))[topic]
    assert (stored.encoding, len(stored.data)) == (broken.encoding, len(broken.data))
    counted = int(broken.encoding == "rgb8")  # yuv422 has no compressed form, which is no failure
    assert ended.unencoded == counted
    bench.spin_until(lambda: bool(states) and states[-1].mode == RecorderState.IDLE)
    assert states[-1].unencoded == counted
    custom = Bag(Path(ended.bag)).custom["unencoded_by_topic"]
    assert custom == (f'{{"{topic}": 1}}' if counted else "{}")


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
    assert "choose another id" in bench.start(episode_id=started.episode_id).message
    bench.spin_until(lambda: len(events) == 2)
    assert [e.kind for e in events] == [EpisodeEvent.START, EpisodeEvent.END]
    assert not bench.bag_dir.exists()


def test_a_bag_that_was_set_aside_leaves_its_name_to_another_attempt(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench()
    bench.start(episode_id="one")
    broken = Path(bench.end("unlabelled").bag)
    broken.rename(broken.with_name("one-aside-1"))
    assert bench.start(episode_id="one").success
    assert Path(bench.end().bag) == broken and broken.is_dir()


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


def test_in_simulated_time_nothing_starts_without_a_clock(make_bench: Callable[..., Bench]) -> None:
    refused = make_bench(use_sim_time=True, discovery_s=0.2).start()
    assert not refused.success and "no /clock was heard for 0.2 s; is the simulator up?" in refused.message


def test_in_simulated_time_clock_and_instruction_are_waited_for(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench(use_sim_time=True, discovery_s=60.0)
    clock, instruction = (bench.node.create_publisher(message_class(t.type), t.name, t.qos.profile())
                          for t in (CLOCK, INSTRUCTION))  # fmt: skip
    now = message_class(CLOCK.type)()
    now.clock.sec = 42
    late = threading.Timer(1.0, lambda: (clock.publish(now), instruction.publish(String(data="wait for me"))))
    late.start()
    assert bench.start().success
    late.join()
    bag = Bag(Path(bench.end().bag))
    assert bag.custom["instruction"] == "wait for me"
    assert {m.log_ns for m in bag.messages()} == {42 * 10**9}


def test_times_are_the_simulations_where_it_has_a_clock(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench(use_sim_time=True, discovery_s=0.2)
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
    make_bench: Callable[..., Bench], tmp_path: Path, record_property
) -> None:
    disk = tmp_path / "bags"
    disk.mkdir()
    mount = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(disk)], capture_output=True, text=True
    )
    if mount.returncode:
        pytest.skip(f"a small tmpfs cannot be mounted here: {mount.stderr.strip()}")
    try:
        after_s = _fill_the_disk(make_bench(images="raw", compression="none", min_free_bytes=4 * 2**20))
        record_property(
            "figure", f"a full tmpfs: said {after_s:.2f} s after the first picture, the bag whole up to then"
        )
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


def _fill_the_disk(bench: Bench) -> float:
    """How long after its first picture of 0.9 MB, of which five fill the disk, the recorder said so [s]."""
    camera, states = bench.publisher(camera_topic("base")), bench.received(RECORDER_STATE)
    bench.start(episode_id="one")
    noise, begin_s = RNG.integers(0, 256, (480, 640, 3), dtype=np.uint8), time.monotonic()
    for _ in range(5):
        camera.publish(image(pixels=noise))
        bench.spin_until(lambda: True)
    bench.spin_until(lambda: any(s.mode == RecorderState.FAULT for s in states))
    after_s = time.monotonic() - begin_s
    assert "min_free_bytes" in states[-1].reason
    ended = bench.end()
    assert not ended.success and "recording stopped" in ended.message
    assert len([t for t, _ in read(str(bench.bag_dir / "one")) if t == camera_topic("base").name]) >= 1
    assert Bag(bench.bag_dir / "one").custom["fault"] == ended.message
    assert "make room" in bench.start().message
    return after_s


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


def test_a_disk_that_goes_away_is_a_fault_and_the_recorder_lives(
    make_bench: Callable[..., Bench], monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = make_bench()
    states = bench.received(RECORDER_STATE)
    assert bench.start(episode_id="one").success

    def gone(_: Path) -> int:
        raise OSError(errno.ESTALE, "Stale file handle")

    monkeypatch.setattr("e0_ros.nodes.episode_recorder.free_bytes", gone)
    bench.spin_until(lambda: any(s.mode == RecorderState.FAULT for s in states))
    assert states[-1].free_bytes == 0
    ended = bench.end()
    assert not ended.success and "Stale file handle" in ended.message and Path(ended.bag).is_dir()
    states.clear()
    bench.spin_until(lambda: bool(states))
    monkeypatch.undo()
    assert bench.start(episode_id="two").success
    monkeypatch.setattr("e0_ros.nodes.episode_recorder.free_bytes", gone)
    bench.recorder.destroy_node()  # ends the take
    assert Bag(bench.bag_dir / "two").custom["outcome"] == "unlabelled"


def test_bad_parameters_raise_at_construction(make_bench: Callable[..., Bench]) -> None:
    with pytest.raises(ConfigError, match="did you mean 'jpeg'"):
        make_bench(images="jpg")


def test_without_publishers_numbers_losses_are_unknown_everywhere(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench()
    states = bench.received(RECORDER_STATE)
    bench.start()
    for info in ({}, {"publication_sequence_number": None}):
        times = {"source_timestamp": 1, "received_timestamp": 1}
        bench.recorder._on_message(JOINT_STATES, serialize_message(JointState()), {**times, **info})
    ended = bench.end()
    assert (ended.lost, ended.unnumbered) == (0, 2)
    custom = Bag(Path(ended.bag)).custom
    assert (custom["lost"], custom["lost_by_topic"]) == ("unknown", f'{{"{JOINT_STATES.name}": null}}')
    bench.spin_until(lambda: bool(states) and states[-1].mode == RecorderState.IDLE)
    assert states[-1].unnumbered == 2


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


def test_a_topic_that_stops_in_an_episode_is_reported_until_it_goes_on(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench(silent_s=0.3)
    joints, states, said = bench.publisher(JOINT_STATES), bench.received(RECORDER_STATE), bench.received(DIAGNOSTICS)
    joints.publish(JointState())
    bench.start()
    joints.publish(JointState())
    bench.spin_until(lambda: any(state.reason == f"silent: {JOINT_STATES.name}" for state in states))
    warned = (DiagnosticStatus.WARN, f"silent: {JOINT_STATES.name}")
    bench.spin_until(lambda: warned in [(s.level, s.message) for m in said for s in m.status])

    def goes_on() -> bool:
        joints.publish(JointState())
        return states[-1].reason == ""

    bench.spin_until(goes_on)
    assert bench.end().success
