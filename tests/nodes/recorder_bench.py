"""A recorder and its clients, and what its bags hold: what its tests share."""

import array
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import Parameter
from rosbags.highlevel import AnyReader
from sensor_msgs.msg import Image

from e0_msgs.srv import EndEpisode, StartEpisode
from e0_ros.core.bag_reader import verify
from e0_ros.interfaces import (
    END_EPISODE,
    START_EPISODE,
    Qos,
    Topic,
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
        self.node = rclpy.create_node("bench", start_parameter_services=False)  # which it could not serve meanwhile
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

    def spin_until(self, done: Callable[[], bool], limit_s: float = 90.0) -> None:
        end = time.monotonic() + limit_s
        while not done():
            assert time.monotonic() < end, "nothing happened in time"
            self._executor.spin_once(timeout_sec=0.05)

    def close(self) -> None:
        self._executor.shutdown()
        self.recorder.destroy_node()
        self.node.destroy_node()

    def _call(self, client: Any, request: Any) -> Any:
        future = client.call_async(request)
        self.spin_until(future.done)
        return future.result()


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
