"""Franka's control interface as a bench meets it: robot modes, named errors, and the only order that brings it back.

What is known of franka_ros2 (its documents on error recovery, humble and jazzy): an error ends all motion and the
hardware component with it. On Jazzy the controllers are deactivated then, on Humble they stay and must be deactivated
by hand. The recovery action clears the error; then the hardware can be activated, and then the controllers.
"""

from __future__ import annotations

from e0_ros.core.fci import RobotMode

USER_STOP = "user_stopped"
RELEASED = "released"


class Fci:
    """The state machine; every request returns why it is refused, or "".

    Attributes:
        mode, errors, last_motion_errors: as in franka_msgs/FrankaRobotState.
        hardware, controller: whether they are active.

    """

    def __init__(self, humble: bool) -> None:
        self._humble = humble
        self.mode = RobotMode.MOVE
        self.errors: tuple[str, ...] = ()
        self.last_motion_errors: tuple[str, ...] = ()
        self.hardware = self.controller = True

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
        if error == USER_STOP:
            self.mode = RobotMode.USER_STOPPED
        else:
            self.mode = RobotMode.REFLEX
            self.errors = self.last_motion_errors = tuple(dict.fromkeys((*self.errors, error)))
        self.hardware = False
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

    def switch(self, activate: bool, deactivate: bool) -> str:
        """Activate or deactivate the arm's controller."""
        if deactivate:
            self.controller = False
            self.mode = RobotMode.IDLE if self.mode is RobotMode.MOVE else self.mode
        if activate and not self.hardware:
            return "the hardware is not active"
        if activate:
            self.controller, self.mode = True, RobotMode.MOVE
        return ""
