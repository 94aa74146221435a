"""The real node, fed over real topics by a publisher in the same process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import cv2
import numpy as np
import pytest
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import Parameter
from sensor_msgs.msg import CompressedImage, Image, JointState
from std_msgs.msg import String

from e0_msgs.msg import Observation
from e0_msgs.srv import SetInstruction
from e0_policy.embodiment import load_embodiment
from e0_ros import interfaces
from e0_ros.conversions import deserialize, image_to_msg, stamp_of, to_ns, to_time
from e0_ros.nodes.observation_sync import ObservationSyncNode

pytestmark = pytest.mark.ros
ARM = load_embodiment("fr3")
NOW = 500_000_000_000


class Rig:
    """The node under test and a node that plays sensors and listens."""

    def __init__(self, **parameters: Any) -> None:
        overrides = [Parameter(name, value=value) for name, value in parameters.items()]
        self.node = ObservationSyncNode(parameter_overrides=overrides)
        self.rig = Node("rig")
        self.executor = SingleThreadedExecutor()
        self.executor.add_node(self.node)
        self.executor.add_node(self.rig)
        self.got: dict[str, list[Any]] = {}
        for topic in (interfaces.OBSERVATION, interfaces.INSTRUCTION, interfaces.DIAGNOSTICS):
            kind, messages = interfaces.message_class(topic.type), self.got.setdefault(topic.name, [])
            self.rig.create_subscription(kind, topic.name, messages.append, topic.qos.profile())
        camera = interfaces.compressed_camera_topic if parameters.get("compressed") else interfaces.camera_topic
        views = parameters.get("views", ["base", "wrist"])
        self.cameras = {view: self.publisher(camera(view)) for view in views}
        self.joints = self.publisher(interfaces.JOINT_STATES)
        self.gripper = self.publisher(interfaces.GRIPPER_STATES)
        self.client = self.rig.create_client(SetInstruction, interfaces.SET_INSTRUCTION.name)
        sensors = [*self.cameras.values(), self.joints, self.gripper]
        self.until(lambda: all(p.get_subscription_count() for p in sensors) and self.client.service_is_ready())
        self.until(lambda: self.rig.count_publishers(interfaces.OBSERVATION.name) > 0)
        self.until(lambda: self.got[interfaces.INSTRUCTION.name])

    def publisher(self, topic: interfaces.Topic) -> Any:
        return self.rig.create_publisher(interfaces.message_class(topic.type), topic.name, topic.qos.profile())

    def until(self, done: Callable[[], Any], timeout_s: float = 90.0) -> None:
        end = time.monotonic() + timeout_s
        while not done():
            assert time.monotonic() < end, "timeout"
            self.executor.spin_once(timeout_sec=0.05)

    def observations(self, count: int) -> list[Observation]:
        messages = self.got[interfaces.OBSERVATION.name]
        self.until(lambda: len(messages) >= count)
        return messages

    def joint_state(self, stamp_ns: int, offset: float = 0.0, names: list[str] | None = None) -> None:
        msg = JointState(name=list(ARM.joint_names) if names is None else names)
        msg.header.stamp = to_time(stamp_ns)
        msg.position = (ARM.home + offset).tolist()
        self.joints.publish(msg)

    def gripper_state(self, stamp_ns: int, width_m: float = 0.02) -> None:
        msg = JointState(name=list(ARM.gripper_joint_names), position=[width_m / 2, width_m / 2])
        msg.header.stamp = to_time(stamp_ns)
        self.gripper.publish(msg)

    def image(self, view: str, stamp_ns: int, value: int = 100) -> None:
        pixels = np.full((480, 640, 3), value, np.uint8)
        self.cameras[view].publish(image_to_msg(pixels, stamp_ns, view))

    def close(self) -> None:
        self.executor.shutdown()
        self.node.destroy_node()
        self.rig.destroy_node()


@pytest.fixture
def rig(ros: None) -> Iterator[Callable[..., Rig]]:
    rigs: list[Rig] = []

    def make(**parameters: Any) -> Rig:
        rigs.append(Rig(**parameters))
        return rigs[-1]

    yield make
    for made in rigs:
        made.close()


def test_one_observation_per_tick_with_the_contents_of_its_streams(rig: Callable[..., Rig]) -> None:
    r = rig(lockstep=True, instruction="pick the cube")
    for tick in range(3):
        t = NOW + tick * 50_000_000
        r.image("wrist", t, 50 + tick)
        r.image("base", t, 100 + tick)
        r.gripper_state(t)
        r.joint_state(t - 10_000_000, 0.0)
        r.joint_state(t, 0.5 + tick)
        got = r.observations(tick + 1)[tick]
        assert to_ns(got.header.stamp) == t
        assert (got.status, got.sequence, got.stale_stream) == (Observation.STATUS_OK, tick, "")
        assert (got.embodiment, got.instruction, got.header.frame_id) == ("fr3", "pick the cube", "fr3_link0")
        assert got.view_names == ["base", "wrist"]
        assert [(v.height, v.width, v.encoding) for v in got.views] == [(224, 224, "rgb8")] * 2
        assert [v.data[112 * 672] for v in got.views] == [100 + tick, 50 + tick]
        assert [v.data[0] for v in got.views] == [0, 0], "padding above a wide image"
        assert tuple(got.joint_names) == ARM.joint_names
        np.testing.assert_allclose(got.joint_positions, ARM.home + 0.5 + tick)
        assert got.gripper_opening == pytest.approx(0.25)
    assert len(r.observations(3)) == 3


def test_names_decide_over_order_and_a_missing_one_is_stale(rig: Callable[..., Rig]) -> None:
    r = rig(lockstep=True, views=["base"])
    for tick, names in enumerate(([*reversed(ARM.joint_names)], [*ARM.joint_names[:6], "elbow"])):
        t = NOW + tick * 50_000_000
        r.joint_state(t, names=names)
        r.gripper_state(t)
        r.image("base", t)
        r.observations(tick + 1)
    reordered, missing = r.observations(2)
    np.testing.assert_allclose(reordered.joint_positions, ARM.home[::-1])
    assert (missing.status, missing.stale_stream) == (Observation.STATUS_STALE, "joints")
    assert "no joint fr3_joint7" in missing.stale_reason
    assert not missing.views and not missing.joint_positions


def test_live_a_missing_stream_is_named(rig: Callable[..., Rig]) -> None:
    r = rig(views=["base"])
    now_ns = r.rig.get_clock().now().nanoseconds
    r.image("base", now_ns)
    messages = r.got[interfaces.OBSERVATION.name]
    r.until(lambda: any(to_ns(m.header.stamp) == now_ns for m in messages))
    answer = next(m for m in messages if to_ns(m.header.stamp) == now_ns)
    assert (answer.status, answer.stale_stream) == (Observation.STATUS_STALE, "joints")
    assert answer.stale_reason == "missing: it has sent nothing yet" and answer.stale_age_ns == -1
    diagnostics = r.got[interfaces.DIAGNOSTICS.name]
    r.until(lambda: any("missing" in m.status[0].message for m in diagnostics))


def test_compressed_images(rig: Callable[..., Rig]) -> None:
    r = rig(lockstep=True, views=["base"], compressed=True, image_height=48, image_width=64)
    r.joint_state(NOW)
    r.gripper_state(NOW)
    rgb = np.zeros((48, 64, 3), np.uint8)
    rgb[..., 0] = 200
    msg = CompressedImage(format="rgb8; jpeg compressed bgr8")
    msg.header.stamp = to_time(NOW)
    msg.data = cv2.imencode(".jpg", rgb[..., ::-1])[1].tobytes()
    r.cameras["base"].publish(msg)
    pixels = np.frombuffer(r.observations(1)[0].views[0].data, np.uint8).reshape(48, 64, 3)
    assert np.abs(pixels.astype(int) - rgb).max() < 8


def test_an_image_that_cannot_be_decoded_is_stale(rig: Callable[..., Rig]) -> None:
    r = rig(lockstep=True, views=["base"])
    r.joint_state(NOW)
    r.gripper_state(NOW)
    msg = Image(height=4, width=4, encoding="yuv422", step=8, data=bytes(32))
    msg.header.stamp = to_time(NOW)
    r.cameras["base"].publish(msg)
    answer = r.observations(1)[0]
    assert answer.stale_stream == "base" and "encoding 'yuv422' is unknown" in answer.stale_reason


def test_the_instruction_is_in_force_when_the_reply_arrives(rig: Callable[..., Rig]) -> None:
    r = rig(lockstep=True, views=["base"])
    for text, success in (("push the cube", True), ("x" * 513, False), ("two\nlines", False)):
        future = r.client.call_async(SetInstruction.Request(instruction=text))
        r.until(future.done)
        assert future.result().success == success
        assert success or "allowed are 512 printable characters" in future.result().message
    r.joint_state(NOW)
    r.gripper_state(NOW)
    r.image("base", NOW)
    assert r.observations(1)[0].instruction == "push the cube"
    topic = interfaces.INSTRUCTION
    late: list[String] = []
    r.rig.create_subscription(String, topic.name, late.append, topic.qos.profile())
    r.until(lambda: late)
    assert late[-1].data == "push the cube"


def test_stamps_are_read_from_the_wire(ros: None) -> None:
    from rclpy.serialization import serialize_message

    for stamp in (0, 1, 1_700_000_000_123_456_789):
        msg = JointState()
        msg.header.stamp = to_time(stamp)
        assert stamp_of(serialize_message(msg)) == stamp
    raw = bytearray(16)
    raw[4:12] = (3).to_bytes(4, "big") + (7).to_bytes(4, "big")
    assert stamp_of(bytes(raw)) == 3_000_000_007, "big endian, as byte 1 says"
    with pytest.raises(ValueError, match="has no header"):
        stamp_of(b"\0" * 11)


@pytest.mark.parametrize(
    ("ns", "nearest"), [(2**31 * 10**9 + 5, 2**31 * 10**9 - 1), (-(2**40) * 10**9, -(2**31) * 10**9)]
)
def test_a_time_that_no_message_can_hold_becomes_the_nearest(ns: int, nearest: int) -> None:
    assert to_ns(to_time(ns)) == nearest


def test_bytes_that_are_no_message_are_a_value_error(ros: None) -> None:
    for raw in (b"", b"\0\1\0\0" + b"\xff" * 40):
        with pytest.raises(ValueError, match="no JointState"):
            deserialize(raw, JointState)


def start(*arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "e0_ros.nodes.observation_sync", "--ros-args"]
    for argument in arguments:
        command += ["-p", argument]
    return subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=os.environ)


@pytest.mark.parametrize(
    ("argument", "text"),
    [
        ("tolerence_ms:=3.0", "did you mean 'tolerance_ms'?"),
        ("tolerance_ms:=-3.0", "allowed is 0.0 to 500.0"),
        ("tolerance_ms:=many", "expecting type 'DOUBLE'"),
        ("embodiment:=fr4", "did you mean 'fr3'?"),
    ],
)
def test_a_bad_parameter_ends_with_one_line_and_status_2(argument: str, text: str) -> None:
    process = start(argument)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 2
    assert text in errors and len(errors.strip().splitlines()) == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_end_it_cleanly(ros: None, number: int) -> None:
    import rclpy

    listener = rclpy.create_node("listener")
    seen: list[String] = []
    topic = interfaces.INSTRUCTION
    listener.create_subscription(String, topic.name, seen.append, topic.qos.profile())
    process = start("instruction:=here")
    end = time.monotonic() + 60
    while not any(m.data == "here" for m in seen):
        assert time.monotonic() < end
        rclpy.spin_once(listener, timeout_sec=0.2)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 0 and "Traceback" not in errors
    listener.destroy_node()
