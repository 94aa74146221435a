"""Settings of the bridge and the simulator that they choose."""

from __future__ import annotations

from dataclasses import dataclass

from e0_ros.config import ConfigError, check, setting
from sim import simulators
from sim.adapter import RowAdapter, SimAdapter
from sim.camera_shift import REPORTED, CameraShift

MS = 1_000_000
CONTROLLERS = ("joint_trajectory", "impedance", "step")


@dataclass(frozen=True)
class BridgeConfig:
    """Settings of the bridge."""

    simulator: str = setting("fr3_plant", "what plays the robot", choices=simulators.SIMULATORS)
    mode: str = setting("realtime", "pace of time", choices=("realtime", "lockstep"))
    controller: str = setting(
        "joint_trajectory", "whose rules apply: a stock controller, or the simulator's own steps", choices=CONTROLLERS
    )
    embodiment: str = setting("fr3", "arm of fr3_plant; other simulators bring their own")
    views: tuple[str, ...] = setting(("base", "wrist"), "camera views, the reference view first")
    width_px: int = setting(224, "width of the images", unit="px", low=16, high=4096)
    height_px: int = setting(224, "height of the images", unit="px", low=16, high=4096)
    task: str = setting("", "task of the first scene; empty: the simulator's first")
    seed: int = setting(0, "seed of the first scene", low=0)
    control_period_ms: int = setting(50, "time between images of fr3_plant", unit="ms", low=1, high=1000)
    lag_ms: float = setting(0.0, "first-order lag of fr3_plant's arm", unit="ms", low=0.0, high=1e3)
    object_mm: float = setting(0.0, "width of what is between the fingers of fr3_plant", unit="mm", low=0.0, high=80.0)
    joint_state_rate_hz: int = setting(1000, "joint states per second, at most the physics rate", unit="Hz", low=1)
    judge: bool = setting(False, "check every commanded set-point against the robot's limits")
    disturbance_rad: float = setting(0.0, "largest push on a joint while recording", unit="rad", low=0.0, high=0.2)
    disturbance_share: float = setting(1.0, "share of the scenes that are disturbed", low=0.0, high=1.0)
    camera_shift_deg: float = setting(
        0.0, "fixed cameras moved on a sphere about what they look at, another way for each seed", unit="deg",
        low=0.0, high=60.0,
    )  # fmt: skip
    camera_poses: str = setting("nominal", "where moved cameras say that they stand", choices=REPORTED)
    fci: str = setting("", "behave as franka_ros2 of this distribution: robot state, reflexes, recovery, hand",
                       choices=("", "humble", "jazzy"))  # fmt: skip
    fci_states_end: bool = setting(False, "an error ends the robot states too, until the controllers are active again")
    timeout_s: float = setting(10.0, "lock-step: longest wait for an answer", unit="s", low=0.1, high=3600.0)

    def __post_init__(self) -> None:
        check(self)
        stepped = self.simulator in simulators.STEPPED
        if stepped != (self.controller == "step") or (stepped and self.mode != "lockstep"):
            raise ConfigError(
                f"simulator {self.simulator}, controller {self.controller}, mode {self.mode}: controller step and mode "
                f"lockstep go together, for {', '.join(simulators.STEPPED)}"
            )
        if self.fci and self.mode != "realtime":
            raise ConfigError(f"fci {self.fci}, mode {self.mode}: Franka's control needs mode realtime")
        if stepped and (self.disturbance_rad or self.camera_shift_deg):
            raise ConfigError(f"{self.simulator} takes neither disturbance_rad nor camera_shift_deg")


def make_adapter(config: BridgeConfig) -> SimAdapter | RowAdapter:
    """The simulator that the settings choose, imported only now.

    Raises:
        ValueError: what the simulator does not know or have (view, size).
        ImportError: the simulator is not installed.

    """
    size_px, period_ns = (config.width_px, config.height_px), config.control_period_ms * MS
    lag_s, object_m = config.lag_ms / 1e3, config.object_mm / 1e3
    if config.simulator in simulators.STEPPED:
        return simulators.make_row_adapter(config.simulator, config.views, size_px)
    realtime = config.mode == "realtime"
    shift = CameraShift(config.camera_shift_deg, config.camera_poses)
    return simulators.make_adapter(
        config.simulator, config.views, size_px, config.embodiment, period_ns, lag_s, realtime, shift, object_m
    )
