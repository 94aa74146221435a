"""What franka_ros2 and ros2_control serve: the robot's state and settings, the recovery of errors, controllers.

Names and fields: franka_ros2 v2.1.0 to v2.5.0 and v3.0.0 to v3.4.0 (franka_msgs is the same in all of them),
controller_manager_msgs of Humble and Jazzy.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

from rclpy.node import Node

from e0_ros import interfaces
from e0_ros.config import ConfigError
from e0_ros.conversions import deserialize, stamp_of
from e0_ros.core.arm_session import ArmSessionConfig, Step
from e0_ros.core.arm_setup import ArmSetupConfig, HostClock, Payload
from e0_ros.core.fci import FciReport, RobotMode

Ended = Callable[[bool, str], None]
LIST_S = 1.0
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

    Attributes:
        controllers: state by controller as it was told last, `LIST_S` apart; None before, and while nobody answers.
        clock: offset of the clock of the driver's host.

    Raises:
        ConfigError: franka_msgs or controller_manager_msgs is not installed.

    """

    def __init__(self, node: Node, config: ArmSessionConfig, setup: ArmSetupConfig) -> None:
        from rclpy.action import ActionClient

        messages, actions = franka_module("franka_msgs.msg"), franka_module("franka_msgs.action")
        manager = franka_module("controller_manager_msgs.srv")
        self._node, self._config, self._setup = node, config, setup
        self._actions, self._manager, self._services = actions, manager, franka_module("franka_msgs.srv")
        self.controllers: dict[str, str] | None = None
        self.clock = HostClock()
        self._errors = sorted(messages.Errors.get_fields_and_field_types())
        topic = interfaces.ROBOT_STATE
        self._state_type, self._newest = messages.FrankaRobotState, b""
        node.create_subscription(self._state_type, topic.name, self._on_state, topic.qos.profile(), raw=True)
        self._recovery = ActionClient(node, actions.ErrorRecovery, config.error_recovery)
        self._switch = node.create_client(manager.SwitchController, f"{config.manager}/switch_controller")
        name = f"{config.manager}/set_hardware_component_state"
        self._hardware = node.create_client(manager.SetHardwareComponentState, name)
        self._list = node.create_client(manager.ListControllers, f"{config.manager}/list_controllers")
        self._load = node.create_client(self._services.SetLoad, f"{setup.service_server}/set_load")
        name = f"{setup.service_server}/set_full_collision_behavior"
        self._thresholds = node.create_client(self._services.SetFullCollisionBehavior, name)
        self._asked_s = -LIST_S

    def newest(self) -> FciReport | None:
        """What has come since the last call: of 1 kHz only the newest is read. None too if that is no robot state."""
        newest, self._newest = self._newest, b""
        try:
            return self._report(deserialize(newest, self._state_type)) if newest else None
        except ValueError as error:
            self._refuse(error)
            return None

    def _on_state(self, data: bytes) -> None:
        try:
            stamp_ns = stamp_of(data)
        except ValueError as error:
            self._refuse(error)
            return
        self._newest = data
        self.clock.hear(stamp_ns, self._node.get_clock().now().nanoseconds)

    def _refuse(self, error: ValueError) -> None:
        self._node.get_logger().warning(f"{interfaces.ROBOT_STATE.name}: {error}", throttle_duration_sec=5.0)

    def ask_controllers(self, steady_s: float) -> None:
        """Ask for the states of the controllers, if it is time to."""
        if steady_s - self._asked_s < LIST_S:
            return
        self._asked_s = steady_s
        if not self._list.service_is_ready():
            self.controllers = None
            return

        def answered(future: Any) -> None:
            self.controllers = {c.name: c.state for c in future.result().controller}

        self._list.call_async(self._manager.ListControllers.Request()).add_done_callback(answered)

    def _report(self, msg: Any) -> FciReport:
        known = [int(mode) for mode in RobotMode]
        mode = RobotMode(msg.robot_mode) if msg.robot_mode in known else RobotMode.OTHER
        now, last = (
            tuple(name for name in self._errors if getattr(errors, name))
            for errors in (msg.current_errors, msg.last_motion_errors)
        )
        load = msg.inertia_load.inertia
        payload = Payload(load.m, (load.com.x, load.com.y, load.com.z))
        return FciReport(mode, now, last, float(msg.control_command_success_rate), payload)

    def do(self, step: Step, ended: Ended) -> None:
        """Begin one of the driver's steps."""
        config = self._config
        controllers = [config.controller, *config.broadcasters]
        if step is Step.CLEAR:
            self._clear(ended)
        elif step is Step.SETTINGS:
            self._tell_load(ended)
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

    def _tell_load(self, ended: Ended) -> None:
        setup = self._setup
        load = self._services.SetLoad.Request(
            mass=setup.load_mass_kg, center_of_mass=list(setup.load_center_m), load_inertia=setup.inertia_matrix()
        )

        def then(well: bool, reason: str) -> None:
            self._tell_thresholds(ended) if well else ended(False, reason)

        self._call(self._load, load, then)

    def _tell_thresholds(self, ended: Ended) -> None:
        setup = self._setup
        request = self._services.SetFullCollisionBehavior.Request()
        for phase in ("acceleration", "nominal"):
            setattr(request, f"lower_torque_thresholds_{phase}", list(setup.contact_torque_nm))
            setattr(request, f"upper_torque_thresholds_{phase}", list(setup.collision_torque_nm))
            setattr(request, f"lower_force_thresholds_{phase}", list(setup.contact_force))
            setattr(request, f"upper_force_thresholds_{phase}", list(setup.collision_force))
        self._call(self._thresholds, request, ended)

    def _call(self, client: Any, request: Any, ended: Ended) -> None:
        if not client.service_is_ready():
            ended(False, f"nobody serves {client.srv_name}; is franka_ros2 running?")
            return

        def answered(future: Any) -> None:
            reply = future.result()  # ros2_control's have ok and, but for Humble, message; Franka's success and error
            well = bool(getattr(reply, "ok", False) or getattr(reply, "success", False))
            reason = str(getattr(reply, "message", "") or getattr(reply, "error", ""))
            ended(well, f"{client.srv_name}: {reason or 'refused'}")

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
