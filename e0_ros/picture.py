"""One picture of each view of a running graph."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import rclpy
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import qos_profile_sensor_data

from e0_policy.types import ImageArray
from e0_ros.core.inspection_images import image_pixels
from e0_ros.interfaces import camera_topic, message_class


def pictures(views: Sequence[str], timeout_s: float) -> dict[str, ImageArray]:
    """The next picture of every view that sends one within the time."""
    context = Context()
    rclpy.init(args=[], context=context)
    node = Node("e0_picture", context=context)
    found: dict[str, ImageArray] = {}

    def keep(view: str, msg: Any) -> None:
        found.setdefault(view, image_pixels(msg))

    for view in views:
        topic = camera_topic(view)
        kind = message_class(topic.type)
        node.create_subscription(kind, topic.name, lambda msg, view=view: keep(view, msg), qos_profile_sensor_data)
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(node)
    deadline = time.monotonic() + timeout_s
    try:
        while len(found) < len(views) and time.monotonic() < deadline:
            executor.spin_once(timeout_sec=0.1)
    finally:
        executor.remove_node(node)
        node.destroy_node()
        context.try_shutdown()
    return found
