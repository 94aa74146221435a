"""What franka_ros2 and ros2_control serve: the robot's state, the recovery of errors, hardware and controllers."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

from rclpy.node import Node
from rclpy.serialization import deserialize_message

from e0_ros import interfaces
from e0_ros.config import ConfigError
from e0_ros.core.arm_session import ArmSessionConfig, Step
from e0_ros.core.fci import FciReport, RobotMode

Ended = Callable[[bool, str], None]
_BEST_EFFORT = 1
_ACTIVE = 3
"""`BEST_EFFORT` of controller_manager_msgs/SwitchController, and `PRIMARY_STATE_ACTIVE` of lifecycle_msgs/State."""


def franka_module(name: str) -> Any:
    """A module of messages that comes with franka_ros2.

    Raises:
        ConfigError: it is not installed.

    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"{name} is needed ({error}); build franka_ros2 and source its workspace, or leave the node out: "
            "arm_session:=false"
        ) from None


class FrankaDriver:
    """Client of the driver. Every step ends in one call of `ended`, unless nobody answers.

    Raises:
        ConfigError: franka_msgs or controller_manager_msgs is not installed.

    """

    def __init__(self, node: Node, config: ArmSessionConfig) -> None:
        from rclpy.action import ActionClient

        messages, actions = franka_module("franka_msgs.msg"), franka_module("franka_msgs.action")
        manager = franka_module("controller_manager_msgs.srv")
        self._config, self._actions, self._manager = config, actions, manager
        self._errors = sorted(messages.Errors.get_fields_and_field_types())
        topic = interfaces.ROBOT_STATE
        self._state_type, self._newest = messages.FrankaRobotState, b""
        node.create_subscription(self._state_type, topic.name, self._on_state, topic.qos.profile(), raw=True)
        self._recovery = ActionClient(node, actions.ErrorRecovery, config.error_recovery)
        self._switch = node.create_client(manager.SwitchController, f"{config.manager}/switch_controller")
        name = f"{config.manager}/set_hardware_component_state"
        self._hardware = node.create_client(manager.SetHardwareComponentState, name)

    def newest(self) -> FciReport | None:
        """What has come since the last call: of 1 kHz only the newest is read."""
        newest, self._newest = self._newest, b""
        return self._report(deserialize_message(newest, self._state_type)) if newest else None

    def _on_state(self, data: bytes) -> None:
        self._newest = data

    def _report(self, msg: Any) -> FciReport:
        known = [int(mode) for mode in RobotMode]
        mode = RobotMode(msg.robot_mode) if msg.robot_mode in known else RobotMode.OTHER
        now, last = (
            tuple(name for name in self._errors if getattr(errors, name))
            for errors in (msg.current_errors, msg.last_motion_errors)
        )
        return FciReport(mode, now, last, float(msg.control_command_success_rate))

    def do(self, step: Step, ended: Ended) -> None:
        """Begin one of the driver's steps."""
        config = self._config
        controllers = [config.controller, *config.broadcasters]
        if step is Step.CLEAR:
            self._clear(ended)
        elif step is Step.HARDWARE:
            request = self._manager.SetHardwareComponentState.Request(name=config.hardware)
            request.target_state.id, request.target_state.label = _ACTIVE, "active"
            self._call(self._hardware, request, ended)
        else:
            names = {"activate_controllers": controllers}
            if step is Step.DEACTIVATE:
                names = {"deactivate_controllers": [config.controller]}
            request = self._manager.SwitchController.Request(strictness=_BEST_EFFORT, **names)
            request.timeout.sec = 5
            self._call(self._switch, request, ended)

    def _call(self, client: Any, request: Any, ended: Ended) -> None:
        if not client.service_is_ready():
            ended(False, f"nobody serves {client.srv_name}; is franka_ros2 running?")
            return

        def answered(future: Any) -> None:
            reply = future.result()
            ended(bool(reply.ok), str(getattr(reply, "message", "")) or f"{client.srv_name} refused")

        client.call_async(request).add_done_callback(answered)

    def _clear(self, ended: Ended) -> None:
        if not self._recovery.server_is_ready():
            ended(False, f"nobody serves {self._config.error_recovery}; is franka_ros2 running?")
            return

        def finished(future: Any) -> None:
            succeeded = future.result().status == 4  # action_msgs/GoalStatus.STATUS_SUCCEEDED
            ended(succeeded, "" if succeeded else "the arm did not recover; look into Desk")

        def accepted(future: Any) -> None:
            handle = future.result()
            if handle.accepted:
                handle.get_result_async().add_done_callback(finished)
            else:
                ended(False, "refused")

        self._recovery.send_goal_async(self._actions.ErrorRecovery.Goal()).add_done_callback(accepted)
