"""Hears the sensor topics of a running graph. The only part of the doctor that starts a ROS node."""

from __future__ import annotations

import time
from functools import partial
from typing import Any

from e0_ros.core.bag_reader import BagMessage
from e0_ros.core.pairing import SyncConfig
from e0_ros.core.take import Gatherer, Take
from e0_ros.interfaces import GRIPPER_STATES, JOINT_STATES, Topic, camera_topic, message_class

DISCOVERY_S = 3.5
"""Fast DDS announces a participant every 3 s, and now and then others are heard of only then."""
WAKE_S = 0.2


def listen(streams: SyncConfig, seconds: float) -> Take | None:
    """Listen to cameras, joints and gripper for some seconds.

    Returns:
        What was heard between the first second and the last; None without ROS, or if nobody publishes any of it.

    """
    try:
        import rclpy
        from rclpy.context import Context
        from rclpy.executors import SingleThreadedExecutor
    except ImportError:
        return None
    topics = [*map(camera_topic, streams.views), JOINT_STATES, GRIPPER_STATES]
    context = Context()
    rclpy.init(args=[], context=context)
    node = rclpy.create_node("e0_doctor", context=context)
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(node)
    try:
        deadline = time.monotonic() + DISCOVERY_S
        while not any(node.count_publishers(topic.name) for topic in topics):
            if time.monotonic() > deadline:
                return None
            executor.spin_once(timeout_sec=WAKE_S)
        ears = _Ears(node, streams, topics)
        return ears.hear(executor, seconds)
    finally:
        executor.shutdown()
        node.destroy_node()
        context.try_shutdown()


class _Ears:
    """Raw subscriptions; nothing but joint states is decoded."""

    def __init__(self, node: Any, streams: SyncConfig, topics: list[Topic]) -> None:
        self._node, self._counts = node, dict.fromkeys((topic.name for topic in topics), 0)
        self._gatherer, self._streams = Gatherer(streams.views), streams
        self._open = False
        for topic in topics:
            kind = message_class(topic.type)
            node.create_subscription(kind, topic.name, partial(self._on_message, topic), topic.qos.profile(), raw=True)

    def hear(self, executor: Any, seconds: float) -> Take:
        """Listen, without the beginning, in which topics are still being matched."""
        self._spin(executor, min(1.0, seconds / 2))
        self._open, start_ns = True, self._now_ns()
        self._spin(executor, seconds)
        return self._gatherer.take(start_ns, self._now_ns(), {}, "")

    def _spin(self, executor: Any, seconds: float) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            executor.spin_once(timeout_sec=WAKE_S)

    def _now_ns(self) -> int:
        return int(self._node.get_clock().now().nanoseconds)

    def _on_message(self, topic: Topic, data: bytes) -> None:
        if self._open and len(data) >= 12:
            self._counts[topic.name] += 1
            now_ns = self._now_ns()
            message = BagMessage(topic.name, topic.type, now_ns, now_ns, self._counts[topic.name], data)
            self._gatherer.add(message, _decode)


def _decode(message: BagMessage) -> Any:
    from rclpy.serialization import deserialize_message

    return deserialize_message(message.data, message_class(message.type))
