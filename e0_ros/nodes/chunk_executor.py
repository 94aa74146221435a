"""Node `chunk_executor`: the only publisher of robot commands.

Real time: ticks paced by the steady clock, stamped in ROS time. Lock-step: one tick per answered observation, once a
joint state of that stamp is there. It subscribes to no images.
"""

from __future__ import annotations

import gc
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rclpy.executors import Executor
from rclpy.node import Node
from sensor_msgs.msg import JointState
from std_msgs.msg import Bool, Float64, String

from e0_msgs.msg import ActionChunk as ChunkMsg
from e0_msgs.msg import GripperCommand
from e0_policy.types import ActionChunk, ChunkError, NoChunk
from e0_ros import interfaces
from e0_ros.config import ConfigError, check, declare_parameters, setting
from e0_ros.conversions import chunk_from_msg, to_ns, to_time
from e0_ros.core.admission import Refusal
from e0_ros.core.arm_fault import ArmFault, ArmFaultConfig
from e0_ros.core.command import Command
from e0_ros.core.executor_types import ExecutorConfig, Mode, Status, Tick
from e0_ros.core.heartbeat import Heartbeat, HeartbeatConfig
from e0_ros.core.pace import PACED, Pace, PaceConfig
from e0_ros.core.step_executor import make_executor
from e0_ros.delay_probe import DelayProbe
from e0_ros.diagnostics import ERROR, OK, WARN, diagnostics_msg
from e0_ros.executor_messages import TrajectoryMessage, floats, status_to_msg, step_to_msg
from e0_ros.introductions import Introductions
from e0_ros.process import ask_for_priority, run_node

try:
    from rclpy.experimental.events_executor import EventsExecutor as SpinExecutor
except ImportError:  # before Kilted
    from rclpy.executors import SingleThreadedExecutor as SpinExecutor

_OUTPUTS = {
    "joint_trajectory": interfaces.TRAJECTORY,
    "impedance": interfaces.IMPEDANCE_TARGET,
    "step": interfaces.SIM_STEP,
}
_IMPEDANCE_GAP_NS = 400_000_000
_DIAGNOSTICS_NS = 1_000_000_000
_DRAIN = 200
_LONGEST_WAIT_S = 0.2


@dataclass(frozen=True)
class NodeConfig:
    """How the node runs its executor."""

    tick_rate_hz: float = setting(250.0, "ticks in real time", unit="Hz", low=10.0, high=1000.0)
    state_rate_hz: float = setting(50.0, "executor states in real time, beside changes", unit="Hz", low=1.0, high=1000)
    realtime_priority: int = setting(20, "SCHED_FIFO, where the system allows it; 0: none", low=0, high=98)
    expected_source: str = setting(
        "", "lock-step: whose answer completes a tick; empty: any", choices=("", "policy", "scripted", "replay")
    )

    def __post_init__(self) -> None:
        check(self)


class ChunkExecutorNode(Node):
    """Decode, one call of the core, publish."""

    def __init__(self) -> None:
        super().__init__("chunk_executor")
        self.config = declare_parameters(self, NodeConfig)
        self.core = make_executor(declare_parameters(self, ExecutorConfig))
        self._lockstep = self.core.config.lockstep
        self._impedance = self.core.config.output == "impedance"
        self._trajectory = TrajectoryMessage(self.core.arm_model.joint_names)
        self._waiting: list[ChunkMsg] = []
        self._answered_ns = self._ticked_ns = self._joints_ns = 0
        self._commands = self._gripper_commands = self._withdrawn = 0
        self.late_ticks = 0
        """Ticks that began more than a period late, by the steady clock."""
        self._next_state_ns, self._published, self._next_diagnostics_ns = 0, (), 0
        self._streamed_ns, self._latched, self._gap = 0, None, False
        self._stepped = self.core.config.output == "step"
        self._commanded = self._publisher(_OUTPUTS[self.core.config.output])
        self._gripper = self._publisher(interfaces.GRIPPER_COMMAND)
        self._state = self._publisher(interfaces.EXECUTOR_STATE)
        self._diagnostics = self._publisher(interfaces.DIAGNOSTICS)
        self._subscribe(interfaces.JOINT_STATES, self._on_joints)
        self._probe = None if self._lockstep else DelayProbe(self, interfaces.JOINT_STATES)
        self._subscribe(interfaces.ACTION_CHUNK, self._on_chunk)
        self._heartbeat = Heartbeat(declare_parameters(self, HeartbeatConfig))
        self._subscribe(interfaces.HEARTBEAT, self._on_heartbeat)
        self._arm_fault = ArmFault(declare_parameters(self, ArmFaultConfig))
        self._subscribe(interfaces.ARM_FAULT, self._on_arm_fault)
        self._pace = Pace(pace := declare_parameters(self, PaceConfig))
        if self._lockstep and (pace.step_through or pace.speed != 1.0):
            raise ConfigError("speed and step_through are for real time; in lock-step plans run as they are")
        self._subscribe(interfaces.SPEED, self._on_speed)
        self._introductions = Introductions(self)
        for service, act in (
            (interfaces.ARM, self._arm),
            (interfaces.DISARM, self._disarm),
            (interfaces.HOLD, lambda _: self.core.hold()),
            (interfaces.STOP, lambda _: self.core.stop()),
            (interfaces.RESET_STOP, self._reset_stop),
            (interfaces.STEP, self._step),
        ):
            self._serve(service, act)

    def _publisher(self, topic):
        return self.create_publisher(interfaces.message_class(topic.type), topic.name, topic.qos.profile())

    def _subscribe(self, topic, callback) -> None:
        self.create_subscription(interfaces.message_class(topic.type), topic.name, callback, topic.qos.profile())

    def _serve(self, service, act) -> None:
        def answer(request, response):
            refusal: Refusal | None = act(request)
            if not self._lockstep:
                self.tick()
            status = self.core.status(self._now_ns())
            response.success = refusal is None
            response.message = refusal.reason if refusal else f"{status.mode.name.lower()} {status.reason}".strip()
            self.get_logger().info(f"{service.name}: {response.message}")
            return response

        self.create_service(interfaces.message_class(service.type), service.name, answer)

    def destroy_node(self) -> None:
        """With the probe's node."""
        if self._probe:
            self._probe.node.destroy_node()
        super().destroy_node()

    # -- inputs ----------------------------------------------------------------------------------------------------

    def _now_ns(self) -> int:
        """ROS time; in lock-step the last time that the bridge told by its joint states."""
        return self._joints_ns if self._lockstep else self.get_clock().now().nanoseconds

    def _on_joints(self, msg: JointState) -> None:
        stamp_ns = to_ns(msg.header.stamp)
        self.core.observe_joints(stamp_ns, msg.name, msg.position, msg.velocity)
        self._joints_ns = max(self._joints_ns, stamp_ns)
        if self._lockstep:
            self._tick_if_complete()

    def _on_chunk(self, msg: ChunkMsg) -> None:
        if msg.source == "teleop" and not self._lockstep:  # a hand waits for no tick
            self._offer(msg, self._now_ns())
            if self.core.due(self._now_ns()):
                self.tick()
            return
        self._waiting = [*self._waiting[-_DRAIN:], msg]
        if self._lockstep and self.config.expected_source in ("", msg.source):
            self._answered_ns = max(self._answered_ns, to_ns(msg.in_reply_to))
            self._tick_if_complete()

    def _tick_if_complete(self) -> None:
        """Lock-step: the tick of t, once the answer to t and a joint state of t are both there."""
        t = self._answered_ns
        if self._ticked_ns < t <= self._joints_ns:
            for msg in self._waiting:
                self._offer(msg, t)
            self._waiting = []
            self._ticked_ns = t
            self._publish(self.core.tick(t), t)

    def _offer(self, msg: ChunkMsg, now_ns: int) -> None:
        try:
            refusal = self._follow(chunk_from_msg(msg), now_ns)
        except ChunkError as error:
            refusal = self.core.refuse(msg.source, msg.session, str(error))
        if refusal and (refusal.fault or self.core.mode is not Mode.DISARMED):
            self.get_logger().warning(
                f"refused chunk {msg.sequence} of {msg.source[:80]}: {refusal.reason}", throttle_duration_sec=1.0
            )

    def _follow(self, chunk: ActionChunk | NoChunk, now_ns: int) -> Refusal | None:
        if isinstance(chunk, NoChunk):
            if chunk.keep:
                self.core.keep(chunk.source, chunk.session, now_ns, chunk.in_reply_to_ns)
            elif not chunk.in_reply_to_ns:
                self.core.give_up(chunk.source, chunk.session, chunk.reason)
            return None
        paced = self._pace.plan(chunk, now_ns)
        if paced is None:
            self.core.keep(chunk.source, chunk.session, now_ns, chunk.in_reply_to_ns or chunk.t0_ns)
            return None
        return self.core.offer(paced, now_ns)

    def _step(self, _) -> Refusal | None:
        return self._pace.step(self._now_ns(), self.core)

    def _on_speed(self, msg: Float64) -> None:
        if wrong := self._pace.set_speed(msg.data) or (self._lockstep and "lock-step has no speed"):
            self.get_logger().error(f"{interfaces.SPEED.name}: {wrong}")
            return
        if self._pace.speed == 0.0:
            self.core.give_up_for(PACED, "the speed is 0")

    def _on_arm_fault(self, msg: String) -> None:
        """Word of the arm: the first of a fault ends all commands, and while it lasts the arm cannot be armed."""
        before = self._arm_fault.stopped
        self._arm_fault.hear(msg.data[:500], time.monotonic_ns())
        if msg.data and not before:
            if self.core.mode is not Mode.DISARMED:
                self.get_logger().error(f"nothing is sent any more; the arm: {self._arm_fault.stopped}")
            self.core.abandon(f"the arm: {self._arm_fault.stopped}")
            self._latched = None

    def _disarm(self, _) -> None:
        """Disarm; the impedance target of an arm that stopped by itself is where it is now: it may have been guided."""
        if self._arm_fault.stopped:
            self._latched = None
        self.core.disarm()

    def _on_heartbeat(self, msg: Bool) -> None:
        self._heartbeat.hear(msg.data, time.monotonic_ns())
        self.watch()

    def watch(self) -> None:
        """Stop, and tick at once, if the heartbeat says so or has ended; hold if nobody watches the arm any more."""
        unwatched = self._arm_fault.silent(time.monotonic_ns())
        if unwatched and self.core.mode in (Mode.ARMED, Mode.RUNNING):
            self.core.hold(unwatched)
        cause = self._heartbeat.cause(time.monotonic_ns())
        if cause and self.core.mode is not Mode.STOPPED:
            self.core.stop(cause)
            self.get_logger().error(f"stopped: {cause}")
            if not self._lockstep:
                self.tick()

    def look_from_ns(self, next_ns: int) -> int:
        """When to look next: at the tick at `next_ns`, or before that when a heartbeat's silence becomes a stop."""
        silent_ns = self._heartbeat.silent_from_ns
        return next_ns if silent_ns is None or self.core.mode is Mode.STOPPED else min(next_ns, silent_ns)

    def _reset_stop(self, _) -> Refusal | None:
        pressed = self._heartbeat.release(time.monotonic_ns())
        return Refusal(pressed) if pressed else self.core.reset_stop()

    def _arm(self, request) -> Refusal | None:
        steady_ns = time.monotonic_ns()
        if missing := self._heartbeat.missing(steady_ns) or self._arm_fault.missing(steady_ns):
            return Refusal(missing)
        if self._lockstep:
            self._introductions.meet([interfaces.ACTION_CHUNK.name])
        refusal = self.core.arm(self._now_ns(), to_ns(request.not_before))
        if refusal is None:
            self._pace.forget()
            self._gap, self._streamed_ns = False, 0
        return refusal

    # -- outputs ---------------------------------------------------------------------------------------------------

    def tick(self) -> None:
        """One tick at the present (real time), then the chunks that came since: now the next tick is farthest away."""
        now_ns = self._now_ns()
        for delay_ns in self._probe.delays_ns() if self._probe else ():
            self.core.observe_delay(delay_ns, now_ns)
        self._publish(self.core.tick(now_ns), now_ns)
        waiting, self._waiting = self._waiting, []
        for msg in waiting:
            self._offer(msg, self._now_ns())

    def _publish(self, tick: Tick, now_ns: int) -> None:
        if self._impedance:
            self._stream(tick.status, now_ns)
        elif self._stepped and tick.status.mode is not Mode.DISARMED:
            self._commanded.publish(step_to_msg(tick, now_ns))
            self._commands += 1
        elif tick.command:
            self._send(tick.command, tick.branch_ns)
        if tick.gripper is not None:
            msg = GripperCommand(sequence=self._gripper_commands, opening=tick.gripper)
            msg.header.stamp = to_time(now_ns)
            self._gripper.publish(msg)
            self._gripper_commands += 1
        status = tick.status
        visible = (status.mode, status.reason, status.accepted, status.refused)
        if self._lockstep or now_ns >= self._next_state_ns or visible != self._published:
            self._state.publish(status_to_msg(status, now_ns, self._commands, self.core.arm_model.joint_names))
            self._published = visible
            self._next_state_ns = now_ns + int(1e9 / self.config.state_rate_hz)
        self.diagnose(status, now_ns)

    def _send(self, command: Command, branch_ns: int) -> None:
        """Publish a trajectory, unless this process was held up: the arm may already be past where it branches off."""
        msg = self._trajectory.of(command)
        if not self._lockstep and (late_ns := self._now_ns() - branch_ns + self.core.transport_ns) > 0:
            self.core.withdraw()
            self._withdrawn += 1
            self.get_logger().warning(
                f"a command was {late_ns / 1e6:.1f} ms too late to be sent; the last one stays in force",
                throttle_duration_sec=1.0,
            )
            return
        self._commanded.publish(msg)
        self._commands += 1

    def _stream(self, status: Status, now_ns: int) -> None:
        """The impedance controller dies of a pause above 0.5 s, so the reference is sent whatever the mode.

        Without a command it is where the arm was measured once: to follow a measured arm is to let it sink.
        """
        steady_ns = time.monotonic_ns()
        paused = self._streamed_ns and steady_ns - self._streamed_ns > _IMPEDANCE_GAP_NS
        if paused and not self._gap and not self._lockstep:
            self._gap = True
            pause_s = (steady_ns - self._streamed_ns) / 1e9
            self.core.disarm(f"targets paused for {pause_s:.2f} s; restart the impedance controller, then arm")
        if status.reference is not None and (isinstance(status.motion, Command) or self._latched is None):
            self._latched = status.reference.position
        if self._gap or self._latched is None:
            return
        msg = JointState(name=list(self.core.arm_model.joint_names), position=floats(self._latched))
        msg.header.stamp = to_time(now_ns)
        msg.header.frame_id = self.core.arm_model.base_frame
        self._commanded.publish(msg)
        self._commands += 1
        self._streamed_ns = steady_ns

    def diagnose(self, status: Status, now_ns: int) -> None:
        """Publish /diagnostics, once per second of the steady clock."""
        steady_ns = time.monotonic_ns()
        if steady_ns < self._next_diagnostics_ns:
            return
        self._next_diagnostics_ns = steady_ns + _DIAGNOSTICS_NS
        level = {Mode.HOLD: WARN, Mode.STOPPED: ERROR}.get(status.mode, OK)
        message = f"{status.mode.name}: {status.reason}" if status.reason else status.mode.name
        values = {
            "owner": status.owner,
            "accepted": status.accepted,
            "refused": status.refused,
            "last_refusal": status.last_refusal,
            "limited": status.limited,
            "commands": self._commands,
            "late_ticks": self.late_ticks,
            "withdrawn": self._withdrawn,
            "transport_ms": self.core.transport_ns / 1e6,
            "speed": self._pace.speed,
            "withheld": self._pace.waits,
        }
        self._diagnostics.publish(diagnostics_msg("chunk_executor", level, message, values, now_ns))


def run(node: ChunkExecutorNode, stopping: Callable[[], bool]) -> None:
    """Spin until told to stop: callbacks as they come, ticks at their deadlines on the steady clock (real time)."""
    if not node.core.config.lockstep:
        ask_for_priority(node, node.config.realtime_priority)
    gc.collect()
    gc.freeze()  # else a full collection walks all modules in the middle of a tick, for tens of milliseconds
    executor = SpinExecutor()
    executor.add_node(node)
    try:
        _spin(node, executor, stopping)
    finally:  # an events executor that outlives its node crashes
        executor.remove_node(node)
        executor.shutdown()


def _spin(node: ChunkExecutorNode, executor: Executor, stopping: Callable[[], bool]) -> None:
    period_ns = int(1e9 / node.config.tick_rate_hz)
    next_ns = time.monotonic_ns()
    while not stopping():
        if node.core.config.lockstep:
            executor.spin_once(timeout_sec=_LONGEST_WAIT_S)
            node.watch()
            continue
        look_ns = node.look_from_ns(next_ns)
        if (wait_ns := look_ns - time.monotonic_ns()) > 0:
            executor.spin_once(timeout_sec=wait_ns / 1e9)
        now_ns = time.monotonic_ns()
        if look_ns < next_ns and now_ns >= look_ns:
            node.watch()
        if (late_ns := now_ns - next_ns) < 0:
            continue
        if late_ns > period_ns:  # after a stall: first hear what has come in, then tick once
            node.late_ticks += 1
            for _ in range(_DRAIN):
                executor.spin_once(timeout_sec=0)
            next_ns = time.monotonic_ns()
        node.watch()
        node.tick()
        next_ns += period_ns


def main(args: Sequence[str] | None = None) -> int:
    """Run the node until SIGINT or SIGTERM. Exit status 2: a parameter is wrong."""
    return run_node(ChunkExecutorNode, args, lambda node, stopping: run(node, stopping.is_set))


if __name__ == "__main__":
    sys.exit(main())
