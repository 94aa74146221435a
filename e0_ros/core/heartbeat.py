"""The heartbeat of whoever watches the arm: `true` while all is well, `false` while the emergency stop is pressed.

heartbeat = Heartbeat(HeartbeatConfig())
heartbeat.hear(True, 0)
heartbeat.cause(200 * MS)       # "": all is well
heartbeat.cause(201 * MS)       # "the heartbeat is silent for 201 ms ...": stop

Times are of the steady clock: neither a clock that was set nor a simulation that stands still changes anything.
"""

from __future__ import annotations

from dataclasses import dataclass

from e0_ros.config import check, setting

_MS = 1_000_000


@dataclass(frozen=True)
class HeartbeatConfig:
    """When the heartbeat stops the arm."""

    heartbeat_ms: float = setting(
        200.0, "longest silence of /e0/heartbeat, once it was heard, before a stop", unit="ms", low=20.0, high=10e3
    )
    heartbeat_required: bool = setting(False, "arm only while /e0/heartbeat says that all is well")

    def __post_init__(self) -> None:
        check(self)


class Heartbeat:
    """Once heard it must go on: its end stops the arm as `false` does, until the stop is reset."""

    def __init__(self, config: HeartbeatConfig) -> None:
        self._config = config
        self._heard_ns: int | None = None
        self._pressed = False

    def hear(self, well: bool, steady_ns: int) -> None:
        """Take one beat."""
        self._heard_ns, self._pressed = steady_ns, not well

    def cause(self, steady_ns: int) -> str:
        """Why the arm must stop, in words; empty if it need not."""
        if self._heard_ns is None:
            return ""
        if self._pressed:
            return "the emergency stop is pressed"
        silent_ms = (steady_ns - self._heard_ns) / _MS
        if silent_ms <= self._config.heartbeat_ms:
            return ""
        return f"the heartbeat is silent for {silent_ms:.0f} ms; allowed is {self._config.heartbeat_ms:g} ms"

    @property
    def silent_from_ns(self) -> int | None:
        """From when on `cause` names the silence if nothing more is heard; None while nothing was heard at all."""
        return None if self._heard_ns is None else self._heard_ns + int(self._config.heartbeat_ms * _MS) + 1

    def missing(self, steady_ns: int) -> str:
        """Why the arm must not be armed, in words; empty if it may."""
        if self._heard_ns is None and self._config.heartbeat_required:
            return "heartbeat_required is set and no heartbeat is heard; start e0 estop"
        return self.cause(steady_ns)

    def release(self, steady_ns: int) -> str:
        """Forget a heartbeat that ended, on an explicit reset; why not, in words, while the stop is still pressed."""
        if self._heard_ns is not None and steady_ns - self._heard_ns > self._config.heartbeat_ms * _MS:
            self._heard_ns, self._pressed = None, False
        return self.cause(steady_ns)
