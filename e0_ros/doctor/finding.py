"""What a check finds, and what it is asked about."""

from __future__ import annotations

from dataclasses import dataclass

from e0_ros.config import ConfigError, check, setting
from e0_ros.core.camera_model import camera_profile
from e0_ros.core.pairing import SyncConfig

GREEN, YELLOW, RED, GREY = "green", "yellow", "red", "grey"
LEVELS = (RED, YELLOW, GREY, GREEN)


@dataclass(frozen=True)
class Finding:
    """What was seen, and the cure if something is wrong. Grey: not to be seen from here; `cure` says how it could."""

    level: str
    seen: str
    cure: str = ""

    def __post_init__(self) -> None:
        if self.level not in LEVELS or (self.level in (YELLOW, RED) and not self.cure):
            raise ValueError(f"{self.level!r} finding {self.seen!r}; yellow and red need a cure")


def green(seen: str) -> Finding:
    """All is well."""
    return Finding(GREEN, seen)


def yellow(seen: str, cure: str) -> Finding:
    """Works, but is known to cause trouble."""
    return Finding(YELLOW, seen, cure)


def red(seen: str, cure: str) -> Finding:
    """Does not work, or will fail in operation."""
    return Finding(RED, seen, cure)


def grey(seen: str, cure: str = "") -> Finding:
    """Not seen; says why."""
    return Finding(GREY, seen, cure)


@dataclass(frozen=True)
class Bench:
    """What this host is meant to do. Without an arm (`robot_ip`) what only an arm needs is yellow instead of red."""

    robot_ip: str = setting("", "address of the arm's control unit: this host drives the arm")
    system_image: str = setting("", "system version that the arm's Desk shows, e.g. 5.9.0")
    peers: tuple[str, ...] = setting((), "other hosts that run nodes of the graph")
    views: tuple[str, ...] = setting(("base", "wrist"), "camera views, the reference view first")
    camera_profile: str = setting("640x480x30", "width x height x rate [Hz] of every camera")
    depth: bool = setting(False, "the cameras send depth too")
    joint_rate_hz: float = setting(1000.0, "rate of the joint states", unit="Hz", low=5.0, high=4000.0)
    gripper_rate_hz: float = setting(15.0, "rate of the gripper states", unit="Hz", low=1.0, high=1000.0)
    gello: bool = setting(False, "a GELLO leader arm is connected here")
    controllers: str = setting("", "the controllers' YAML file; empty: the shipped one, as for the launch")
    checkpoint: str = setting("", "folder of the policy's checkpoint")
    bag_dir: str = setting("bags", "folder of the bags")
    measure_s: float = setting(10.0, "how long the streams are listened to", unit="s", low=1.0, high=600.0)

    def __post_init__(self) -> None:
        check(self)
        self.streams()
        if self.robot_ip.startswith("-"):
            raise ConfigError(f"robot_ip is {self.robot_ip!r}; an address or a name is needed")

    def profile(self) -> tuple[int, int, int]:
        """Width [px], height [px] and rate [Hz] of every camera.

        Raises:
            ConfigError: not of the form 640x480x30.

        """
        return camera_profile(self.camera_profile)

    def streams(self) -> SyncConfig:
        """Rates and bounds of the streams that a policy sees."""
        return SyncConfig(
            views=self.views,
            camera_rate_hz=float(self.profile()[2]),
            joint_rate_hz=self.joint_rate_hz,
            gripper_rate_hz=self.gripper_rate_hz,
        )

    def fault(self, seen: str, cure: str) -> Finding:
        """Red on the host that drives the arm, else yellow: only the arm's 1 kHz loop needs it."""
        return red(seen, cure) if self.robot_ip else yellow(f"{seen} (matters where the arm is driven)", cure)
