"""Node `gello_teleop`: a GELLO leader arm as the action source `teleop`.

One loop at the leader's rate: read the servos, one call of the core, publish. What it knows of the arm is what the
executor says: mode and reference.
"""

from __future__ import annotations

import gc
import secrets
import sys
import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rclpy.node import Node

from e0_msgs.msg import ExecutorState
from e0_policy.embodiment import load_embodiment
from e0_policy.resources import config_dir
from e0_policy.types import ActionChunk, NoChunk
from e0_ros import interfaces
from e0_ros.config import ConfigError, check, declare_parameters, setting
from e0_ros.conversions import chunk_to_msg
from e0_ros.core.executor_types import Mode
from e0_ros.core.gello import Follower, GelloConfig, GelloTeleop, Idle, Lead, Phase
from e0_ros.core.gello_geometry import load_calibration, ticks_to_rad
from e0_ros.core.joint_names import pick_joints
from e0_ros.diagnostics import OK, WARN, diagnostics_msg
from e0_ros.dynamixel import BusError, BusFault, LeaderBus, read_time_s
from e0_ros.pedal import Pedal, open_pedal
from e0_ros.process import ask_for_priority, run_node

try:
    from rclpy.experimental.events_executor import EventsExecutor as SpinExecutor
except ImportError:  # before Kilted
    from rclpy.executors import SingleThreadedExecutor as SpinExecutor

_REOPEN_NS = _DIAGNOSTICS_NS = 1_000_000_000
_DRAIN = 20


@dataclass(frozen=True)
class TeleopConfig:
    """Where the leader is and how often it is read."""

    calibration: str = setting("", "file of the leader; empty: the shipped gello.yaml")
    port: str = setting("", "serial port; empty: the calibration's")
    rate_hz: float = setting(100.0, "readings", unit="Hz", low=10.0, high=500.0)
    reply_ms: float = setting(12.0, "wait for an answer beyond its time on the wire", unit="ms", low=1.0, high=200.0)
    realtime_priority: int = setting(15, "SCHED_FIFO, where the system allows it; 0: none", low=0, high=98)
    pedal: str = setting("", "deadman: true: its input device, /dev/input/by-id/...")

    def __post_init__(self) -> None:
        check(self)


class GelloTeleopNode(Node):
    """Read, one call of the core, publish."""

    def __init__(self) -> None:
        super().__init__("gello_teleop")
        self.config = declare_parameters(self, TeleopConfig)
        gello = declare_parameters(self, GelloConfig)
        self._file = Path(self.config.calibration) if self.config.calibration else config_dir() / "gello.yaml"
        self._leader = load_calibration(self._file)
        self._port = self.config.port or self._leader.port
        self._arm, self._session = load_embodiment(gello.embodiment), f"gello-{secrets.token_hex(4)}"
        self.core = GelloTeleop(gello, self._leader, self._session)
        self._check_rate()
        self._pedal = self._open_pedal(gello.deadman)
        self._bus: LeaderBus | None = None
        self._reopen_ns = self._next_diagnostics_ns = self._sent_ns = 0
        self._sequence = self._samples = self._faults = self._refused = 0
        self._reason, self._phase = "starting", self.core.phase
        self._latencies_ns: deque[int] = deque(maxlen=1000)
        self._chunks = self._publisher(interfaces.ACTION_CHUNK)
        self._diagnostics = self._publisher(interfaces.DIAGNOSTICS)
        heard = interfaces.EXECUTOR_STATE
        self.create_subscription(ExecutorState, heard.name, self._on_executor, heard.qos.profile())
        trigger = interfaces.message_class(interfaces.TRIGGER)
        self.create_service(trigger, interfaces.ENGAGE.name, self._on_engage)
        self.create_service(trigger, interfaces.RELEASE.name, self._on_release)

    def _publisher(self, topic):
        return self.create_publisher(interfaces.message_class(topic.type), topic.name, topic.qos.profile())

    def _check_rate(self) -> None:
        limit_hz = 1 / read_time_s(len(self._leader.ids), self._leader.baud_rate)
        if self.config.rate_hz > limit_hz:
            raise ConfigError(
                f"rate_hz is {self.config.rate_hz:g}; {len(self._leader.ids)} servos at {self._leader.baud_rate} baud "
                f"allow {limit_hz:.0f}: e0 gello baud --to 1000000, and baud_rate in {self._file}; or lower rate_hz"
            )

    def _open_pedal(self, deadman: bool) -> Pedal | None:
        if deadman != bool(self.config.pedal):
            raise ConfigError("deadman: true and pedal: DEVICE go together; one of them is missing")
        return open_pedal(self.config.pedal) if deadman else None

    # -- inputs ----------------------------------------------------------------------------------------------------

    def _on_executor(self, msg: ExecutorState) -> None:
        try:
            mode = Mode(msg.mode)
        except ValueError as error:
            self.get_logger().warning(f"{interfaces.EXECUTOR_STATE.name}: {error}", throttle_duration_sec=5.0)
            return
        try:
            reference = pick_joints(msg.joint_names, msg.positions, self._arm.joint_names)
        except ValueError:
            reference = None
        why = msg.reason if msg.mode != ExecutorState.RUNNING else ""
        refusal = msg.last_refusal if msg.chunks_refused > self._refused else ""
        self._refused = msg.chunks_refused
        follower = Follower(mode, why, msg.session, reference, msg.gripper_opening, refusal)
        self.core.observe_executor(time.monotonic_ns(), follower)

    def _on_engage(self, _, response):
        obstacle = self.core.engage(time.monotonic_ns())
        response.success, response.message = True, obstacle or "engages"
        return response

    def _on_release(self, _, response):
        self._give_up("released on request", self.core.phase is Phase.ENGAGED)
        self.core.release()
        response.success, response.message = True, "released until engaged on request"
        return response

    def _read(self) -> None:
        if self._bus is None and not self._open():
            return
        result = self._bus.read(time.monotonic_ns)
        if isinstance(result, BusFault):
            self._faults += 1
            self.core.leader_fault(result.reason)
            if result.lost:
                self._close()
            return
        self._samples += 1
        self.core.observe_leader(result.stamp_ns, ticks_to_rad(result.ticks))

    def _open(self) -> bool:
        if time.monotonic_ns() < self._reopen_ns:
            return False
        try:
            self._bus = LeaderBus(self._port, self._leader.baud_rate, self._leader.ids, self.config.reply_ms / 1e3)
        except BusError as error:
            self._reopen_ns = time.monotonic_ns() + _REOPEN_NS
            self.core.leader_fault(str(error))
            return False
        self.get_logger().info(f"leader on {self._port}, calibrated in {self._file}")
        return True

    def _close(self) -> None:
        if self._bus is not None:
            self._bus.close()
        self._bus = None

    # -- outputs ---------------------------------------------------------------------------------------------------

    def step(self) -> None:
        """One reading of the leader and what follows from it."""
        self._read()
        if self._pedal is not None:
            self.core.deadman(self._pedal.pressed())
            if news := self._pedal.news():
                self.get_logger().warning(news)
        outcome = self.core.tick(time.monotonic_ns())
        if isinstance(outcome, Idle):
            self._reason = outcome.reason
            self._give_up(outcome.reason, outcome.released)
        elif outcome.t0_ns > self._sent_ns:
            self._reason = ""
            self._send(outcome)
        self._tell()

    def _send(self, lead: Lead) -> None:
        ros_ns = self.get_clock().now().nanoseconds
        offset_ns = ros_ns - time.monotonic_ns()
        arm = self._arm
        chunk = ActionChunk(
            rows=lead.rows,
            t0_ns=lead.t0_ns + offset_ns,
            period_ns=lead.period_ns,
            source="teleop",
            session=self._session,
            sequence=self._next(),
            embodiment=arm.name,
            joint_names=arm.joint_names,
        )
        self._chunks.publish(chunk_to_msg(chunk, ros_ns))
        self._sent_ns = lead.t0_ns
        self._latencies_ns.append(time.monotonic_ns() - lead.t0_ns)

    def _give_up(self, reason: str, led: bool) -> None:
        """Tell the executor that nobody leads any more, and why."""
        if led:
            word = NoChunk(0, reason, "teleop", self._session, self._next())
            self._chunks.publish(chunk_to_msg(word, self.get_clock().now().nanoseconds))

    def _next(self) -> int:
        self._sequence += 1
        return self._sequence

    def _tell(self) -> None:
        if self.core.phase is not self._phase:
            self._phase = self.core.phase
            self.get_logger().info(f"{self._phase.value}{self._reason and ': ' + self._reason}")
        elif self._reason:
            self.get_logger().info(self._reason, throttle_duration_sec=2.0)
        steady_ns = time.monotonic_ns()
        if steady_ns >= self._next_diagnostics_ns:
            self._next_diagnostics_ns = steady_ns + _DIAGNOSTICS_NS
            self._diagnostics.publish(self._diagnosis())

    def _diagnosis(self):
        level = OK if self.core.phase is Phase.ENGAGED else WARN
        latency_ms = np.percentile(self._latencies_ns, (50, 99)) / 1e6 if self._latencies_ns else (np.nan, np.nan)
        values = {
            "samples": self._samples,
            "faults": self._faults,
            "jumps": self.core.jumps,
            "engagements": self.core.engagements,
            "latency_median_ms": f"{latency_ms[0]:.2f}",
            "latency_p99_ms": f"{latency_ms[1]:.2f}",
        }
        words = f"{self.core.phase.value}{self._reason and ': ' + self._reason}"
        return diagnostics_msg("gello_teleop", level, words, values, self.get_clock().now().nanoseconds)

    def destroy_node(self) -> None:
        """Let the arm hold, and close the devices."""
        self._give_up("gello_teleop ends", self.core.phase is Phase.ENGAGED)
        self._close()
        if self._pedal is not None:
            self._pedal.close()
        super().destroy_node()


def run(node: GelloTeleopNode, stopping: threading.Event) -> None:
    """Read the leader at its rate on the steady clock; hear the graph in between."""
    ask_for_priority(node, node.config.realtime_priority)
    gc.collect()
    gc.freeze()  # else a full collection walks all modules, for tens of milliseconds
    executor = SpinExecutor()
    executor.add_node(node)
    period_ns, next_ns = int(1e9 / node.config.rate_hz), time.monotonic_ns()
    try:
        while not stopping.is_set():
            while (wait_ns := next_ns - time.monotonic_ns()) > 0:
                executor.spin_once(timeout_sec=wait_ns / 1e9)
            for _ in range(_DRAIN):
                executor.spin_once(timeout_sec=0)
            node.step()
            next_ns = max(next_ns + period_ns, time.monotonic_ns())
    finally:  # an events executor that outlives its node crashes
        executor.remove_node(node)
        executor.shutdown()


def main(args: Sequence[str] | None = None) -> int:
    """Run the node until SIGINT or SIGTERM. Exit status 2: a parameter or the leader's file is wrong."""
    return run_node(GelloTeleopNode, args, run)


if __name__ == "__main__":
    sys.exit(main())
