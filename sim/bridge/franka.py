"""The bridge as franka_ros2: robot state, recovery action, and the controller manager's services around it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rclpy.action import ActionServer
from sensor_msgs.msg import JointState

from e0_ros import interfaces
from e0_ros.config import ConfigError
from e0_ros.conversions import to_time
from e0_ros.core.arm_session import ArmSessionConfig
from e0_ros.core.arm_setup import ArmSetupConfig, Payload
from e0_ros.core.fci import RobotMode
from e0_ros.drivers import CONTROLLERS
from sim.fci import RELEASED, USER_STOP, Fci
from sim.hand import BACK, DIED

if TYPE_CHECKING:
    from sim.bridge.node import Bridge

STATE_NS = 10_000_000
"""Between two robot states; franka_ros2 has 1 kHz."""
NAMES = ArmSessionConfig()
SERVER = ArmSetupConfig().service_server


class FrankaFace:
    """Serves what a driver serves and lets the plant stand while the arm has an error.

    Attributes:
        fci: the arm's control.
        silent: no robot states come, as from a driver that died.

    Raises:
        ConfigError: franka_msgs or controller_manager_msgs is not installed.

    """

    def __init__(self, bridge: Bridge, distribution: str, states_end: bool = False) -> None:
        try:
            from controller_manager_msgs.msg import ControllerState
            from controller_manager_msgs.srv import ListControllers, SetHardwareComponentState, SwitchController
            from franka_msgs.action import ErrorRecovery
            from franka_msgs.msg import FrankaRobotState
            from franka_msgs.srv import SetFullCollisionBehavior, SetLoad
        except ModuleNotFoundError as error:
            raise ConfigError(
                f"fci:={distribution} needs franka_ros2's messages ({error}); source its workspace"
            ) from None
        self._bridge, self._state, self._result = bridge, FrankaRobotState, ErrorRecovery.Result
        self._controller, self._name = ControllerState, CONTROLLERS[bridge.config.controller]
        self.silent = False
        self.fci = Fci(distribution == "humble", states_end)
        self._states = bridge.create_publisher(FrankaRobotState, interfaces.ROBOT_STATE.name, 1)
        self._joints = [
            bridge.create_publisher(JointState, topic.name, topic.qos.profile())
            for topic in (interfaces.MEASURED_JOINTS, interfaces.DESIRED_JOINTS)
        ]
        self._said_ns = 0
        topic = interfaces.SIM_FAULT
        kind = interfaces.message_class(topic.type)
        self._known = {*FrankaRobotState().current_errors.get_fields_and_field_types(), USER_STOP, RELEASED}
        bridge.create_subscription(kind, topic.name, lambda msg: self._hear(msg.data), topic.qos.profile())
        self._recovery = ActionServer(bridge, ErrorRecovery, NAMES.error_recovery, self._recover)
        bridge.create_service(SwitchController, f"{NAMES.manager}/switch_controller", self._switch)
        name = f"{NAMES.manager}/set_hardware_component_state"
        bridge.create_service(SetHardwareComponentState, name, self._activate_hardware)
        bridge.create_service(ListControllers, f"{NAMES.manager}/list_controllers", self._list)
        bridge.create_service(SetLoad, f"{SERVER}/set_load", self._set_load)
        bridge.create_service(SetFullCollisionBehavior, f"{SERVER}/set_full_collision_behavior", self._set_thresholds)
        self.follow()

    def _hear(self, error: str) -> None:
        if error in self._known:
            self.fail(error)
        elif error not in (DIED, BACK):
            words = f"{interfaces.SIM_FAULT.name}: Franka has no error {error[:80]!r}"
            self._bridge.get_logger().warning(words, throttle_duration_sec=5.0)

    def fail(self, error: str) -> None:
        """The arm stops with one of Franka's errors."""
        self.fci.fail(error)
        self.follow()

    def follow(self) -> None:
        """Let the arm stand while its control has an error, whatever has happened to it meanwhile."""
        rig, stands = self._bridge.rig, self.fci.stands
        if stands and not rig.fault:
            self._bridge.get_logger().warning(f"the arm stops: {stands}")
            rig.halt(stands)
        elif not stands and rig.fault:
            rig.go_on()

    def advance(self) -> None:
        """Publish what is due: the robot's state, and joints as measured and as commanded last."""
        rig = self._bridge.rig
        if rig.now_ns - self._said_ns < STATE_NS or self.silent or not self.fci.telling:
            return
        self._said_ns = max(self._said_ns, rig.now_ns - 2 * STATE_NS) + STATE_NS
        self.publish()
        sample = rig.sample()
        measured = sample.positions, sample.velocities, sample.efforts
        for publisher, values in zip(self._joints, (measured, (*rig.desired, sample.efforts * 0.0)), strict=True):
            msg = JointState(name=list(rig.arm.joint_names))
            msg.header.stamp, msg.header.frame_id = to_time(rig.now_ns), rig.arm.base_frame
            msg.position, msg.velocity, msg.effort = (value.tolist() for value in values)
            publisher.publish(msg)

    def publish(self) -> None:
        """Publish the robot's state."""
        if self.silent or not self.fci.telling:
            return
        fci, msg = self.fci, self._state(robot_mode=int(self.fci.mode))
        msg.header.stamp = to_time(self._bridge.rig.now_ns)
        msg.control_command_success_rate = float(fci.mode is RobotMode.MOVE)
        load = msg.inertia_load.inertia
        load.m, (load.com.x, load.com.y, load.com.z) = fci.payload.mass_kg, fci.payload.center_m
        for field, names in ((msg.current_errors, fci.errors), (msg.last_motion_errors, fci.last_motion_errors)):
            for name in names:
                if hasattr(field, name):
                    setattr(field, name, True)
        self._states.publish(msg)

    def _recover(self, handle: Any) -> Any:
        refused = self._done("error recovery", self.fci.recover())
        handle.abort() if refused else handle.succeed()
        return self._result()

    def _switch(self, request: Any, response: Any) -> Any:
        activate = self._name in request.activate_controllers
        deactivate = self._name in request.deactivate_controllers
        response.ok = not self._done("switch", self.fci.switch(activate, deactivate))
        return response

    def _list(self, _: Any, response: Any) -> Any:
        states = dict.fromkeys(NAMES.broadcasters, "active" if self.fci.telling else "inactive")
        states[self._name] = "active" if self.fci.controller else "inactive"
        response.controller = [self._controller(name=name, state=state) for name, state in states.items()]
        return response

    def _set_load(self, request: Any, response: Any) -> Any:
        x, y, z = map(float, request.center_of_mass)
        response.error = self._done("load", self.fci.set_load(Payload(float(request.mass), (x, y, z))))
        response.success = not response.error
        return response

    def _set_thresholds(self, request: Any, response: Any) -> Any:
        names = request.get_fields_and_field_types()
        told = {name: tuple(map(float, getattr(request, name))) for name in names}
        response.error = self._done("thresholds", self.fci.set_thresholds(told))
        response.success = not response.error
        return response

    def _activate_hardware(self, request: Any, response: Any) -> Any:
        response.ok = not self._done("hardware", self.fci.activate_hardware())
        return response

    def _done(self, what: str, refused: str) -> str:
        self._bridge.get_logger().info(f"fci: {what}: {refused or 'done'}")
        self.follow()
        return refused
