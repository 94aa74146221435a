"""When the next command is due: at an even rate, which no delay makes up for, or sooner for a hand's reading.

clock = MessageClock(rate_hz=125.0)
clock.begin(0)
clock.due(0)              # True
clock.sent(0)             # the next one is due at 8 ms
clock.hurry()             # half of that is enough: at 4 ms
"""

from __future__ import annotations


class MessageClock:
    """Times are ROS time in ns."""

    def __init__(self, rate_hz: float) -> None:
        self._period_ns = int(1e9 / rate_hz)
        self._next_ns = self._last_ns = 0

    def begin(self, now_ns: int) -> None:
        """The first one is due now."""
        self._next_ns = now_ns

    def due(self, now_ns: int) -> bool:
        """Whether the next one is due."""
        return now_ns >= self._next_ns

    def late_ns(self, now_ns: int) -> int:
        """How long it has been due."""
        return now_ns - self._next_ns

    def sent(self, now_ns: int) -> None:
        """Note that one is sent now."""
        on_time = 0 <= now_ns - self._next_ns < self._period_ns
        self._next_ns = (self._next_ns if on_time else now_ns) + self._period_ns
        self._last_ns = now_ns

    def hurry(self) -> None:
        """The next one is due half a period after the last one, or when it was due already."""
        self._next_ns = min(self._next_ns, self._last_ns + self._period_ns // 2)
