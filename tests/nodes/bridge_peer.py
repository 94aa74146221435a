"""The other side of the bridge, driven by hand: what its tests share."""

from __future__ import annotations

import hashlib
import random
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

pytestmark = pytest.mark.ros
rclpy = pytest.importorskip("rclpy", reason="rclpy is not installed")

from rclpy.executors import SingleThreadedExecutor  # noqa: E402
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint  # noqa: E402

from e0_msgs.msg import EpisodeEvent, ExecutorState  # noqa: E402
from e0_msgs.srv import ResetSim  # noqa: E402
from e0_policy.embodiment import load_embodiment  # noqa: E402
from e0_ros import interfaces as topics  # noqa: E402
from e0_ros.conversions import to_ns, to_time  # noqa: E402
from sim.fr3_plant import reach_goal  # noqa: E402

MS = 1_000_000
PERIOD = 50 * MS
FR3 = load_embodiment("fr3")
VIEWS = (topics.camera_topic("base"), topics.camera_topic("wrist"))
INFOS = (topics.camera_info_topic("base"), topics.camera_info_topic("wrist"))
HEARD = (topics.CLOCK, topics.JOINT_STATES, topics.GRIPPER_STATES, topics.SIM_STATE, topics.DIAGNOSTICS, *VIEWS)
HEARD += (topics.TF_STATIC, *INFOS)


def stamp(msg: Any) -> int:
    return to_ns(msg.clock if hasattr(msg, "clock") else msg.header.stamp)


def trajectory(t_ns: int, start: list[float], end: list[float], duration_ms: int = 1000) -> JointTrajectory:
    """Rest to rest along a minimum-jerk quintic."""
    msg = JointTrajectory(joint_names=list(FR3.joint_names))
    msg.header.stamp = to_time(t_ns)
    for positions, at_ms in ((start, 0), (end, duration_ms)):
        point = JointTrajectoryPoint(positions=positions, velocities=[0.0] * 7, accelerations=[0.0] * 7)
        point.time_from_start.sec, point.time_from_start.nanosec = divmod(at_ms * MS, 1_000_000_000)
        msg.points.append(point)
    return msg


class Peer:
    """The rest of the graph in one node: hears everything, and answers each tick as the executor would."""

    def __init__(self, answer: Callable[[Peer, int], None] | None = None) -> None:
        self.node = rclpy.create_node("peer")
        self.executor = SingleThreadedExecutor()
        self.executor.add_node(self.node)
        self.heard: dict[str, list[Any]] = {topic.name: [] for topic in HEARD}
        self.answer, self.commands, self.answered = answer, 0, 0
        for topic in HEARD:
            kind = topics.message_class(topic.type)
            self.node.create_subscription(kind, topic.name, self.heard[topic.name].append, topic.qos.profile())
        self.trajectory = self.publisher(topics.TRAJECTORY)
        self.target = self.publisher(topics.IMPEDANCE_TARGET)
        self.state = self.publisher(topics.EXECUTOR_STATE)
        self.event = self.publisher(topics.EPISODE_EVENT)
        self.gripper = self.publisher(topics.GRIPPER_COMMAND)
        self.resetter = self.node.create_client(ResetSim, topics.RESET_SIM.name)

    def publisher(self, topic: topics.Topic) -> Any:
        return self.node.create_publisher(topics.message_class(topic.type), topic.name, topic.qos.profile())

    def __getitem__(self, topic: topics.Topic) -> list[Any]:
        return self.heard[topic.name]

    def until(self, condition: Callable[[], Any], what: str) -> None:
        deadline = time.monotonic() + 90
        while not condition():
            assert time.monotonic() < deadline, f"waited 90 s for {what}"
            self.executor.spin_once(timeout_sec=0.05)
            self._answer()

    def _answer(self) -> None:
        """Answer the newest tick once every stream of it is here."""
        streams = [self[topic] for topic in (*VIEWS, topics.JOINT_STATES, topics.GRIPPER_STATES, topics.SIM_STATE)]
        if not self.answer or not all(streams):
            return
        stamps = {stamp(stream[-1]) for stream in streams}
        if len(stamps) == 1 and (now_ns := stamps.pop()) > self.answered:
            self.answered = now_ns
            self.answer(self, now_ns)

    def say(self, now_ns: int, mode: int = ExecutorState.RUNNING, gripper: float = 1.0) -> None:
        msg = ExecutorState(mode=mode, commands=self.commands, gripper_opening=gripper)
        msg.header.stamp = to_time(now_ns)
        self.state.publish(msg)

    def reset(self, task: str = "", seed: int = 0, max_steps: int = 0) -> Any:
        assert self.resetter.wait_for_service(90), "no reset service"
        future = self.resetter.call_async(ResetSim.Request(task=task, seed=seed, max_steps=max_steps))
        self.until(future.done, "the reset")
        return future.result()

    def start(self, kind: int = EpisodeEvent.START) -> None:
        self.event.publish(EpisodeEvent(kind=kind))

    def done(self) -> bool:
        return bool(self[topics.SIM_STATE]) and self[topics.SIM_STATE][-1].done

    def finished(self) -> bool:
        """Done, and every stream of the last tick is here and answered."""
        return self.done() and self.answered == stamp(self[topics.SIM_STATE][-1])

    def digest(self) -> str:
        """Hash of everything that the bridge said since the last reset."""
        reset_id = self[topics.SIM_STATE][-1].reset_id
        first = next(stamp(m) for m in self[topics.SIM_STATE] if m.reset_id == reset_id)
        sha = hashlib.sha256()
        for topic in (topics.JOINT_STATES, topics.GRIPPER_STATES, *VIEWS):
            for msg in self[topic]:
                if stamp(msg) >= first:
                    data = msg.data if hasattr(msg, "data") else (msg.position, msg.velocity)
                    sha.update(np.array(data).tobytes() + str(stamp(msg) - first).encode())
        return sha.hexdigest()


Launch = Callable[..., Peer]


def follower(seed: int = 0, delays: random.Random | None = None) -> Callable[[Peer, int], None]:
    """An executor that sends the arm to the goal; with `delays` it answers late and in any order."""
    goal = reach_goal(FR3, seed).tolist()
    sent: dict[str, Any] = {}

    def answer(peer: Peer, now_ns: int) -> None:
        if not sent:
            sent["start"], sent["t0"] = list(peer[topics.JOINT_STATES][-1].position), now_ns
        peer.commands += 1
        command = trajectory(sent["t0"], sent["start"], goal)
        if now_ns > sent["t0"] + 1000 * MS:
            command = trajectory(now_ns, goal, goal)
        acts = [lambda: peer.trajectory.publish(command), lambda: peer.say(now_ns, gripper=0.25)]
        if delays:
            delays.shuffle(acts)
        for act in acts:
            time.sleep(delays.uniform(0, 0.05) if delays else 0)
            act()

    return answer
