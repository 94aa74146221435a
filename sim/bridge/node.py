"""The node: commands in, one of the two ways of time, sensors out."""

from __future__ import annotations

import math
import threading
import time
from typing import Any

import numpy as np
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from sensor_msgs.msg import JointState
from trajectory_msgs.msg import JointTrajectory

from e0_msgs.msg import ActionChunk as ChunkMsg
from e0_msgs.msg import EpisodeEvent
from e0_msgs.srv import ResetSim
from e0_ros import interfaces
from e0_ros.config import declare_parameters
from e0_ros.conversions import to_ns, to_time
from e0_ros.introductions import Introductions
from e0_ros.polled import Polled
from e0_ros.process import run_node
from sim.adapter import SimAdapter
from sim.bridge import lockstep, realtime
from sim.bridge.outputs import Outputs
from sim.bridge.settings import MS, BridgeConfig, make_adapter
from sim.controllers import Point, Trajectory
from sim.disturbance import Disturbance
from sim.episode import Episode
from sim.rig import Played, Rig, Target
from sim.step_rig import Row, StepRig

REST_S = 1.0
LATE_MS = 5.0
"""From then on the judge's verdict tells how late the latest command came: none can keep a limit that comes after the
instant at which it changes the motion."""


class Bridge(Node):
    """Publishes what the robot would and plays what the controllers would, in one thread."""

    def __init__(self) -> None:
        super().__init__("bridge")
        self.config = declare_parameters(self, BridgeConfig)
        adapter = make_adapter(self.config)
        scene = adapter.reset(self.config.task or adapter.tasks[0], self.config.seed)
        stepped = self.config.mode == "lockstep"
        start_ns = lockstep.START_NS if stepped else time.time_ns()
        self.rig: Rig | StepRig = (
            StepRig(adapter, start_ns)
            if self.config.controller == "step"
            else Rig(
                adapter,
                self.config.controller,
                self.config.judge,
                start_ns,
                self._disturbance(adapter),
                reflexes=bool(self.config.fci),
            )
        )
        self.episode = Episode(scene, max_steps=scene.max_steps)
        self.out = Outputs(self, self.rig, self.config)
        self.out.cameras(self.rig)
        self.refused = 0
        self.time: lockstep.Lockstep | realtime.Realtime = (
            lockstep.Lockstep(self) if stepped else realtime.Realtime(self)
        )
        self._subscribe()
        self.fci, self.hand = self._franka() if self.config.fci else (None, None)
        self._diagnosed_ns = 0

    def _franka(self) -> tuple[Any, Any]:
        from sim.bridge.franka import FrankaFace
        from sim.bridge.hand import HandFace

        return FrankaFace(self, self.config.fci, self.config.fci_states_end), HandFace(self)

    def _disturbance(self, adapter: SimAdapter) -> Disturbance | None:
        if not self.config.disturbance_rad:
            return None
        joints = len(adapter.joint_state()[0])
        disturbance = Disturbance(joints, self.config.disturbance_rad, self.config.disturbance_share)
        disturbance.restart(self.config.seed)
        return disturbance

    def _subscribe(self) -> None:
        polled = Polled()

        def listen(topic: interfaces.Topic, callback: Any, poll: bool = False) -> None:
            kind, profile = interfaces.message_class(topic.type), topic.qos.profile()
            self._topics.append(topic.name)
            if poll:
                made = self.create_subscription(kind, topic.name, lambda _: None, profile, callback_group=polled)
                self._heard.append((made, callback))
            else:
                self.create_subscription(kind, topic.name, callback, profile)

        self._heard: list[tuple[Any, Any]] = []
        self._topics: list[str] = []
        topic, hear = {
            "joint_trajectory": (interfaces.TRAJECTORY, self._on_trajectory),
            "impedance": (interfaces.IMPEDANCE_TARGET, self._on_target),
            "step": (interfaces.SIM_STEP, self._on_step),
        }[self.config.controller]
        listen(topic, hear, self.config.mode != "lockstep")
        listen(interfaces.EPISODE_EVENT, self._on_event)
        self.time.subscribe(listen)
        self._introductions = Introductions(self)
        self.create_service(ResetSim, interfaces.RESET_SIM.name, self._on_reset)

    def hear(self) -> None:
        """Take the commands that have come (real time); an executor would need a turn, and time, for each."""
        for subscription, callback in self._heard:
            with subscription.handle:
                while taken := subscription.handle.take_message(subscription.msg_type, False):
                    callback(*taken)

    def _on_trajectory(self, msg: JointTrajectory, info: dict[str, Any]) -> None:
        self.time.on_command(trajectory_from_msg(msg), info["source_timestamp"])

    def _on_target(self, msg: JointState, info: dict[str, Any]) -> None:
        target = Target(to_ns(msg.header.stamp), np.array(msg.position, np.float64))
        self.time.on_command(target, info["source_timestamp"])

    def _on_step(self, msg: ChunkMsg) -> None:
        values = np.array(msg.data, np.float64) if msg.status == ChunkMsg.STATUS_OK else None
        self.time.on_command(Row(to_ns(msg.header.stamp), values), 0)

    def _on_event(self, msg: EpisodeEvent) -> None:
        if msg.kind == EpisodeEvent.START:
            self.episode.start()
        else:
            self.episode.stop()
            self.log_judgement()
            self.diagnose()

    def _on_reset(self, request: Any, response: Any) -> Any:
        task = request.task or self.episode.scene.task
        if self.config.mode == "lockstep":
            self._introductions.meet(self._topics)
        try:
            scene = self.rig.reset(task, request.seed, self.time.prepare_reset())
        except ValueError as error:
            response.message = str(error)
            return response
        max_steps = request.max_steps or scene.max_steps
        self.episode = Episode(scene, self.episode.reset_id + 1, max_steps)
        self.out.cameras(self.rig)
        self.time.on_reset()
        if self.fci:
            self.fci.follow()
        self.out.sim_state(self.episode, self.rig, 0, self.rig.adapter.privileged().poses)
        self.get_logger().info(f"reset {self.episode.reset_id}: {scene.task}, seed {scene.seed}: {scene.instruction}")
        response.success, response.instruction = True, scene.instruction
        response.stamp = to_time(self.time.scene_ns)
        return response

    def report(self, played: Played) -> None:
        """Log what the controller refused and what the judge found, a few lines a second at most."""
        self.refused += len(played.refused)
        for reason in played.refused[:1]:
            self.get_logger().error(f"controller refused a command: {reason}", throttle_duration_sec=1.0)
        if self.fci:
            for error in played.errors:
                self.fci.fail(error)
        for violation in played.violations[:1]:
            more = f" ({len(played.violations) - 1} more)" if len(played.violations) > 1 else ""
            self.get_logger().error(f"judge: {violation}{more}", throttle_duration_sec=0.2)

    def drive(self, played: Played) -> None:
        """What else franka_ros2 and franka_gripper have done and said in the time that was played."""
        if self.fci and self.hand:
            self.fci.advance()
            self.hand.advance(played)

    def diagnose(self) -> None:
        """Publish /diagnostics: once a second, and when an episode is over."""
        self.out.diagnostics(
            self.rig,
            refused=self.refused,
            overrun_ms=self.time.overrun_ns // MS,
            pictures_left_out=self.time.left_out,
            latest_command_ms=self.time.late_ns // MS,
            ended_reset=self.episode.reset_id - self.episode.running,
        )

    def log_judgement(self) -> None:
        """One line with the judge's count."""
        if (judge := self.rig.judge) and judge.samples:
            verdict = f"judge: {judge.violations} violations in {judge.samples} set-points"
            if (late_ms := self.time.late_ns / MS) > LATE_MS:
                verdict += f"; a command came {late_ms:.0f} ms late"
            if judge.violations:  # rclpy refuses two severities at one call site
                self.get_logger().error(verdict)
            else:
                self.get_logger().info(verdict)

    def run(self, stop: threading.Event) -> None:
        """Serve until `stop` is set and the arm, which its controller brings to rest, has stopped."""
        executor = SingleThreadedExecutor(context=self.context)
        executor.add_node(self)
        last_s = math.inf
        try:
            while not stop.is_set() or (self.time.moving() and time.monotonic() < last_s):
                if stop.is_set():
                    last_s = min(last_s, time.monotonic() + REST_S)
                self.time.wait(executor)
                self.time.poll()
                if (steady_ns := time.monotonic_ns()) - self._diagnosed_ns >= 1000 * MS:
                    self._diagnosed_ns = steady_ns
                    self.diagnose()
        finally:
            executor.remove_node(self)

    def destroy_node(self) -> None:
        """Sum up and free the simulator with the node."""
        self.log_judgement()
        self.rig.adapter.close()
        super().destroy_node()


def trajectory_from_msg(msg: JointTrajectory) -> Trajectory:
    """The plain value of a trajectory message; empty fields become None."""
    points = tuple(
        Point(
            point.time_from_start.sec * 1_000_000_000 + point.time_from_start.nanosec,
            np.array(point.positions, np.float64),
            np.array(point.velocities, np.float64) if len(point.velocities) else None,
            np.array(point.accelerations, np.float64) if len(point.accelerations) else None,
        )
        for point in msg.points
    )
    return Trajectory(to_ns(msg.header.stamp), tuple(msg.joint_names), points)


def main(args: list[str] | None = None) -> int:
    """Run the node. Exit status 2: a parameter is wrong or the simulator is missing."""
    return run_node(make_bridge, args, Bridge.run)


def make_bridge() -> Bridge:
    """The node.

    Raises:
        ValueError: a parameter is wrong, or the simulator or its driver is missing.

    """
    try:
        return Bridge()
    except (ImportError, RuntimeError) as error:
        raise ValueError(str(error)) from None
