"""Franka's control interface as a bench meets it: robot modes, named errors, and the only order that brings it back.

What is known of franka_ros2 (its documents on error recovery, humble and jazzy): an error ends all motion and the
hardware component with it. On Jazzy the controllers are deactivated then, on Humble they stay and must be deactivated
by hand. The recovery action clears the error; then the hardware can be activated, and then the controllers. Payload and
thresholds are taken while no controller runs ("command not possible in the current mode", franka_ros#25 and #134), and
what was told is lost with the control's restart. As after our launch, the controller is loaded and inactive at first.
"""

from __future__ import annotations

from e0_ros.core.arm_setup import NO_PAYLOAD, Payload
from e0_ros.core.fci import RobotMode

USER_STOP = "user_stopped"
RELEASED = "released"


class Fci:
    """The state machine; every request returns why it is refused, or "".

    Attributes:
        mode, errors, last_motion_errors: as in franka_msgs/FrankaRobotState.
        hardware, controller: whether they are active.
        states_end: whether an error ends the robot states too, with the controllers that tell them; telling: whether
            they come. franka_ros2's documents do not say which it is.
        payload: what the arm reckons with; thresholds: what it was told, by the names of SetFullCollisionBehavior.

    """

    def __init__(self, humble: bool, states_end: bool = False) -> None:
        self._humble, self.states_end, self.telling = humble, states_end, True
        self.mode = RobotMode.IDLE
        self.errors: tuple[str, ...] = ()
        self.last_motion_errors: tuple[str, ...] = ()
        self.hardware, self.controller = True, False
        self.payload = NO_PAYLOAD
        self.thresholds: dict[str, tuple[float, ...]] = {}

    @property
    def stands(self) -> str:
        """Why commands do not move the arm; empty if they do."""
        if self.mode is not RobotMode.MOVE:
            return f"robot mode {self.mode.name}" + (f": {', '.join(self.errors)}" if self.errors else "")
        return ""

    def fail(self, error: str) -> None:
        """An error of that name, `user_stopped` for the stop button, `released` to let it go."""
        if error == RELEASED:
            self.mode = RobotMode.IDLE if self.mode is RobotMode.USER_STOPPED else self.mode
            return
        pressed = error == USER_STOP or self.mode is RobotMode.USER_STOPPED
        self.mode = RobotMode.USER_STOPPED if pressed else RobotMode.REFLEX
        if error != USER_STOP:
            self.errors = self.last_motion_errors = tuple(dict.fromkeys((*self.errors, error)))
        self.hardware = False
        self.telling = not self.states_end
        if not self._humble:
            self.controller = False

    def recover(self) -> str:
        """Clear the errors."""
        if self._humble and self.controller:
            return "a controller is still active"
        if self.mode is RobotMode.USER_STOPPED:
            return "the user stop is pressed"
        self.mode, self.errors = (RobotMode.MOVE if self.controller else RobotMode.IDLE), ()
        return ""

    def activate_hardware(self) -> str:
        """Activate the hardware component."""
        if self.errors or self.mode is RobotMode.USER_STOPPED:
            return "the arm has errors"
        self.hardware = True
        return ""

    def set_load(self, payload: Payload) -> str:
        """Take a payload."""
        if refused := self._busy("Set Load"):
            return refused
        self.payload = payload
        return ""

    def set_thresholds(self, thresholds: dict[str, tuple[float, ...]]) -> str:
        """Take thresholds of contact and collision."""
        if refused := self._busy("Set Collision Behavior"):
            return refused
        self.thresholds = thresholds
        return ""

    def _busy(self, command: str) -> str:
        idle = self.mode is RobotMode.IDLE
        return "" if idle else f"libfranka: {command} command rejected: command not possible in the current mode!"

    def switch(self, activate: bool, deactivate: bool) -> str:
        """Activate or deactivate the arm's controller, and the broadcasters that an error has ended."""
        if deactivate:
            self.controller = False
            self.mode = RobotMode.IDLE if self.mode is RobotMode.MOVE else self.mode
        if activate and not self.hardware:
            return "the hardware is not active"
        if activate:
            self.controller, self.telling, self.mode = True, True, RobotMode.MOVE
        return ""
