"""What is known of the arm: its newest joint state, and what is wrong with it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from e0_policy.embodiment import Embodiment
from e0_policy.types import FloatArray
from e0_ros.core.command import Command, State
from e0_ros.core.joint_names import pick_joints

_MS = 1_000_000
_AT_REST_RAD_S = 0.05


class Measured:
    """The arm as measured. `position` and `velocity` are `(joints,)`, None while nothing has come."""

    def __init__(self, arm: Embodiment, max_age_ms: float) -> None:
        self._arm, self._max_age_ms = arm, max_age_ms
        self._fault = "no joint state has arrived"
        self.stamp_ns = 0
        self.position: FloatArray | None = None
        self.velocity: FloatArray | None = None

    def observe(
        self, stamp_ns: int, names: Sequence[str], positions: Sequence[float], velocities: Sequence[float], now_ns: int
    ) -> None:
        """Take a joint state; joints are found by name. A malformed one is as good as none, an older one is ignored.

        One from the future of `now_ns` gives way to any other.
        """
        try:
            q, v = (pick_joints(names, values, self._arm.joint_names) for values in (positions, velocities))
        except ValueError as error:
            self._fault = f"bad joint state: {error}"
            return
        if self.position is None or stamp_ns > self.stamp_ns or self.stamp_ns > now_ns:
            self.stamp_ns, self.position, self.velocity = stamp_ns, q, v

    def forget(self) -> None:
        """What was measured counts no more."""
        self.position = self.velocity = None

    @property
    def state(self) -> State | None:
        """What was measured, with an acceleration of 0."""
        if self.position is None or self.velocity is None:
            return None
        return State(self.position, self.velocity, np.zeros_like(self.position))

    def trouble(self, now_ns: int, not_before_ns: int = 0) -> str:
        """Why the joints are not known, in words; empty if they are. What was measured before a time may not count."""
        if self.position is None:
            return self._fault
        age_ms = (now_ns - self.stamp_ns) / _MS
        if -age_ms > self._max_age_ms:
            return f"joint state is from {-age_ms:.0f} ms in the future: its clock is not this one"
        if age_ms > self._max_age_ms:
            return f"joint state is {age_ms:.0f} ms old; allowed is {self._max_age_ms:g} ms"
        if self.stamp_ns < not_before_ns:
            return f"the newest joint state is {(not_before_ns - self.stamp_ns) / _MS:.0f} ms older than asked for"
        return ""

    def unfit(self) -> str:
        """Why motion must not begin from here: outside the limits, or moving."""
        if self.position is None or self.velocity is None:
            return self._fault
        arm = self._arm
        bounds = zip(arm.joint_names, self.position, arm.position_lower, arm.position_upper, strict=True)
        for name, value, low, high in bounds:
            if not low <= value <= high:
                return f"{name} is at {value:.4f} rad, outside {low} to {high}; move the arm inside first"
        fastest = np.abs(self.velocity).max()
        if fastest > _AT_REST_RAD_S:
            return f"the arm moves at {fastest:.3f} rad/s; it must be at rest (< {_AT_REST_RAD_S})"
        return ""

    def off(self, command: Command | None, most_rad: float) -> str:
        """Which joint is further than `most_rad` from what it was commanded, in words; empty if none is."""
        if command is None or self.position is None:
            return ""
        error = np.abs(self.position - command.sample(self.stamp_ns).position)
        worst = int(error.argmax())
        if error[worst] <= most_rad:
            return ""
        return f"{self._arm.joint_names[worst]} is {error[worst]:.3f} rad from its reference"
