from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import rclpy
from geometry_msgs.msg import Point, Pose
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node

from e0_msgs.msg import ActionChunk as ChunkMsg
from e0_msgs.msg import EpisodeEvent, Observation, SimState
from e0_msgs.srv import ResetSim
from e0_policy.kinematics import tcp_pose_and_jacobian
from e0_policy.types import ActionChunk, NoChunk, Representation
from e0_ros import interfaces
from e0_ros.conversions import chunk_from_msg, to_time
from e0_ros.core.camera_model import pose_matrix
from sim import experts
from sim.demonstration import PERIOD_NS
from sim.scripted import Seen

pytestmark = pytest.mark.ros
ROWS = np.column_stack([np.linspace(0, 1, 80)[:, None] * np.ones(7), np.ones(80)])


class FakePlanner:
    """Stands in for a simulator's: any task but `Jump-v0` has two motions; `seen` is what it was shown."""

    def __init__(self) -> None:
        self.seen: list[Seen] = []

    def begin(self, task: str, seed: int) -> str:
        if task == "Jump-v0":
            raise ValueError("no such task")
        self.left = [ROWS[:30], ROWS[30:]]
        return "pick the cube"

    def motion(self, seen: Seen) -> np.ndarray | None:
        self.seen.append(seen)
        return self.left.pop(0) if self.left else None


class Graph:
    """The node under test and a driver that hears its chunks."""

    def __init__(self, lockstep: bool, planner: FakePlanner, *settings: str) -> None:
        rclpy.init(args=["--ros-args", "-p", f"lockstep:={str(lockstep).lower()}", *settings])
        self.experts, self.driver = experts.Experts(), Node("driver", use_global_arguments=False)
        self.planner, self.heard = planner, list[ActionChunk | NoChunk]()
        chunk, seen, event = interfaces.ACTION_CHUNK, interfaces.OBSERVATION, interfaces.EPISODE_EVENT
        state = interfaces.SIM_STATE
        self.driver.create_subscription(
            ChunkMsg, chunk.name, lambda msg: self.heard.append(chunk_from_msg(msg)), chunk.qos.profile()
        )
        self.observations = self.driver.create_publisher(Observation, seen.name, seen.qos.profile())
        self.states = self.driver.create_publisher(SimState, state.name, state.qos.profile())
        self.events = self.driver.create_publisher(EpisodeEvent, event.name, event.qos.profile())
        self.reset_client = self.driver.create_client(ResetSim, interfaces.RESET_EXPERT.name)
        self.executor = SingleThreadedExecutor()
        for node in (self.experts, self.driver):
            self.executor.add_node(node)
        self.spin(lambda: self.observations.get_subscription_count() and self.driver.count_publishers(chunk.name))
        self.spin(lambda: self.states.get_subscription_count())
        self.spin(lambda: self.events.get_subscription_count() and self.reset_client.service_is_ready())

    def spin(self, done: Callable[[], Any], timeout_s: float = 90.0) -> None:
        end = time.monotonic() + timeout_s
        while not done():
            assert time.monotonic() < end, "nothing came"
            self.executor.spin_once(timeout_sec=0.05)

    def reset(self, **request: Any) -> Any:
        future = self.reset_client.call_async(ResetSim.Request(**request))
        self.spin(future.done)
        return future.result()

    def see(self, stamp_ns: int, status: int = Observation.STATUS_OK) -> None:
        msg = Observation(status=status, joint_positions=[0.125 * joint for joint in range(7)], gripper_opening=0.75)
        msg.header.stamp = to_time(stamp_ns)
        self.observations.publish(msg)

    def tell_state(self, stamp_ns: int) -> None:
        msg = SimState(names=["cube"], poses=[Pose(position=Point(x=float(stamp_ns)))])
        msg.header.stamp = to_time(stamp_ns)
        self.states.publish(msg)

    def observe(self, stamp_ns: int, status: int = Observation.STATUS_OK) -> ActionChunk | NoChunk:
        before = len(self.heard)
        self.tell_state(stamp_ns)
        self.see(stamp_ns, status)
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


@contextmanager
def running(monkeypatch: pytest.MonkeyPatch, lockstep: bool, *settings: str) -> Iterator[Graph]:
    planner = FakePlanner()
    monkeypatch.setattr(experts, "make_planner", lambda simulator, arm: planner)
    try:
        made = Graph(lockstep, planner, *settings)
        yield made
        made.executor.shutdown()
        made.experts.destroy_node()
        made.driver.destroy_node()
    finally:
        rclpy.try_shutdown()


@pytest.fixture(params=[True, False], ids=["lockstep", "realtime"])
def graph(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Graph]:
    with running(monkeypatch, request.param) as made:
        yield made


def test_a_motion_begins_where_the_last_one_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """In lock-step to the row, and from nothing but what is told of that very stamp."""
    with running(monkeypatch, True) as graph:
        none = graph.observe(10 * PERIOD_NS)
        assert isinstance(none, NoChunk) and "/e0/expert/reset" in none.reason
        reply = graph.reset(task="PickCube-v1", seed=5)
        assert reply.success and reply.message.startswith("privileged expert") and "cube" in reply.instruction
        start, answers = 20, {}
        for tick in range(start, start + 100):
            answers[tick] = graph.observe(tick * PERIOD_NS)
        assert [seen.poses["cube"][0] for seen in graph.planner.seen] == [t * PERIOD_NS for t in (20, 50, 100)]
        assert (graph.planner.seen[0].joint_positions == 0.125 * np.arange(7)).all()
        assert graph.planner.seen[0].gripper_opening == 0.75
        first = answers[start]
        assert isinstance(first, ActionChunk)
        assert (first.source, first.t0_ns, first.period_ns, first.seed) == ("scripted", 20 * PERIOD_NS, PERIOD_NS, 5)
        assert (first.embodiment, len(first.joint_names)) == ("panda", 7)
        in_force, commanded = first, []
        for tick, answer in answers.items():
            in_force = answer if isinstance(answer, ActionChunk) else in_force
            assert isinstance(answer, ActionChunk) or answer.keep
            assert 0 <= tick * PERIOD_NS - in_force.t0_ns < 13 * PERIOD_NS
            commanded.append(in_force.rows[(tick * PERIOD_NS - in_force.t0_ns) // PERIOD_NS])
        np.testing.assert_array_equal(commanded[:80], ROWS)
        assert (np.array(commanded[80:]) == ROWS[-1]).all(), "the last row is held"
        sequences = [answer.sequence for answer in graph.heard]
        assert sequences == sorted(set(sequences))


def test_where_a_motion_is_due_the_answer_waits_for_the_state(monkeypatch: pytest.MonkeyPatch) -> None:
    with running(monkeypatch, True) as graph:
        graph.reset(task="PickCube-v1", seed=5)
        graph.see(20 * PERIOD_NS)
        graph.spin(lambda: graph.experts._waiting)
        assert not graph.heard
        graph.tell_state(20 * PERIOD_NS)
        graph.spin(lambda: graph.heard)
        assert isinstance(graph.heard[0], ActionChunk)
        graph.see(21 * PERIOD_NS)
        graph.spin(lambda: len(graph.heard) == 2)
        assert isinstance(graph.heard[1], NoChunk) and graph.heard[1].keep, "no motion is due, so none is waited for"


def test_in_real_time_a_motion_begins_after_it_was_planned(monkeypatch: pytest.MonkeyPatch) -> None:
    """The stamps lie in the past by as much as everything took; no row of a motion is due then."""
    with running(monkeypatch, False) as graph:
        graph.reset(task="PickCube-v1", seed=5)
        start_ns = time.time_ns() // PERIOD_NS * PERIOD_NS
        assert isinstance(graph.observe(start_ns - PERIOD_NS), NoChunk), "not started"
        graph.event(EpisodeEvent.START, start_ns)
        assert isinstance(graph.observe(start_ns - 1), NoChunk), "captured before the start"
        chunk = graph.observe(start_ns)
        assert isinstance(chunk, ActionChunk) and chunk.t0_ns > start_ns
        stamp_ns = chunk.t0_ns + 30 * PERIOD_NS
        graph.spin(lambda: time.time_ns() > stamp_ns)
        later = graph.observe(stamp_ns)
        assert isinstance(later, ActionChunk)
        index = int(np.flatnonzero((later.rows == ROWS[30]).all(axis=1))[0])
        assert later.t0_ns + index * PERIOD_NS >= stamp_ns + 1
        assert (later.rows[:index][-1] == ROWS[29]).all() and (later.t0_ns - chunk.t0_ns) % PERIOD_NS == 0


def test_a_state_that_never_came_is_waited_for_until_the_next_one(monkeypatch: pytest.MonkeyPatch) -> None:
    with running(monkeypatch, True) as graph:
        graph.reset(task="PickCube-v1", seed=5)
        graph.see(20 * PERIOD_NS)
        graph.see(21 * PERIOD_NS)
        graph.tell_state(21 * PERIOD_NS)
        graph.spin(lambda: len(graph.heard) == 2)
        lost, chunk = graph.heard
        assert isinstance(lost, NoChunk) and isinstance(chunk, ActionChunk) and chunk.t0_ns == 21 * PERIOD_NS


def test_a_stale_observation_has_no_plan_and_moves_nothing_on(monkeypatch: pytest.MonkeyPatch) -> None:
    with running(monkeypatch, True) as graph:
        graph.reset(task="PickCube-v1", seed=5)
        stale = graph.observe(19 * PERIOD_NS, Observation.STATUS_STALE)
        assert isinstance(stale, NoChunk) and "stale" in stale.reason and not stale.keep
        assert not graph.planner.seen
        assert isinstance(graph.observe(20 * PERIOD_NS), ActionChunk)


def test_rows_can_be_tool_poses(monkeypatch: pytest.MonkeyPatch) -> None:
    with running(monkeypatch, True, "-p", "control:=ee_pose") as graph:
        graph.reset(task="PickCube-v1", seed=5)
        chunk = graph.observe(20 * PERIOD_NS)
        assert isinstance(chunk, ActionChunk) and chunk.representation is Representation.EE_POSE
        assert chunk.joint_names == () and chunk.rows.shape == (60, 8)
        for row, joints in zip(chunk.rows, ROWS[:30], strict=False):
            tool = tcp_pose_and_jacobian(joints[:7])[0]
            np.testing.assert_allclose(pose_matrix(row[:3], row[3:7]), tool, atol=1e-9)
            assert row[7] == joints[7]


def test_a_plan_is_void_from_the_next_reset_on(graph: Graph) -> None:
    graph.reset(task="PickCube-v1", seed=1)
    lockstep = graph.experts._config.lockstep
    if not lockstep:
        graph.event(EpisodeEvent.START, PERIOD_NS)
    assert isinstance(graph.observe(20 * PERIOD_NS), ActionChunk)
    failed = graph.reset(task="Jump-v0", seed=13)
    assert not failed.success and failed.message == "no such task"
    assert isinstance(graph.observe(21 * PERIOD_NS), NoChunk)
    assert graph.reset(task="PickCube-v1", seed=2).success
    assert graph.reset(seed=2).success, "an empty task is the one in force"
    if not lockstep:
        assert isinstance(graph.observe(22 * PERIOD_NS), NoChunk), "started for the episode before"
        graph.event(EpisodeEvent.END, 23 * PERIOD_NS)
        graph.event(EpisodeEvent.START, 40 * PERIOD_NS)
    chunk = graph.observe(50 * PERIOD_NS)
    assert isinstance(chunk, ActionChunk) and chunk.seed == 2 and (chunk.rows[0] == ROWS[0]).all()


def test_states_and_scenes_that_nobody_can_plan_in_end_nothing_and_are_answered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with running(monkeypatch, True) as graph:
        graph.reset(task="PickCube-v1", seed=5)
        graph.states.publish(SimState(names=["cube", "goal"], poses=[Pose()]))
        monkeypatch.setattr(FakePlanner, "motion", lambda self, seen: seen.poses["peg"])
        answer = graph.observe(20 * PERIOD_NS)
        assert isinstance(answer, NoChunk) and answer.reason == "error: KeyError: 'peg'" and not answer.keep
        monkeypatch.undo()
        assert isinstance(graph.observe(21 * PERIOD_NS), ActionChunk)


def test_observations_whose_states_never_come_do_not_pile_up(monkeypatch: pytest.MonkeyPatch) -> None:
    with running(monkeypatch, True) as graph:
        graph.reset(task="PickCube-v1", seed=5)
        for i in range(100):
            graph.see((20 + i) * PERIOD_NS)
            graph.spin(lambda seen=i + 1: len(graph.heard) + len(graph.experts._waiting) == seen)
        graph.spin(lambda: len(graph.heard) == 60)
        assert len(graph.experts._waiting) == 40
