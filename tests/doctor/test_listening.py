"""The streams of a running graph, heard over real topics."""

from __future__ import annotations

import threading
import time

import pytest

from e0_ros.core.pairing import SyncConfig
from e0_ros.doctor.listening import listen
from e0_ros.interfaces import JOINT_STATES, camera_topic, message_class

pytestmark = pytest.mark.ros


@pytest.fixture
def cameras(ros):
    """Publishes two views and joint states until the test ends."""
    import rclpy

    from e0_ros.conversions import to_time

    node = rclpy.create_node("fake_bench")
    topics = [camera_topic("base"), camera_topic("wrist"), JOINT_STATES]
    publishers = [node.create_publisher(message_class(t.type), t.name, t.qos.profile()) for t in topics]
    stop = threading.Event()

    def publish():
        count = 0
        while not stop.wait(0.02):
            count += 1
            stamp = to_time(int(node.get_clock().now().nanoseconds))
            for publisher, topic in zip(publishers, topics, strict=True):
                msg = message_class(topic.type)()
                msg.header.stamp = stamp
                if topic is JOINT_STATES:
                    msg.name, msg.position = ["a"], [0.1 * count]
                else:
                    msg.data = bytes([count % 256]) * 64
                publisher.publish(msg)

    thread = threading.Thread(target=publish)
    thread.start()
    yield
    stop.set()
    thread.join()
    node.destroy_node()


def test_hears_every_stream_with_its_stamps(cameras):
    take = listen(SyncConfig(views=("base", "wrist")), 2.0)
    assert take is not None
    for name in ("base", "wrist", "joints"):
        samples = take.streams[name]
        assert len(samples.stamps_ns) > 3, name
        assert (samples.received_ns >= samples.stamps_ns).all()
    assert len(set(take.streams["base"].fingerprints)) > 1
    assert not len(take.streams["gripper"].stamps_ns)
    assert take.end_ns - take.start_ns >= 1.9e9


def test_without_a_graph_it_does_not_wait_for_long(ros):
    begun = time.monotonic()
    assert listen(SyncConfig(views=("nowhere",)), 60.0) is None
    assert time.monotonic() - begun < 60.0
