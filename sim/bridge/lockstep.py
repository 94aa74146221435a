"""Lock-step: the bridge owns the tick."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np
from rclpy.executors import Executor

from e0_msgs.msg import ExecutorState
from e0_ros import interfaces
from e0_ros.conversions import to_ns
from sim.controllers import Trajectory
from sim.rig import JointSample, Target
from sim.step_rig import Row
from sim.tick import TickGate

if TYPE_CHECKING:
    from sim.bridge.node import Bridge

START_NS = 1_000_000_000
RESET_GAP_NS = 1_000_000_000


class Lockstep:
    """The tick of lock-step: publish, wait for the executor's answer, play."""

    overrun_ns = left_out = late_ns = 0

    def __init__(self, bridge: Bridge) -> None:
        self._bridge = bridge
        self._gate = TickGate(bridge.config.controller == "impedance")
        self._pending: Trajectory | Target | Row | None = None
        self._samples: list[JointSample] = []
        self._listeners = 0
        self._ticked = False

    def subscribe(self, listen: Any) -> None:
        """The executor's state completes a tick and carries the gripper's set-point."""
        listen(interfaces.EXECUTOR_STATE, self._on_state)

    def prepare_reset(self) -> int:
        """Time of the first tick to come; the still pictures before it are one period earlier."""
        return self._bridge.rig.now_ns + RESET_GAP_NS

    def on_reset(self) -> None:
        """Give up a running tick and show the new scene."""
        self._gate.close()
        self._pending, self._samples, self._ticked = None, [], False
        self._show_still()

    def on_command(self, command: Trajectory | Target | Row, sent_ns: int) -> None:
        """Keep a command for the tick that waits for it, whenever it came."""
        if isinstance(command, Target):
            self._gate.target(command.stamp_ns)
        else:
            self._gate.trajectory()
        if self._gate.waiting:
            self._pending = command

    def _on_state(self, msg: ExecutorState) -> None:
        disarmed = msg.mode == ExecutorState.DISARMED
        ours = self._gate.state(to_ns(msg.header.stamp), msg.commands, disarmed)
        if ours and not disarmed and np.isfinite(msg.gripper_opening):
            self._bridge.rig.gripper_target = min(max(msg.gripper_opening, 0.0), 1.0)

    def moving(self) -> bool:
        """Whether time and with it the arm goes on by itself: never."""
        return False

    def wait(self, executor: Executor) -> None:
        """Wait for a message, unless there is something to do."""
        busy = self._bridge.episode.running and not self._gate.waiting
        executor.spin_once(timeout_sec=0 if busy else 0.1)

    def poll(self) -> None:
        """Go on as far as the messages so far allow."""
        if self._gate.waiting:
            missing = self._gate.missing()
            if not missing:
                self._play()
            elif time.monotonic() > self._deadline:
                self._abort(missing)
        elif self._bridge.episode.running:
            self._begin()
        elif (listeners := self._bridge.out.subscribers()) != self._listeners:
            self._listeners = listeners
            self._show_still()

    @property
    def scene_ns(self) -> int:
        """Time of the still picture of a scene that waits: one period before its first tick."""
        return self._bridge.rig.now_ns - self._bridge.rig.adapter.control_period_ns

    def _show_still(self) -> None:
        """Publish clock, joints and gripper of a scene that waits, again when somebody new listens."""
        rig, out = self._bridge.rig, self._bridge.out
        if self._ticked:
            return
        stamp_ns = self.scene_ns
        out.clock(stamp_ns)
        out.joints([JointSample(stamp_ns, *rig.adapter.joint_state())])
        out.gripper(rig.adapter.gripper_opening(), stamp_ns)

    def _begin(self) -> None:
        rig, out, episode = self._bridge.rig, self._bridge.out, self._bridge.episode
        self._gate.open(rig.now_ns)
        self._ticked = True
        self._deadline = time.monotonic() + self._bridge.config.timeout_s
        rig.adapter.start_render()
        privileged = rig.adapter.privileged()
        episode.observe(privileged.success)
        out.clock(rig.now_ns)
        out.joints(self._samples or [rig.sample()])
        out.gripper(rig.adapter.gripper_opening(), rig.now_ns)
        out.images(rig.adapter.finish_render(), rig.now_ns)
        out.sim_state(episode, rig, 0, privileged.poses)

    def _play(self) -> None:
        bridge, rig = self._bridge, self._bridge.rig
        if self._pending is not None:
            rig.command(self._pending, rig.now_ns)
            self._pending = None
        if bridge.episode.done:
            bridge.episode.stop()
            bridge.log_judgement()
            return
        played = rig.advance(rig.now_ns + rig.adapter.control_period_ns)
        self._samples = played.samples
        bridge.episode.step += 1
        bridge.report(played)

    def _abort(self, missing: str) -> None:
        bridge = self._bridge
        silent = bridge.count_publishers(interfaces.EXECUTOR_STATE.name) == 0
        hint = f"; nobody publishes {interfaces.EXECUTOR_STATE.name}" if silent else ""
        bridge.get_logger().error(
            f"tick at {bridge.rig.now_ns} ns: {missing} did not come within {bridge.config.timeout_s:g} s{hint}; "
            "the episode is over, reset"
        )
        self._gate.close()
        self._pending = None
        bridge.episode.abort()
        bridge.out.sim_state(bridge.episode, bridge.rig, 0, bridge.rig.adapter.privileged().poses)
