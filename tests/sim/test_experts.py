from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node

from e0_msgs.msg import ActionChunk as ChunkMsg
from e0_msgs.msg import EpisodeEvent, Observation
from e0_msgs.srv import ResetSim
from e0_policy.types import ActionChunk, NoChunk
from e0_ros import interfaces
from e0_ros.conversions import chunk_from_msg, to_time
from sim import experts
from sim.demonstration import PERIOD_NS, Demonstration

pytestmark = pytest.mark.ros
ROWS = np.column_stack([np.linspace(0, 1, 80)[:, None] * np.ones(7), np.ones(80)])


class FakePlanner:
    """Stands in for ManiSkill: any seed but 13 has a plan."""

    def plan(self, task: str, seed: int) -> Demonstration:
        if seed == 13:
            raise ValueError("no motion")
        return Demonstration(ROWS, True, "pick the cube")

    def close(self) -> None:
        pass


class Graph:
    """The node under test and a driver that hears its chunks."""

    def __init__(self, lockstep: bool) -> None:
        rclpy.init(args=["--ros-args", "-p", f"lockstep:={str(lockstep).lower()}"])
        self.experts, self.driver = experts.Experts(), Node("driver", use_global_arguments=False)
        self.heard: list[ActionChunk | NoChunk] = []
        chunk, seen, event = interfaces.ACTION_CHUNK, interfaces.OBSERVATION, interfaces.EPISODE_EVENT
        self.driver.create_subscription(
            ChunkMsg, chunk.name, lambda msg: self.heard.append(chunk_from_msg(msg)), chunk.qos.profile()
        )
        self.observations = self.driver.create_publisher(Observation, seen.name, seen.qos.profile())
        self.events = self.driver.create_publisher(EpisodeEvent, event.name, event.qos.profile())
        self.reset_client = self.driver.create_client(ResetSim, interfaces.RESET_EXPERT.name)
        self.executor = SingleThreadedExecutor()
        for node in (self.experts, self.driver):
            self.executor.add_node(node)
        self.spin(lambda: self.observations.get_subscription_count() and self.driver.count_publishers(chunk.name))
        self.spin(lambda: self.events.get_subscription_count() and self.reset_client.service_is_ready())

    def spin(self, done: Callable[[], Any], timeout_s: float = 30.0) -> None:
        end = time.monotonic() + timeout_s
        while not done():
            assert time.monotonic() < end, "nothing came"
            self.executor.spin_once(timeout_sec=0.05)

    def reset(self, **request: Any) -> Any:
        future = self.reset_client.call_async(ResetSim.Request(**request))
        self.spin(future.done)
        return future.result()

    def observe(self, stamp_ns: int, status: int = Observation.STATUS_OK) -> ActionChunk | NoChunk:
        before = len(self.heard)
        msg = Observation(status=status)
        msg.header.stamp = to_time(stamp_ns)
        self.observations.publish(msg)
        self.spin(lambda: len(self.heard) > before)
        for _ in range(3):
            self.executor.spin_once(timeout_sec=0.0)
        assert len(self.heard) == before + 1, "an observation has exactly one answer"
        assert self.heard[-1].in_reply_to_ns == stamp_ns
        return self.heard[-1]

    def event(self, kind: int, stamp_ns: int) -> None:
        msg = EpisodeEvent(kind=kind)
        msg.header.stamp = to_time(stamp_ns)
        self.events.publish(msg)
        self.spin(lambda: self.experts._started_ns == (stamp_ns if kind == EpisodeEvent.START else None))


@pytest.fixture(params=[True, False], ids=["lockstep", "realtime"])
def graph(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Graph]:
    monkeypatch.setattr(experts, "make_planner", lambda simulator, arm: FakePlanner())
    made = Graph(request.param)
    yield made
    made.executor.shutdown()
    made.experts.destroy_node()
    made.driver.destroy_node()
    rclpy.try_shutdown()


def test_an_episode(graph: Graph) -> None:
    none = graph.observe(10 * PERIOD_NS)
    assert isinstance(none, NoChunk) and "/e0/expert/reset" in none.reason
    reply = graph.reset(task="PickCube-v1", seed=5)
    assert reply.success and reply.message.startswith("privileged open-loop expert") and "cube" in reply.instruction
    start = 20
    if not graph.experts._config.lockstep:
        assert isinstance(graph.observe(19 * PERIOD_NS), NoChunk), "not started"
        graph.event(EpisodeEvent.START, start * PERIOD_NS)
        assert isinstance(graph.observe(start * PERIOD_NS - 1), NoChunk), "captured before the start"
    chunk = graph.observe(start * PERIOD_NS)
    assert isinstance(chunk, ActionChunk)
    assert (chunk.source, chunk.t0_ns, chunk.period_ns, chunk.seed) == ("scripted", start * PERIOD_NS, PERIOD_NS, 5)
    assert (chunk.embodiment, len(chunk.joint_names)) == ("panda", 7)
    assert (chunk.rows == ROWS[:60]).all()
    stale = graph.observe((start + 1) * PERIOD_NS, Observation.STATUS_STALE)
    assert isinstance(stale, NoChunk) and "stale" in stale.reason
    assert isinstance(graph.observe((start + 2) * PERIOD_NS), NoChunk)
    later = graph.observe((start + 10) * PERIOD_NS)
    assert isinstance(later, ActionChunk)
    row = (later.t0_ns - chunk.t0_ns) // PERIOD_NS
    assert 0 <= (start + 10) * PERIOD_NS - later.t0_ns < 500_000_000
    assert (later.rows == ROWS[row : row + 60]).all()
    sequences = [answer.sequence for answer in graph.heard]
    assert sequences == sorted(set(sequences))


def test_a_plan_is_void_from_the_next_reset_on(graph: Graph) -> None:
    graph.reset(task="PickCube-v1", seed=1)
    if not graph.experts._config.lockstep:
        graph.event(EpisodeEvent.START, PERIOD_NS)
    assert isinstance(graph.observe(20 * PERIOD_NS), ActionChunk)
    failed = graph.reset(seed=13)
    assert not failed.success and failed.message == "no motion"
    assert isinstance(graph.observe(21 * PERIOD_NS), NoChunk)
    assert graph.reset(seed=2).success, "an empty task is the one in force"
    if not graph.experts._config.lockstep:
        assert isinstance(graph.observe(22 * PERIOD_NS), NoChunk), "started for the episode before"
        graph.event(EpisodeEvent.END, 23 * PERIOD_NS)
        graph.event(EpisodeEvent.START, 40 * PERIOD_NS)
    chunk = graph.observe(50 * PERIOD_NS)
    assert isinstance(chunk, ActionChunk) and chunk.t0_ns == 50 * PERIOD_NS and chunk.seed == 2
