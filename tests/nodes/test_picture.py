from __future__ import annotations

import threading

import numpy as np
import pytest

from e0_ros.interfaces import camera_topic, message_class
from e0_ros.picture import pictures

pytestmark = pytest.mark.ros


def test_a_picture_of_each_view_that_sends_one(ros: None) -> None:
    import rclpy

    node = rclpy.create_node("camera")
    topic = camera_topic("side")
    publisher = node.create_publisher(message_class(topic.type), topic.name, topic.qos.profile())
    pixels = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    message = message_class(topic.type)(height=2, width=4, step=12, encoding="rgb8", data=pixels.tobytes())
    done = threading.Event()

    def send() -> None:
        while not done.wait(0.05):
            publisher.publish(message)

    sender = threading.Thread(target=send)
    sender.start()
    try:
        assert np.array_equal(pictures(["side"], 30.0)["side"], pixels)
        assert pictures(["top"], 0.3) == {}
    finally:
        done.set()
        sender.join()
        node.destroy_node()
