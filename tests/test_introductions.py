"""Who publishes knows of the subscriptions, or is named."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import rclpy
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from std_msgs.msg import String

from e0_ros.interfaces import JOINT_STATES, message_class
from e0_ros.introductions import Introductions
from tests.nodes.recorder_bench import Bench

pytestmark = pytest.mark.ros
TOPICS = [f"/topic_{i}" for i in range(8)]
PATIENCE_S = 90.0


class Apart:
    """A node in a participant of its own, as in a process of its own, that publishes and spins when told to."""

    def __init__(self, name: str, **options: Any) -> None:
        self.context = Context()
        rclpy.init(args=[], context=self.context)
        self.node = rclpy.create_node(name, context=self.context, **options)
        self.publishers = [self.node.create_publisher(String, topic, 10) for topic in TOPICS]
        self._executor = SingleThreadedExecutor(context=self.context)
        self._executor.add_node(self.node)
        self._thread: threading.Thread | None = None

    def spin(self) -> None:
        self._thread = threading.Thread(target=self._executor.spin)
        self._thread.start()

    def close(self) -> None:
        self._executor.shutdown()
        if self._thread:
            self._thread.join()
        self.node.destroy_node()
        self.context.try_shutdown()


@contextmanager
def apart(name: str, **options: Any) -> Iterator[Apart]:
    there = Apart(name, **options)
    try:
        yield there
    finally:
        there.close()


@pytest.fixture
def here(ros: None) -> Iterator[Any]:
    node = rclpy.create_node("here")
    yield node
    node.destroy_node()


def subscribe(node: Any) -> None:
    for topic in TOPICS:
        node.create_subscription(String, topic, lambda _: None, 10)


def found(node: Any) -> None:
    until(lambda: all(node.count_publishers(topic) == 1 for topic in TOPICS))
    until(lambda: all("UNKNOWN" not in i.node_name for t in TOPICS for i in node.get_publishers_info_by_topic(t)))


def until(done: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE_S
    while not done():
        assert time.monotonic() < end, "nothing happened in time"
        time.sleep(0.01)


def test_who_has_answered_sends_here(here: Any) -> None:
    subscribe(here)
    introductions = Introductions(here)
    for _ in range(5):
        with apart("there") as there:
            there.spin()
            until(lambda: here.count_publishers(TOPICS[-1]) == 1)
            assert introductions.wait(TOPICS, PATIENCE_S) == []
            assert [publisher.get_subscription_count() for publisher in there.publishers] == [1] * len(TOPICS)
        until(lambda: here.count_publishers(TOPICS[-1]) == 0)


def test_who_does_not_answer_is_named_once(here: Any) -> None:
    subscribe(here)
    introductions = Introductions(here)
    with apart("busy"):
        found(here)
        assert introductions.wait(TOPICS, 0.2) == ["/busy"]
        assert introductions.wait(TOPICS, PATIENCE_S) == [], "it is not waited for again"


def test_new_subscriptions_are_told_anew(here: Any) -> None:
    subscribe(here)
    introductions = Introductions(here)
    with apart("busy") as there:
        found(here)
        assert introductions.wait(TOPICS, 0.2) == ["/busy"]
        introductions.renew()
        there.spin()
        assert introductions.wait(TOPICS, PATIENCE_S) == []


def test_a_node_without_parameters_cannot_be_asked(here: Any) -> None:
    subscribe(here)
    with apart("mute", start_parameter_services=False):
        found(here)
        assert Introductions(here).wait(TOPICS, 1.0) == []


def test_a_node_need_not_know_itself(here: Any) -> None:
    subscribe(here)
    here.create_publisher(String, TOPICS[0], 10)
    until(lambda: here.count_publishers(TOPICS[0]) == 1)
    assert Introductions(here).wait(TOPICS, 1.0) == []


def test_an_episode_begins_when_those_who_publish_know_of_the_recorder(ros: None, tmp_path: Path) -> None:
    bench, knows = Bench(tmp_path, settle_s=30.0, quiet_s=0.0), threading.Event()
    with apart("camera_host") as there:
        there.node.create_publisher(message_class(JOINT_STATES.type), JOINT_STATES.name, JOINT_STATES.qos.profile())
        bench.spin_until(lambda: bench.node.count_publishers(JOINT_STATES.name) == 1)
        late = threading.Timer(1.0, lambda: (knows.set(), there.spin()))
        late.start()
        assert bench.start().success and knows.is_set()
        late.join()
        assert bench.end().success
    bench.close()
