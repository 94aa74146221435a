"""Real time: the wall clock owns the tick."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np
from rclpy.executors import Executor

from e0_msgs.msg import GripperCommand
from e0_ros import interfaces
from sim.bridge.settings import MS
from sim.controllers import Trajectory
from sim.pacing import SLACK_NS, Pacer
from sim.rig import Target

if TYPE_CHECKING:
    from sim.bridge.node import Bridge

WAKE_NS = 4 * MS
BURST_NS = 10 * MS
SERVE_NS = 20 * MS
WARN_NS = 1000 * MS
AT_REST_RAD_S = 0.005
HELD_UP_NS = 20 * MS
"""Idle time from which on this process has been held up."""
RECEIVE_S = 0.03
"""Time for DDS to take in what was sent meanwhile, and to ask again for what it missed."""


class Realtime:
    """Physics paced to the wall clock; pictures are drawn while it goes on."""

    def __init__(self, bridge: Bridge) -> None:
        self._bridge = bridge
        adapter = bridge.rig.adapter
        self._wake_ns = max(WAKE_NS, adapter.physics_period_ns)
        self._pacer = Pacer(max(SLACK_NS, adapter.control_period_ns), adapter.physics_period_ns)
        self._capture_ns: int | None = None
        self._served_ns = self._warned_ns = self._polled_ns = self._used_ns = 0
        self.late_ns = 0
        """Longest time since the reset by which a command came too late to act when it was sent."""
        self.left_out = 0
        """Pictures since the reset that were not begun, because those before were not ready."""
        self.on_reset()

    @property
    def overrun_ns(self) -> int:
        """Time given up since the reset."""
        return self._pacer.overrun_ns

    @property
    def scene_ns(self) -> int:
        """Time from which joint states show the present scene."""
        return self._bridge.rig.now_ns

    def subscribe(self, listen: Any) -> None:
        """The gripper acts when its command arrives, where no hand has actions for it."""
        if not self._bridge.config.fci:
            listen(interfaces.GRIPPER_COMMAND, self._on_gripper, poll=True)

    def prepare_reset(self) -> int:
        """Drop a picture in the making, which would show the old scene. The time is the wall clock's, never back."""
        if self._capture_ns is not None:
            self._bridge.rig.adapter.finish_render()
            self._capture_ns = None
        self.left_out = 0
        return max(time.time_ns(), self._bridge.rig.now_ns)

    def on_reset(self) -> None:
        """Tie the clocks together again."""
        rig = self._bridge.rig
        rig.now_ns = self.prepare_reset()
        self.late_ns, self._polled_ns, self._used_ns = 0, time.monotonic_ns(), time.process_time_ns()
        self._pacer.anchor(rig.now_ns, time.monotonic_ns())
        self._boundary_ns = rig.now_ns + rig.adapter.control_period_ns

    def on_command(self, command: Trajectory | Target, sent_ns: int) -> None:
        """Queue a command with the time at which it was sent [system time], which may be well before this call.

        This process may stand still with everything that it receives by; the controller that it stands for does not.
        """
        now_ns, due_ns = time.time_ns(), self._pacer.due_ns(time.monotonic_ns())
        act_ns = due_ns - max(0, now_ns - sent_ns) if sent_ns else due_ns
        self.late_ns = max(self.late_ns, self._bridge.rig.now_ns - act_ns)
        self._bridge.rig.command(command, act_ns)

    def _on_gripper(self, msg: GripperCommand, _: Any) -> None:
        if np.isfinite(msg.opening):
            self._bridge.rig.gripper_target = min(max(msg.opening, 0.0), 1.0)

    def moving(self) -> bool:
        """Whether the arm moves."""
        return bool(np.abs(self._bridge.rig.adapter.joint_state()[1]).max() > AT_REST_RAD_S)

    def wait(self, executor: Executor) -> None:
        """Sleep until the next wake. Events and requests may wait longer: to look for them costs more than a wake."""
        if (wait_s := self._wait_s()) > 0:
            time.sleep(wait_s)
        if (steady_ns := time.monotonic_ns()) - self._served_ns >= SERVE_NS:
            self._served_ns = steady_ns
            executor.spin_once(timeout_sec=0)

    def _wait_s(self) -> float:
        until_ns = min(self._bridge.rig.now_ns + self._wake_ns, self._boundary_ns)
        return (until_ns - self._pacer.due_ns(time.monotonic_ns())) / 1e9

    def poll(self) -> None:
        """Catch up with the clock, a burst at a time, and publish."""
        self._recover()
        bridge, rig, steady_ns = self._bridge, self._bridge.rig, time.monotonic_ns()
        due_ns = self._pacer.due_ns(steady_ns)
        if due_ns < min(rig.now_ns + self._wake_ns, self._boundary_ns):
            return
        bridge.hear()
        self._give_up()
        played = rig.advance(min(due_ns, rig.now_ns + max(BURST_NS, self._wake_ns), self._boundary_ns))
        bridge.out.joints(played.samples)
        bridge.report(played)
        bridge.drive(played)
        if self._capture_ns is not None and rig.adapter.pictures_ready():
            bridge.out.images(rig.adapter.finish_render(), self._capture_ns)
            self._capture_ns = None
        if rig.now_ns >= self._boundary_ns:
            self._control_step()

    def _recover(self) -> None:
        """After a pause in which the whole process stood still, wait until DDS has what was sent meanwhile."""
        idle_ns, used_ns = time.monotonic_ns() - self._polled_ns, time.process_time_ns() - self._used_ns
        if idle_ns > HELD_UP_NS and used_ns < idle_ns / 4:
            time.sleep(RECEIVE_S)
        self._polled_ns, self._used_ns = time.monotonic_ns(), time.process_time_ns()

    def _control_step(self) -> None:
        bridge, rig = self._bridge, self._bridge.rig
        self._capture()
        self._boundary_ns += rig.adapter.control_period_ns
        self._pacer.follow(time.time_ns(), time.monotonic_ns())
        was_running = bridge.episode.running
        bridge.episode.step += was_running
        privileged = rig.adapter.privileged()
        bridge.episode.observe(privileged.success)
        if not bridge.hand:
            bridge.out.gripper(rig.adapter.gripper_opening(), rig.now_ns)
        bridge.out.sim_state(bridge.episode, rig, self.overrun_ns, privileged.poses)
        if was_running and bridge.episode.done:
            bridge.episode.stop()
            bridge.log_judgement()

    def _capture(self) -> None:
        """Begin the pictures of this instant, unless those before are still drawn: the arm waits for no camera."""
        rig = self._bridge.rig
        if self._capture_ns is None:
            rig.adapter.start_render()
            self._capture_ns = rig.now_ns
            return
        self.left_out += 1
        period_ms = rig.adapter.control_period_ns / 1e6
        self._warn(f"pictures take longer than {period_ms:.0f} ms: {self.left_out} left out since the reset")

    def _give_up(self) -> None:
        rig = self._bridge.rig
        if skip_ns := self._pacer.give_up(rig.now_ns, time.monotonic_ns()):
            self._bridge.report(rig.skip(rig.now_ns + skip_ns))
            self._boundary_ns = max(self._boundary_ns, rig.now_ns)
            self._warn(
                f"{rig.adapter.__class__.__name__} is slower than real time: {skip_ns / 1e6:.0f} ms skipped, "
                f"{self.overrun_ns / 1e6:.0f} ms since the reset"
            )

    def _warn(self, text: str) -> None:
        """Log, once a second at most; rclpy's own throttle takes milliseconds for each line that it drops."""
        if (steady_ns := time.monotonic_ns()) - self._warned_ns >= WARN_NS:
            self._warned_ns = steady_ns
            self._bridge.get_logger().warning(text)
