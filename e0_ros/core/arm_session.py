"""What one key does with an arm: recover it from an error in the right order, bring it to a pose, arm it again.

session = ArmSession(recovery(KNOWN["humble"].deactivate_first, rearm=True))
session.begin(now_ns)                    # Step.DEACTIVATE: do it, and say how it ended
session.ended(True, "", now_ns)          # Step.CLEAR; HARDWARE, SETTINGS, DISARM, ACTIVATE, FIT, ARM, HOME, ARM, None
session.outcome                          # "" while it goes on and after success, else which step failed, and why

Nothing here reads a clock; times are of the steady clock.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import numpy as np

from e0_policy.types import MAX_ROWS, FloatArray
from e0_ros.config import ConfigError, check, setting

_S = 1_000_000_000
_PERIOD_NS = 50_000_000
WAVE_S, WAVE_PERIOD_NS = 12.0, 40_000_000
_PEAK = 1.875
"""Peak speed of a minimum-jerk move over its mean speed."""
NOT_READY = "the arm is not ready: payload and thresholds are not set, or its controller is not active"
"""Begins what `arm_session` says of an arm that it makes ready by itself; every other fault wants somebody."""


class Step(Enum):
    """What is done; the value says it in words."""

    DEACTIVATE = "deactivate the controllers"
    CLEAR = "clear the errors"
    HARDWARE = "activate the hardware"
    SETTINGS = "set payload and thresholds"
    ACTIVATE = "activate the controllers"
    FIT = "wait for a fit arm"
    HOLD = "stop where it is"
    ARM = "arm"
    HOME = "move home"
    REST = "move to the rest pose"
    WAVE = "wave"
    DISARM = "disarm"


@dataclass(frozen=True)
class ArmSessionConfig:
    """How the arm is brought back and where it goes."""

    distribution: str = setting("", "of franka_ros2: humble, jazzy or kilted; empty: ROS_DISTRO")
    controller: str = setting("joint_trajectory_controller", "the controller that executes commands")
    broadcasters: tuple[str, ...] = setting(
        ("joint_state_broadcaster", "franka_robot_state_broadcaster"), "controllers that an error may have ended too"
    )
    hardware: str = setting("FrankaHardwareInterface", "name of ros2_control's hardware component")
    manager: str = setting("/controller_manager", "name of the controller manager")
    error_recovery: str = setting("/action_server/error_recovery", "name of Franka's recovery action")
    step_s: float = setting(20.0, "longest step of a recovery", unit="s", low=1.0, high=300.0)
    rearm: bool = setting(True, "after a recovery the arm is armed at home; false: it stays disarmed there")
    pose_speed_rad_s: float = setting(0.3, "fastest joint of a move to a pose", unit="rad/s", low=0.02, high=1.0)
    home_rad: tuple[float, ...] = setting((), "home; empty: that of the embodiment", unit="rad", low=-7.0, high=7.0)
    rest_rad: tuple[float, ...] = setting(
        (0.0, -1.2, 0.0, -2.7, 0.0, 1.6, 0.785), "rest pose", unit="rad", low=-7.0, high=7.0
    )

    def __post_init__(self) -> None:
        check(self)


def recovery(deactivate_first: bool, rearm: bool, settings: bool = True) -> tuple[Step, ...]:
    """Steps after an error of the arm. The order is franka_ros2's: its hardware cannot be activated with an error, and
    no controller on hardware that is not active. `settings`: what was set may be lost with the connection. DISARM has
    the executor's impedance target where the arm now is, before a controller goes there.
    """
    before = (Step.DEACTIVATE,) if deactivate_first else ()
    told = (Step.SETTINGS,) if settings else ()
    after = Step.ARM if rearm else Step.DISARM
    begin = Step.CLEAR, Step.HARDWARE, *told, Step.DISARM, Step.ACTIVATE
    return (*before, *begin, Step.FIT, Step.ARM, Step.HOME, after)


def get_ready(settings: bool = True) -> tuple[Step, ...]:
    """Steps from a driver that has just come up to an arm that may be armed. Settings need a controller that rests."""
    told = (Step.DEACTIVATE, Step.HARDWARE, Step.SETTINGS) if settings else (Step.HARDWARE,)
    return (*told, Step.DISARM, Step.ACTIVATE, Step.FIT)


def to_pose(pose: Step) -> tuple[Step, ...]:
    """Steps to a pose, at the end of which nothing of ours moves the arm: `pose` is HOME, REST or WAVE."""
    return (Step.HOLD, Step.ARM, pose, Step.DISARM)


class ArmSession:
    """Goes through steps, one at a time; each ends by `ended`, or by its time."""

    def __init__(self, steps: tuple[Step, ...], step_s: float = 20.0) -> None:
        self._steps, self._limit_ns = steps, int(step_s * _S)
        self._at, self._since_ns = -1, 0
        self.outcome = ""
        self.waits_for = ""
        """Why the step under way is tried again and again; told if it does not end in time."""

    @property
    def step(self) -> Step | None:
        """The step that is under way; None before the first, and when all is over."""
        running = 0 <= self._at < len(self._steps) and not self.outcome
        return self._steps[self._at] if running else None

    @property
    def progress(self) -> str:
        """In words."""
        step = self.step
        return f"{self._at + 1} of {len(self._steps)}: {step.value}" if step else self.outcome or "done"

    def begin(self, now_ns: int) -> Step | None:
        """The first step."""
        self._at, self._since_ns = 0, now_ns
        return self.step

    def ended(self, well: bool, reason: str, now_ns: int) -> Step | None:
        """Take how the step under way ended; the next one, None if there is none."""
        step = self.step
        if step is None:
            return None
        if not well:
            self.outcome = f"could not {step.value}: {reason}"
            return None
        self._at, self._since_ns, self.waits_for = self._at + 1, now_ns, ""
        return self.step

    def late(self, now_ns: int, allowed_ns: int = 0) -> bool:
        """Whether the step under way takes too long; that ends all. `allowed_ns`: if it may take longer than others."""
        step = self.step
        waited_ns = now_ns - self._since_ns
        if step is None or waited_ns <= max(self._limit_ns, allowed_ns):
            return False
        self.outcome = f"could not {step.value} in {waited_ns / 1e9:.0f} s: {self.waits_for or 'no answer'}"
        return True


@dataclass(frozen=True)
class Approach:
    """A move between two poses at rest: `rows` `(r, joints)` [rad], `period_ns` apart."""

    rows: FloatArray
    period_ns: int

    @property
    def duration_ns(self) -> int:
        """From the first row to the last."""
        return (len(self.rows) - 1) * self.period_ns


def approach(start: FloatArray, goal: FloatArray, speed_rad_s: float) -> Approach:
    """A minimum-jerk move (Flash and Hogan 1985), all joints at once, none faster than `speed_rad_s`; at least 1 s."""
    duration_s = max(_PEAK * float(np.abs(goal - start).max()) / speed_rad_s, 1.0)
    period_ns = max(_PERIOD_NS, int(duration_s * _S / (MAX_ROWS - 2)))
    s = np.linspace(0.0, 1.0, int(np.ceil(duration_s * _S / period_ns)) + 1)
    share = s**3 * (10 - 15 * s + 6 * s**2)
    return Approach(start + share[:, None] * (goal - start), period_ns)


def wave(start: FloatArray, lower: FloatArray, upper: FloatArray) -> Approach:
    """A motion whose every second differs, around where the arm stands and back there: to measure latencies by.

    The first and the fourth joint swing by 0.1 and 0.05 rad, 0.4 to 1.1 times a second and ever faster, growing from
    rest and fading to it over a second; within the limits.
    """
    t = np.arange(0.0, WAVE_S, WAVE_PERIOD_NS / 1e9)
    phase = 2 * np.pi * (0.4 * t + 0.5 * (1.1 - 0.4) / WAVE_S * t**2)
    s = np.clip(np.minimum(t, t[-1] - t), 0.0, 1.0)
    swing = s**3 * (10 - 15 * s + 6 * s**2) * np.sin(phase)
    rows = np.tile(start, (len(t), 1))
    for joint, size in ((0, 0.1), (3, 0.05)):
        rows[:, joint] += size * swing
    return Approach(np.clip(rows, lower, upper), WAVE_PERIOD_NS)


def checked_pose(name: str, pose: tuple[float, ...], lower: FloatArray, upper: FloatArray) -> FloatArray:
    """A pose `(joints,)` inside an arm's limits.

    Raises:
        ConfigError: it has another number of joints, or one of them is beyond its limit.

    """
    q = np.array(pose, np.float64)
    if q.shape != lower.shape:
        raise ConfigError(f"ArmSessionConfig.{name} has {q.size} joints; the arm has {lower.size}")
    outside = np.flatnonzero((q < lower) | (q > upper))
    if outside.size:
        i = int(outside[0])
        raise ConfigError(f"ArmSessionConfig.{name}: joint {i + 1} is {q[i]} rad; allowed is {lower[i]} to {upper[i]}")
    return q
