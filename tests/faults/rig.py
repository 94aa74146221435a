"""The executor's node in a test's process, with a time by hand and an arm that is where its reference is."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from e0_policy.embodiment import load_embodiment
from e0_policy.types import ActionChunk
from e0_ros import interfaces
from e0_ros.conversions import chunk_to_msg

MS = 1_000_000
FR3 = load_embodiment("fr3")


def waving(now_ns: int, sequence: int) -> ActionChunk:
    """50 s of a motion of all joints, at most 0.4 rad/s."""
    rows = FR3.home + 0.2 * (1 - np.cos(np.linspace(0, 100, 1000)))[:, None]
    fields = {"embodiment": "fr3", "joint_names": FR3.joint_names}
    return ActionChunk(np.column_stack((rows, np.ones(1000))), now_ns, 50 * MS, "scripted", "a", sequence, **fields)


class Rig:
    """The executor's node in this process, with an arm that is where its reference is; joints come without DDS.

    Its ROS time is driven by hand, a tick of 4 ms per turn; the heartbeat's is the steady clock's.
    """

    def __init__(self, *parameters: str) -> None:
        import rclpy
        from rclpy.executors import SingleThreadedExecutor

        from e0_ros.nodes.chunk_executor import ChunkExecutorNode

        words = [word for parameter in ("heartbeat_ms:=2000.0", *parameters) for word in ("-p", parameter)]
        rclpy.init(args=["--ros-args", *words])
        self.node, self.bench, self.now_ns = ChunkExecutorNode(), rclpy.create_node("bench"), 10**12
        self.node._now_ns = lambda: self.now_ns
        self.spinner = SingleThreadedExecutor()
        self.spinner.add_node(self.node)
        self.spinner.add_node(self.bench)
        self.states: list = []
        self.plans = 0
        topic = interfaces.EXECUTOR_STATE
        kind = interfaces.message_class(topic.type)
        self.bench.create_subscription(kind, topic.name, self.states.append, topic.qos.profile())
        topic = interfaces.HEARTBEAT
        self.beats = self.bench.create_publisher(interfaces.message_class(topic.type), topic.name, topic.qos.profile())
        self.until(
            lambda: self.beats.get_subscription_count() and self.bench.count_publishers(interfaces.EXECUTOR_STATE.name)
        )

    def until(self, done: Callable[[], object], beat: bool = False) -> None:
        end = time.monotonic() + 60.0
        while not done():
            assert time.monotonic() < end, self.states[-1:] or "no state"
            if beat:
                self.beat(True)
            self.now_ns += 4 * MS
            self.measure()
            self.spinner.spin_once(timeout_sec=0.002)
            self.node.watch()
            self.node.tick()

    def beat(self, well: bool) -> None:
        self.beats.publish(interfaces.message_class(interfaces.HEARTBEAT.type)(data=well))

    def measure(self) -> None:
        now_ns = self.now_ns
        reference = self.node.core.status(now_ns).reference
        q = FR3.home if reference is None else reference.position
        self.node.core.observe_joints(now_ns, FR3.joint_names, q, np.zeros(7))

    def call(self, service, beat: bool = False):
        kind = interfaces.message_class(service.type)
        client = self.bench.create_client(kind, service.name)
        self.until(client.service_is_ready, beat)
        future = client.call_async(kind.Request())
        self.until(future.done, beat)
        return future.result()

    def stand(self, done: Callable[[], object]) -> None:
        """Wait for what is on its way; the time by hand stands, nothing ticks but by itself."""
        end = time.monotonic() + 60.0
        while not done():
            assert time.monotonic() < end, "the node did not hear what was asked"
            self.spinner.spin_once(timeout_sec=0.002)

    def move(self, beat: bool = False) -> None:
        """Arm, and follow a motion until the reference is fast."""
        assert self.call(interfaces.ARM, beat).success
        self.plans += 1
        plan = waving(self.now_ns, self.plans)
        self.node._offer(chunk_to_msg(plan, self.now_ns), self.now_ns)
        self.until(
            lambda: self.states and self.states[-1].mode == 2 and np.abs(self.states[-1].velocities).max() > 0.1, beat
        )
        self.states.clear()

    def close(self) -> None:
        import rclpy

        self.spinner.shutdown()
        self.node.destroy_node()
        self.bench.destroy_node()
        rclpy.try_shutdown()
