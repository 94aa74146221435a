"""What Franka's control is told before a controller runs, and what must be right before an arm may be armed.

clock = HostClock()
clock.hear(stamp_ns, now_ns)             # every robot state
clock.trouble(5.0)                       # "the clock of the arm's host is 34.0 ms behind this one: chrony on both"

Franka's control takes a payload and thresholds only while no controller runs ("command not possible in the current
mode", franka_ros#25 and #134), so they come before activation. It tells the payload that it has in every robot state;
of the thresholds there is only the answer of the service.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from e0_ros.config import ConfigError, check, setting

_MS, _WINDOW_NS = 1_000_000, 1_000_000_000
_MASS_KG, _CENTER_M = 0.001, 0.001
"""How far a payload may be from what was told; the control keeps numbers in single precision."""


@dataclass(frozen=True)
class ArmSetupConfig:
    """Payload beyond the end effector that Desk knows (a camera on the flange); thresholds of contact and collision.

    Thresholds are the `lower` (contact, only told) and `upper` (collision, a reflex) of franka_msgs'
    SetFullCollisionBehavior, the same at constant speed and while accelerating. Defaults: those of franka_ros2's
    example controllers (default_robot_behavior_utils.hpp, v2.5.0 and v3.4.0).
    """

    set_up: bool = setting(True, "tell the arm its payload and thresholds; false: they stay what they are")
    service_server: str = setting("/service_server", "name of Franka's parameter server")
    load_mass_kg: float = setting(0.0, "mass of the payload", unit="kg", low=0.0, high=7.0)
    load_center_m: tuple[float, ...] = setting(
        (0.0, 0.0, 0.0), "its centre of mass on the flange", unit="m", low=-0.5, high=0.5
    )
    load_inertia_kg_m2: tuple[float, ...] = setting(
        (0.0,) * 6, "its inertia about that centre: xx, xy, xz, yy, yz, zz", unit="kg m2", low=-1.0, high=1.0
    )
    contact_torque_nm: tuple[float, ...] = setting(
        (25.0, 25.0, 22.0, 20.0, 19.0, 17.0, 14.0), "contact, per joint", unit="Nm", low=0.1, high=100.0
    )
    collision_torque_nm: tuple[float, ...] = setting(
        (35.0, 35.0, 32.0, 30.0, 29.0, 27.0, 24.0), "collision, per joint", unit="Nm", low=0.1, high=100.0
    )
    contact_force: tuple[float, ...] = setting(
        (30.0, 30.0, 30.0, 25.0, 25.0, 25.0), "contact of the tool: x y z [N], about x y z [Nm]", low=0.1, high=100.0
    )
    collision_force: tuple[float, ...] = setting(
        (40.0, 40.0, 40.0, 35.0, 35.0, 35.0), "collision of the tool: x y z [N], about x y z [Nm]", low=0.1, high=100.0
    )
    clock_offset_ms: float = setting(
        5.0, "largest offset of the clock of the arm's host from this one at arming", unit="ms", low=0.5, high=10e3
    )

    def __post_init__(self) -> None:
        check(self)
        lengths = {"load_center_m": 3, "load_inertia_kg_m2": 6, "contact_torque_nm": 7, "collision_torque_nm": 7,
                   "contact_force": 6, "collision_force": 6}  # fmt: skip
        for name, length in lengths.items():
            if len(getattr(self, name)) != length:
                raise ConfigError(f"ArmSetupConfig.{name} has {len(getattr(self, name))} numbers; {length} are needed")
        for kind in ("torque_nm", "force"):
            lower, upper = getattr(self, f"contact_{kind}"), getattr(self, f"collision_{kind}")
            if any(a > b for a, b in zip(lower, upper, strict=True)):
                raise ConfigError(f"ArmSetupConfig.contact_{kind} is above collision_{kind}: {lower}, {upper}")

    def inertia_matrix(self) -> list[float]:
        """The inertia `(9,)` as franka_msgs/SetLoad has it; symmetric, so column-major is row-major."""
        xx, xy, xz, yy, yz, zz = self.load_inertia_kg_m2
        return [xx, xy, xz, xy, yy, yz, xz, yz, zz]


@dataclass(frozen=True)
class Payload:
    """The payload that the arm reckons with: mass [kg], centre on the flange [m]."""

    mass_kg: float
    center_m: tuple[float, float, float]

    def trouble(self, config: ArmSetupConfig) -> str:
        """That it is not the one that was told, in words; empty if it is."""
        apart = [abs(a - b) for a, b in zip(self.center_m, config.load_center_m, strict=True)]
        heavy = config.load_mass_kg > 0
        if abs(self.mass_kg - config.load_mass_kg) <= _MASS_KG and not (heavy and max(apart) > _CENTER_M):
            return ""
        return (
            f"the arm reckons with a payload of {self.mass_kg:.3f} kg at {_at(self.center_m)} m; settings of "
            f"arm_session say {config.load_mass_kg:.3f} kg at {_at(config.load_center_m)} m: recover, or mend them"
        )


def _at(center_m: tuple[float, ...]) -> str:
    return "(" + ", ".join(f"{x:.3f}" for x in center_m) + ")"


NO_PAYLOAD = Payload(0.0, (0.0, 0.0, 0.0))


class HostClock:
    """Offset of another host's clock: the least delay of a second, for a message is never early."""

    def __init__(self) -> None:
        self.offset_ms: float | None = None
        """Of the last whole second; positive: that clock is behind this one. None before there was one."""
        self._least_ns: int | None = None
        self._since_ns = 0

    def hear(self, stamp_ns: int, now_ns: int) -> None:
        """Take a stamp of that host and the time here."""
        late_ns = now_ns - stamp_ns
        if self._least_ns is None or not 0 <= now_ns - self._since_ns < _WINDOW_NS:
            if self._least_ns is not None:
                self.offset_ms = self._least_ns / _MS
            self._least_ns, self._since_ns = late_ns, now_ns
        self._least_ns = min(self._least_ns, late_ns)

    def trouble(self, allowed_ms: float) -> str:
        """Why the two clocks do not agree, in words; empty if they do."""
        if self.offset_ms is None:
            return "the clock of the arm's host was not heard for a second yet"
        if abs(self.offset_ms) <= allowed_ms:
            return ""
        way = "behind" if self.offset_ms > 0 else "ahead of"
        return (
            f"the clock of the arm's host is {abs(self.offset_ms):.1f} ms {way} this one; allowed is {allowed_ms:g} "
            "ms: chrony on both (e0 doctor --only clock)"
        )


def controller_trouble(states: Mapping[str, str] | None, wanted: str) -> str:
    """Why the wanted controller does not move the arm, in words; empty if it does.

    Args:
        states: state by controller, as controller_manager_msgs/ListControllers has it; None: nobody answered.
        wanted: name of the arm's controller.

    """
    if states is None:
        return "the controller manager does not answer: is franka_ros2 running?"
    if wanted not in states:
        return f"{wanted} is not loaded: is it in controllers_yaml, and did its spawner run?"
    if states[wanted] == "active":
        return ""
    others = [name for name, state in states.items() if state == "active" and "broadcaster" not in name]
    instead = f"; active is {', '.join(others)}" if others else ""
    return f"{wanted} is {states[wanted]}{instead}: recover, or ros2 control switch_controllers --activate {wanted}"
