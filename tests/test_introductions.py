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

from e0_ros import interfaces
from e0_ros.interfaces import EPISODE_EVENT, EXECUTOR_STATE, JOINT_STATES, OBSERVATION, message_class
from e0_ros.introductions import Introductions
from e0_ros.nodes.chunk_executor import ChunkExecutorNode
from e0_ros.nodes.observation_sync import ObservationSyncNode
from e0_ros.nodes.policy import PolicyNode
from sim.bridge.node import Bridge
from sim.experts import Experts
from tests.nodes.policy_rig import FakePolicy
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


def test_topics_that_are_known_to_be_published_are_waited_for(here: Any, capfd: pytest.CaptureFixture[str]) -> None:
    subscribe(here)
    there: list[Apart] = []

    def come() -> None:
        there.append(Apart("there"))
        there[0].spin()

    introductions, late = Introductions(here), threading.Timer(0.5, come)
    late.start()
    introductions.meet(TOPICS, PATIENCE_S)
    late.join()
    assert [publisher.get_subscription_count() for publisher in there[0].publishers] == [1] * len(TOPICS)
    there[0].close()
    introductions.meet(["/never"], 0.2)
    introductions.meet(["/never"], PATIENCE_S)
    assert capfd.readouterr().err.count("/never: not met within 0.2 s") == 1


SENSORS = [interfaces.camera_topic("base"), interfaces.camera_topic("wrist"), JOINT_STATES, interfaces.GRIPPER_STATES]
LOCKSTEP = {
    Bridge: (("mode:=lockstep", "simulator:=fr3_plant"), interfaces.RESET_SIM, [interfaces.TRAJECTORY, EXECUTOR_STATE]),
    Experts: (("lockstep:=true", "simulator:=fr3_plant"), interfaces.RESET_EXPERT, [OBSERVATION, interfaces.SIM_STATE]),
    ObservationSyncNode: (("lockstep:=true",), interfaces.SET_INSTRUCTION, SENSORS),
    PolicyNode: (("lockstep:=true", "policy:=e0"), interfaces.RESET_POLICY, [OBSERVATION, EXECUTOR_STATE]),
    ChunkExecutorNode: (("lockstep:=true",), interfaces.ARM, [interfaces.ACTION_CHUNK]),
}


@pytest.mark.parametrize("kind", LOCKSTEP)
def test_in_lockstep_an_episode_is_not_prepared_before_all_know_each_other(kind: Any) -> None:
    settings, service, topics = LOCKSTEP[kind]
    topics = [*topics, EPISODE_EVENT] if kind in (Bridge, Experts) else topics
    rclpy.init(args=["--ros-args", *(word for setting in settings for word in ("-p", setting))])
    node = kind(FakePolicy()) if kind is PolicyNode else kind()
    caller, knows = rclpy.create_node("caller", use_global_arguments=False), threading.Event()
    executor = SingleThreadedExecutor()
    for one in (node, caller):
        executor.add_node(one)
    client = caller.create_client(message_class(service.type), service.name)
    with apart("there") as there:
        for topic in topics:
            there.node.create_publisher(message_class(topic.type), topic.name, topic.qos.profile())
        until(lambda: client.service_is_ready() and all(node.count_publishers(topic.name) for topic in topics))
        late = threading.Timer(1.0, lambda: (knows.set(), there.spin()))
        late.start()
        executor.spin_until_future_complete(client.call_async(client.srv_type.Request()), PATIENCE_S)
        assert knows.is_set()
        late.join()
    executor.shutdown()
    node.destroy_node()
    rclpy.shutdown()


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
