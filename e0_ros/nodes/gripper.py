"""gripper: set-points of the executor in, goals of the Franka Hand's actions out; reports what was achieved."""

from __future__ import annotations

import importlib
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from sensor_msgs.msg import JointState

from e0_msgs.msg import GripperCommand
from e0_policy.embodiment import load_embodiment
from e0_ros import interfaces
from e0_ros.config import ConfigError, check, declare_parameters, setting
from e0_ros.core.gripper_goals import Act, Cancel, Goal, GripperConfig, GripperGoals, Kind
from e0_ros.core.joint_names import pick_joints
from e0_ros.diagnostics import ERROR, OK, WARN, diagnostics_msg
from e0_ros.process import run_node

POLL_S = 0.05
Finished = Callable[[int, bool, str], None]


@dataclass(frozen=True)
class GripperNodeConfig:
    """Which hand the node drives."""

    embodiment: str = setting("fr3", "arm whose hand this is: its fingers and width")
    server: str = setting("/franka_gripper", "name of franka_gripper's node, which serves homing, move and grasp")

    def __post_init__(self) -> None:
        check(self)


class Hand(Protocol):
    """A hand that executes one goal at a time; every goal sent ends in one call of `finished`, whatever happens."""

    def is_ready(self) -> bool:
        """Whether every action is served."""
        ...

    def send(self, goal: Goal, finished: Finished) -> None:
        """Send a goal."""
        ...

    def cancel(self, number: int) -> None:
        """Cancel a goal that was sent."""
        ...


class FrankaHand:
    """The actions of franka_gripper.

    Raises:
        ConfigError: franka_msgs is not installed.

    """

    def __init__(self, node: Node, server: str, config: GripperConfig) -> None:
        try:
            self._types = importlib.import_module("franka_msgs.action")
        except ModuleNotFoundError as error:
            raise ConfigError(
                f"the gripper needs franka_msgs ({error}); build franka_ros2 and source its workspace, "
                "or leave the node out: gripper:=false"
            ) from None
        from rclpy.action import ActionClient

        self._config = config
        kinds = {Kind.HOMING: "Homing", Kind.MOVE: "Move", Kind.GRASP: "Grasp"}
        self._clients = {
            kind: ActionClient(node, getattr(self._types, name), f"{server}/{kind.value}")
            for kind, name in kinds.items()
        }
        self._handles: dict[int, Any] = {}
        self._cancelled: set[int] = set()

    def is_ready(self) -> bool:
        """Whether every action is served."""
        return all(client.server_is_ready() for client in self._clients.values())

    def send(self, goal: Goal, finished: Finished) -> None:
        """Send a goal; `finished` is called when it was refused, or has ended."""

        def ended(future: Any) -> None:
            self._handles.pop(goal.number, None)
            self._cancelled.discard(goal.number)
            result = future.result().result
            finished(goal.number, bool(result.success), str(result.error))

        def answered(future: Any) -> None:
            handle = future.result()
            if not handle.accepted:
                self._cancelled.discard(goal.number)
                finished(goal.number, False, "refused by franka_gripper")
                return
            self._handles[goal.number] = handle
            if goal.number in self._cancelled:
                handle.cancel_goal_async()
            handle.get_result_async().add_done_callback(ended)

        self._clients[goal.kind].send_goal_async(self._message(goal)).add_done_callback(answered)

    def cancel(self, number: int) -> None:
        """Cancel a goal, at once or when it is accepted."""
        self._cancelled.add(number)
        if number in self._handles:
            self._handles[number].cancel_goal_async()

    def _message(self, goal: Goal) -> Any:
        if goal.kind is Kind.HOMING:
            return self._types.Homing.Goal()
        speed = self._config.speed_m_s
        if goal.kind is Kind.MOVE:
            return self._types.Move.Goal(width=goal.width_m, speed=speed)
        msg = self._types.Grasp.Goal(width=goal.width_m, speed=speed, force=self._config.force_n)
        msg.epsilon.inner, msg.epsilon.outer = goal.inner_m, goal.outer_m
        return msg


class GripperNode(Node):
    """The shell: a set-point, a result or a tick in; what the core answers is sent."""

    def __init__(self, make_hand: Callable[[Node, str, GripperConfig], Hand] = FrankaHand) -> None:
        super().__init__("gripper")
        config = declare_parameters(self, GripperNodeConfig)
        goals = declare_parameters(self, GripperConfig)
        self._arm = load_embodiment(config.embodiment)
        self.core = GripperGoals(goals, self._arm.gripper_width_m)
        self._hand = make_hand(self, config.server, goals)
        self._server, self._begun = config.server, False
        self._told: tuple[object, ...] = ()
        topic = interfaces.DIAGNOSTICS
        self._diagnostics = self.create_publisher(interfaces.message_class(topic.type), topic.name, topic.qos.profile())
        for topic, kind, callback in (
            (interfaces.GRIPPER_COMMAND, GripperCommand, self._on_command),
            (interfaces.GRIPPER_STATES, JointState, self._on_state),
        ):
            self.create_subscription(kind, topic.name, callback, topic.qos.profile())
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self.create_timer(POLL_S, self._poll, clock=steady)
        self.create_timer(1.0, lambda: self._report(), clock=steady)

    def _on_command(self, msg: GripperCommand) -> None:
        self._act(self.core.command(msg.opening, time.monotonic_ns()))

    def _on_state(self, msg: JointState) -> None:
        try:
            self.core.measured(float(pick_joints(msg.name, msg.position, self._arm.gripper_joint_names).sum()))
        except ValueError as error:
            self.get_logger().warning(f"gripper state: {error}", throttle_duration_sec=5.0)

    def _poll(self) -> None:
        begun, self._begun = self._begun, self._hand.is_ready()
        if self._begun:
            self._act((self.core.poll if begun else self.core.ready)(time.monotonic_ns()))
        elif begun:
            self.core.lost(time.monotonic_ns())
            self._act(())

    def _on_finished(self, number: int, success: bool, error: str) -> None:
        self._act(self.core.finished(number, success, error, time.monotonic_ns()))

    def _act(self, acts: Iterable[Act]) -> None:
        for act in acts:
            if isinstance(act, Cancel):
                self._hand.cancel(act.number)
            else:
                self._hand.send(act.goal, self._on_finished)
        status = self.core.status()
        told = (status.phase, status.sent, status.failed, status.fault)
        if told != self._told:
            self._told = told
            self._report()

    def _report(self) -> None:
        """Commanded and achieved on /diagnostics, at every change and once a second; the recorder keeps it."""
        status = self.core.status()
        level, message = (ERROR, status.fault) if status.fault else (OK, status.phase)
        if not self._begun:
            level, message = WARN, f"waits for the actions of {self._server}"
        now_ns = int(self.get_clock().now().nanoseconds)
        self._diagnostics.publish(diagnostics_msg("gripper", level, message, asdict(status), now_ns))


def main(args: Sequence[str] | None = None) -> int:
    """Run the node. Exit status 2: a parameter is wrong, or franka_msgs is missing."""
    return run_node(GripperNode, args)


if __name__ == "__main__":
    sys.exit(main())
