"""The real policy node, what it hears and says, and a policy whose inference a test holds and releases."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import Parameter
from std_srvs.srv import Trigger

from e0_msgs.msg import ActionChunk as ChunkMsg
from e0_msgs.msg import ExecutorState
from e0_policy.embodiment import load_embodiment
from e0_policy.policy import Plan, PolicyOutput
from e0_policy.types import Observation
from e0_ros import interfaces
from e0_ros.conversions import observation_to_msg, to_time
from e0_ros.nodes.policy import PolicyNode

ARM = load_embodiment("fr3")
TICK = 50_000_000


class FakePolicy:
    """Constant rows; can be told to wait for `gate`, or to raise."""

    embodiment, checkpoint, execution_horizon = "fr3", "fake-1", 2

    def __init__(self) -> None:
        self.seen: list[tuple[int, Plan | None]] = []
        self.offsets: list[dict[str, list[float]]] = []
        self.gate = threading.Event()
        self.gate.set()
        self.fault: Exception | None = None
        self.resets = 0
        self.prepared: list[int] = []

    def prepare(self) -> None:
        self.prepared.append(len(self.seen))

    def reset(self) -> None:
        self.resets += 1

    def infer(self, observation: Observation, plan: Plan | None) -> PolicyOutput | None:
        self.seen.append((observation.stamp_ns, plan))
        self.offsets.append({view: offset.tolist() for view, offset in observation.view_offsets.items()})
        assert self.gate.wait(30.0)
        if self.fault:
            raise self.fault
        return PolicyOutput(np.full((4, 8), len(self.seen) / 10), TICK, seed=3)


class Rig:
    def __init__(self, fake: FakePolicy, **parameters: Any) -> None:
        overrides = [Parameter(name, value=value) for name, value in parameters.items()]
        self.policy = fake
        self.node = PolicyNode(fake, parameter_overrides=overrides)
        self.rig = Node("rig")
        self.executor = SingleThreadedExecutor()
        self.executor.add_node(self.node)
        self.executor.add_node(self.rig)
        self.chunks: list[ChunkMsg] = []
        self.diagnostics: list[Any] = []
        plans = interfaces.SHADOW_CHUNK if parameters.get("shadow") else interfaces.ACTION_CHUNK
        for topic, store in (
            (plans, self.chunks),
            (interfaces.DIAGNOSTICS, self.diagnostics),
        ):
            kind = interfaces.message_class(topic.type)
            self.rig.create_subscription(kind, topic.name, store.append, topic.qos.profile())
        publishers = []
        for topic in (interfaces.OBSERVATION, interfaces.EXECUTOR_STATE):
            kind = interfaces.message_class(topic.type)
            publishers.append(self.rig.create_publisher(kind, topic.name, topic.qos.profile()))
        self.observations, self.states = publishers
        self.client = self.rig.create_client(Trigger, interfaces.RESET_POLICY.name)
        self.until(lambda: all(p.get_subscription_count() for p in publishers) and self.client.service_is_ready())
        self.until(lambda: self.rig.count_publishers(plans.name) > 0 and self.diagnostics)

    def until(self, done: Callable[[], Any], timeout_s: float = 90.0) -> None:
        end = time.monotonic() + timeout_s
        while not done():
            assert time.monotonic() < end, "timeout"
            self.executor.spin_once(timeout_sec=0.02)

    def now_ns(self) -> int:
        return int(self.rig.get_clock().now().nanoseconds)

    def observe(self, stamp_ns: int, embodiment: str = "fr3", base: Any = None) -> None:
        picture = np.zeros((4, 4, 3), np.uint8) if base is None else base
        observation = Observation(
            stamp_ns, {"base": picture}, ARM.home, 1.0, embodiment=embodiment,
            joint_names=ARM.joint_names,
        )  # fmt: skip
        self.observations.publish(observation_to_msg(observation, ARM.base_frame, stamp_ns))

    def state(self, stamp_ns: int, chunk: ChunkMsg | None = None) -> None:
        msg = ExecutorState()
        msg.header.stamp = to_time(stamp_ns)
        if chunk is not None:
            msg.source, msg.session, msg.sequence = chunk.source, chunk.session, chunk.sequence
            msg.committed_until, msg.t0 = to_time(stamp_ns + TICK), chunk.t0
        self.states.publish(msg)

    def answers(self, count: int) -> list[ChunkMsg]:
        self.until(lambda: len(self.chunks) >= count)
        return self.chunks

    def close(self) -> None:
        self.policy.gate.set()
        self.executor.shutdown()
        self.node.destroy_node()
        self.rig.destroy_node()
