"""What the executor knows of an arm that stopped by itself: word of `arm_session`, which watches Franka's state.

fault = ArmFault(ArmFaultConfig())
fault.hear("reflex: joint_reflex", 0)
fault.stopped            # "reflex: joint_reflex": nothing may be sent any more
fault.silent(2000 * MS)  # "arm_session is silent for 2000 ms ...": hold

Times are of the steady clock.
"""

from __future__ import annotations

from dataclasses import dataclass

from e0_ros.config import check, setting

_MS = 1_000_000


@dataclass(frozen=True)
class ArmFaultConfig:
    """When the word of `arm_session` keeps the arm from moving."""

    arm_fault_ms: float = setting(
        1000.0, "longest silence of /e0/arm_fault, once it was heard, before a hold", unit="ms", low=20.0, high=60e3
    )
    arm_fault_required: bool = setting(False, "arm only while /e0/arm_fault says that the arm is fit")

    def __post_init__(self) -> None:
        check(self)


class ArmFault:
    """The last word on the arm: empty while it is fit to move."""

    def __init__(self, config: ArmFaultConfig) -> None:
        self._config = config
        self._heard_ns: int | None = None
        self.stopped = ""

    def hear(self, fault: str, steady_ns: int) -> None:
        """Take a word."""
        self._heard_ns, self.stopped = steady_ns, fault

    def silent(self, steady_ns: int) -> str:
        """That nobody watches the arm any more, in words; empty if somebody does, or never did."""
        if self._heard_ns is None:
            return ""
        silent_ms = (steady_ns - self._heard_ns) / _MS
        if silent_ms <= self._config.arm_fault_ms:
            return ""
        return f"arm_session is silent for {silent_ms:.0f} ms; allowed is {self._config.arm_fault_ms:g} ms"

    def missing(self, steady_ns: int) -> str:
        """Why the arm must not be armed, in words; empty if it may."""
        if self._heard_ns is None and self._config.arm_fault_required:
            return "arm_fault_required is set and arm_session has not spoken yet"
        return self.silent(steady_ns) or (f"the arm: {self.stopped}" if self.stopped else "")
