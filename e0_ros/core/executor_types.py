"""Settings, modes and results of the chunk executor."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from e0_policy.types import ActionChunk, FloatArray
from e0_ros.config import ConfigError, check, setting
from e0_ros.core.admission import AdmissionConfig
from e0_ros.core.bench_calibration import MOST_LAG_MS
from e0_ros.core.command import Command, State
from e0_ros.core.handover import STRATEGIES
from e0_ros.core.workspace import WorkspaceConfig

OUTPUTS = ("joint_trajectory", "impedance", "step")


@dataclass(frozen=True)
class ExecutorConfig(AdmissionConfig, WorkspaceConfig):
    """How chunks become commands."""

    embodiment: str = setting("fr3", "embodiment: a shipped name or the path of a YAML file")
    output: str = setting(
        "joint_trajectory", "controller; step: rows of a simulator's own, lock-step only", choices=OUTPUTS
    )
    lockstep: bool = setting(False, "the bridge owns the tick: every tick sends, nothing leads")
    command_rate_hz: float = setting(50.0, "trajectory messages", unit="Hz", low=1.0, high=1000.0)
    lead_ms: float = setting(
        20.0,
        "a plan changes only from this long after it is sent; longer than a message takes",
        unit="ms",
        low=0,
        high=50,
    )
    stop_lead_ms: float = setting(8.0, "the same for braking", unit="ms", low=0, high=50)
    max_lead_ms: float = setting(
        400.0, "longest of both leads, which grow with the measured delay of messages", unit="ms", low=0, high=2000
    )
    overlap_ms: float = setting(20.0, "a trajectory starts this long before it is sent", unit="ms", low=0, high=200)
    span_ms: float = setting(100.0, "motion in a command before it brakes to rest", unit="ms", low=10, high=1000)
    hand_over: str = setting("committed", "from one plan to the next (e0_ros.core.handover)", choices=STRATEGIES)
    blend_ms: float = setting(100.0, "hand-over between chunks", unit="ms", low=1, high=2000)
    slow_down_ms: float = setting(
        100.0, "a policy's plan that no other follows ends this long after its last row", unit="ms", low=0, high=1000
    )
    latency_ms: float = setting(0.0, "a chunk acts from in_reply_to + this (simulated)", unit="ms", low=0, high=10000)
    exhausted_ms: float = setting(100.0, "time on the last row before a hold", unit="ms", low=0, high=10000)
    joint_max_age_ms: float = setting(50.0, "oldest joint state", unit="ms", low=1, high=1000)
    max_jump_rad: float = setting(0.5, "furthest row in force from the reference", unit="rad", low=0.0, high=7.0)
    max_tracking_error_rad: float = setting(0.3, "furthest joint from the reference", unit="rad", low=0.0, high=7.0)
    velocity_scale: float = setting(0.95, "share of the velocity limit to plan with", low=0.01, high=0.98)
    acceleration_scale: float = setting(0.97, "share of the acceleration limit to plan with", low=0.05, high=0.98)
    jerk_scale: float = setting(0.5, "share of the jerk limit to plan with", low=0.02, high=0.8)
    arm_lag_ms: float = setting(
        0.0, "how long the arm takes to be where its reference is (e0 calibrate latency); plans of machines are "
        "followed that much earlier", unit="ms", low=0.0, high=MOST_LAG_MS,
    )  # fmt: skip
    gripper_hysteresis: float = setting(0.05, "smallest change of opening that is sent", low=0.0, high=1.0)

    def __post_init__(self) -> None:
        check(self)
        if (self.output == "step") != bool(self.step_columns) or (self.step_columns and not self.lockstep):
            raise ConfigError(
                f"output is {self.output!r}, step_columns {self.step_columns}, lockstep {self.lockstep}; output 'step' "
                "needs step_columns above 0 and lockstep, every other output step_columns 0"
            )
        if self.span_ms < 2000.0 / self.command_rate_hz and not self.lockstep:
            raise ConfigError(
                f"ExecutorConfig.span_ms is {self.span_ms} ms; it must cover two messages, "
                f"{2000.0 / self.command_rate_hz} ms at command_rate_hz {self.command_rate_hz}"
            )


class Mode(IntEnum):
    """Modes; the values are those of `e0_msgs/ExecutorState`."""

    DISARMED = 0
    ARMED = 1
    RUNNING = 2
    HOLD = 3
    STOPPED = 4


@dataclass(frozen=True)
class Status:
    """State of the executor at a tick.

    `motion` is the last command, the measured joints before arming, None without any; `gripper_opening` the last one
    that was sent, NaN before the first; `owner` says who has the lease of the arm.
    """

    mode: Mode
    reason: str
    chunk: ActionChunk | None
    committed_until_ns: int
    accepted: int
    refused: int
    last_refusal: str
    limited: int
    at_ns: int
    motion: Command | State | None
    gripper_opening: float
    owner: str = ""

    @property
    def reference(self) -> State | None:
        """Where the arm is to be at `at_ns`; found only when asked for, which most ticks are not."""
        return self.motion.sample(self.at_ns) if isinstance(self.motion, Command) else self.motion


@dataclass(frozen=True)
class Tick:
    """What to send now: a command, a gripper opening (each None if nothing is due), and the state.

    `branch_ns` is from when on the command is another than the one before it. `row` `(columns,)` is what a stepped
    simulator gets instead of a command, None: it stands for this step.
    """

    command: Command | None
    gripper: float | None
    status: Status
    row: FloatArray | None = None
    branch_ns: int = 0
