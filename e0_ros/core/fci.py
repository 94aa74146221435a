"""What Franka's control interface (FCI) says of the arm: may it move, and if not, why and what to do.

watch = FciWatch(FciConfig())
watch.hear(FciReport(RobotMode.MOVE), 0)
watch.trouble(10 * MS)                                                  # ""
watch.hear(FciReport(RobotMode.REFLEX, ("joint_reflex",)), 20 * MS)
watch.trouble(20 * MS)                                                  # "reflex: joint_reflex (...)"
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from e0_ros.config import check, setting
from e0_ros.core.arm_setup import NO_PAYLOAD, Payload

_MS = 1_000_000


class RobotMode(IntEnum):
    """franka_msgs/FrankaRobotState's `robot_mode`."""

    OTHER = 0
    IDLE = 1
    MOVE = 2
    GUIDING = 3
    REFLEX = 4
    USER_STOPPED = 5
    AUTOMATIC_ERROR_RECOVERY = 6


MODE_MEANS = {
    RobotMode.OTHER: "not ready: unlock the joints and activate FCI in Desk",
    RobotMode.IDLE: "no controller moves the arm: activate one, or recover",
    RobotMode.GUIDING: "the arm is guided by hand: let it go",
    RobotMode.REFLEX: "reflex",
    RobotMode.USER_STOPPED: "the user stop is pressed: release it, then recover",
    RobotMode.AUTOMATIC_ERROR_RECOVERY: "the arm clears its errors: wait",
}
"""What keeps an arm in that mode from moving, and the way out. MOVE is not among them."""

_CONTACT = "contact above the collision thresholds: clear the way"
_STEP = "a command that no arm can follow: keep the bag and report it"
_LATE = "packets came late: e0 doctor --robot-ip ADDRESS"
ERROR_MEANS = {
    "joint_reflex": _CONTACT,
    "cartesian_reflex": _CONTACT,
    "joint_position_limits_violation": "a joint is at its end: move it away by hand in Desk",
    "joint_velocity_violation": "a joint was too fast: lower velocity_scale",
    "cartesian_velocity_violation": "the hand was too fast: lower velocity_scale",
    "self_collision_avoidance_violation": "the arm came close to itself: move it away by hand in Desk",
    "joint_motion_generator_velocity_limits_violation": _STEP,
    "joint_motion_generator_velocity_discontinuity": _STEP,
    "joint_motion_generator_acceleration_discontinuity": _STEP,
    "controller_torque_discontinuity": "the controller's torque jumped: lower its gains",
    "tau_j_range_violation": "a joint's torque was too high: check the payload set in Desk",
    "power_limit_violation": "too much power: lower velocity_scale and check the payload set in Desk",
    "communication_constraints_violation": _LATE,
    "instability_detected": "the controller oscillates: lower its gains and check the payload set in Desk",
}
"""What to do about the errors that a bench meets; the others have no cure but recovery."""


@dataclass(frozen=True)
class FciReport:
    """One robot state: mode, the names of the errors in force and of those that ended the last motion.

    `success_rate` is the share of control commands that came in time, in [0, 1]; 0 while nothing is controlled.
    `payload` is what the arm reckons with beyond its end effector.
    """

    mode: RobotMode
    errors: tuple[str, ...] = ()
    last_motion_errors: tuple[str, ...] = ()
    success_rate: float = 1.0
    payload: Payload = NO_PAYLOAD


@dataclass(frozen=True)
class FciConfig:
    """When the arm counts as fit to move."""

    state_timeout_ms: float = setting(
        500.0, "longest silence of the robot state before the arm counts as stopped", unit="ms", low=20.0, high=10e3
    )
    require_move: bool = setting(True, "only an arm under control (robot_mode MOVE) may be armed")
    min_success_rate: float = setting(0.9, "share of commands in time below which a warning is given", low=0, high=1)

    def __post_init__(self) -> None:
        check(self)


class FciWatch:
    """Keeps the newest robot state. Times are of the steady clock."""

    def __init__(self, config: FciConfig) -> None:
        self._config = config
        self._report: FciReport | None = None
        self._heard_ns = 0

    @property
    def report(self) -> FciReport | None:
        """The newest state; None before the first."""
        return self._report

    def hear(self, report: FciReport, steady_ns: int) -> None:
        """Take a robot state."""
        self._report, self._heard_ns = report, steady_ns

    def silent(self, steady_ns: int) -> bool:
        """Whether the driver says nothing: it is not up, or it stopped."""
        return self._report is None or (steady_ns - self._heard_ns) / _MS > self._config.state_timeout_ms

    def trouble(self, steady_ns: int) -> str:
        """Why the arm cannot be moved, and what to do, in words; empty if it can."""
        report = self._report
        if report is None:
            return "no robot state has come: is franka_robot_state_broadcaster active?"
        if self.silent(steady_ns):
            limit_ms = self._config.state_timeout_ms
            return f"no robot state for {limit_ms:g} ms: the driver stopped (last mode {report.mode.name}); recover"
        if report.mode is RobotMode.REFLEX:
            return f"reflex: {explained(report.errors or report.last_motion_errors)}"
        if report.mode not in (RobotMode.MOVE, RobotMode.IDLE):
            return MODE_MEANS[report.mode]
        if report.errors:
            return f"errors: {explained(report.errors)}"
        idle = report.mode is RobotMode.IDLE and self._config.require_move
        return MODE_MEANS[RobotMode.IDLE] if idle else ""

    def warning(self, steady_ns: int) -> str:
        """What is not right though the arm can be moved, in words; empty if nothing is."""
        report = self._report
        if report is None or report.mode is not RobotMode.MOVE or self.trouble(steady_ns):
            return ""
        if report.success_rate >= self._config.min_success_rate:
            return ""
        return f"only {report.success_rate:.0%} of the commands reach the arm in time: e0 doctor --robot-ip ADDRESS"

    def beyond_recovery(self, steady_ns: int) -> str:
        """Why software cannot bring the arm back now, in words; empty if it can try, as after a silence, where nothing
        is known of now.
        """
        mode = self._report.mode if self._report and not self.silent(steady_ns) else None
        return MODE_MEANS[mode] if mode in (RobotMode.USER_STOPPED, RobotMode.OTHER, RobotMode.GUIDING) else ""


def explained(errors: tuple[str, ...]) -> str:
    """Names of errors with what to do about them."""
    return ", ".join(f"{e} ({ERROR_MEANS[e]})" if e in ERROR_MEANS else e for e in errors) or "no error is named"
