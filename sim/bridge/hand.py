"""The bridge as franka_gripper: its three actions, and the fingers' joint states at its own rate."""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING, Any

from rclpy.action import ActionServer, CancelResponse

from e0_ros import interfaces
from e0_ros.config import ConfigError
from e0_ros.graph import HAND_HZ
from sim.hand import BACK, DIED, Ended, Goal, Hand, S
from sim.rig import Played

if TYPE_CHECKING:
    from sim.bridge.node import Bridge

FEEDBACK_NS = S // 30
SERVER = interfaces.GRIPPER_STATES.name.rpartition("/")[0]
STATE_NS = round(S / HAND_HZ)


class HandFace:
    """Serves what franka_gripper serves, with the plant's gripper for fingers. A reset of the scene does not reset it.

    Raises:
        ConfigError: franka_msgs is not installed.

    """

    def __init__(self, bridge: Bridge) -> None:
        try:
            from franka_msgs import action
        except ModuleNotFoundError as error:
            raise ConfigError(f"a hand needs franka_msgs ({error}); source franka_ros2's workspace") from None
        self._bridge, self._max_m = bridge, bridge.rig.arm.gripper_width_m
        self._actions = {"homing": action.Homing, "move": action.Move, "grasp": action.Grasp}
        self._hand, self._numbers = Hand(self._max_m), count(1)
        self._handles: dict[int, tuple[str, Any]] = {}
        self._servers: list[ActionServer] = []
        self._said_ns = self._fed_ns = 0
        self._serve()
        topic = interfaces.SIM_FAULT
        kind = interfaces.message_class(topic.type)
        bridge.create_subscription(kind, topic.name, lambda msg: self._fail(msg.data), topic.qos.profile())

    @property
    def _width_m(self) -> float:
        return self._bridge.rig.adapter.gripper_opening() * self._max_m

    def _serve(self) -> None:
        self._servers = [
            ActionServer(
                self._bridge,
                kind,
                f"{SERVER}/{name}",
                lambda _: None,
                handle_accepted_callback=lambda handle, name=name: self._begin(name, handle),
                cancel_callback=self._cancel,
            )
            for name, kind in self._actions.items()
        ]

    def _fail(self, word: str) -> None:
        """franka_gripper ends with the goals that it has, or is there again."""
        if word == DIED:
            for server in self._servers:
                server.destroy()
            self._servers.clear()
            self._handles.clear()
            self._hand.die()
        elif word == BACK and not self._servers:
            self._serve()

    def _begin(self, name: str, handle: Any) -> None:
        number, goal = next(self._numbers), goal_of(name, handle.request)
        self._handles[number] = name, handle
        self._bridge.get_logger().info(f"hand: {goal}, {len(self._handles)} running")
        self._hand.begin(number, goal, self._width_m)

    def _cancel(self, handle: Any) -> CancelResponse:
        self._hand.cancel(next((n for n, (_, h) in self._handles.items() if h is handle), 0))
        return CancelResponse.ACCEPT

    def advance(self, played: Played) -> None:
        """Move the fingers' command on by what the plant has played, end goals, and publish what is due."""
        rig = self._bridge.rig
        ended = self._hand.advance(len(played.samples) * rig.adapter.physics_period_ns, self._width_m)
        rig.gripper_target = self._hand.command_m / self._max_m
        for end in ended:
            self._end(end)
        if self._handles and rig.now_ns - self._fed_ns >= FEEDBACK_NS:
            self._fed_ns = rig.now_ns
            for name, handle in self._handles.values():
                handle.publish_feedback(self._actions[name].Feedback(current_width=self._width_m))
        if self._servers and rig.now_ns - self._said_ns >= STATE_NS:
            self._said_ns = max(self._said_ns, rig.now_ns - 2 * STATE_NS) + STATE_NS
            self._bridge.out.gripper(rig.adapter.gripper_opening(), rig.now_ns)

    def _end(self, end: Ended) -> None:
        name, handle = self._handles.pop(end.number)
        result = self._actions[name].Result(success=end.success, error=end.error)
        said = "done" if end.success else end.error
        self._bridge.get_logger().info(f"hand: {name} ended at {self._width_m:.3f} m: {said}")

        def finish(handle: Any) -> Any:
            if end.cancelled:
                handle.canceled()
            else:
                handle.succeed() if end.success else handle.abort()
            return result

        handle.execute(finish)


def goal_of(name: str, request: Any) -> Goal:
    """The goal of a request of franka_msgs."""
    if name == "homing":
        return Goal(name)
    if name == "move":
        return Goal(name, request.width, request.speed)
    tolerances = request.epsilon.inner, request.epsilon.outer
    return Goal(name, request.width, request.speed, *tolerances, request.force)
