"""When the next command is due: at an even rate, which no delay makes up for, and sooner for a hand's reading.

clock = MessageClock(rate_hz=50.0, least_ns=4_000_000)
clock.begin(0)
clock.due(0)              # True
clock.sent(0)             # the next one is due at 20 ms
clock.hurry()             # there is something new to say: due at 4 ms
"""

from __future__ import annotations


class MessageClock:
    """Times are ROS time in ns; `least_ns` is between two commands however often there is something new."""

    def __init__(self, rate_hz: float, least_ns: int) -> None:
        self._period_ns, self._least_ns = int(1e9 / rate_hz), least_ns
        self._next_ns = self._last_ns = 0
        self._hurried = False

    def begin(self, now_ns: int) -> None:
        """The first one is due now."""
        self._next_ns, self._hurried = now_ns, False

    def due(self, now_ns: int) -> bool:
        """Whether the next one is due."""
        return now_ns >= self._next_ns or (self._hurried and now_ns >= self._last_ns + self._least_ns)

    def late_ns(self, now_ns: int) -> int:
        """How long the next one of the even rate has been due."""
        return now_ns - self._next_ns

    @property
    def expected_ns(self) -> int:
        """When the next one will be sent, if the one that sends keeps its pace: as long after the last as is due."""
        return self._last_ns + self._period_ns

    def sent(self, now_ns: int) -> None:
        """Note that one is sent now."""
        on_time = 0 <= now_ns - self._next_ns < self._period_ns
        self._next_ns = (self._next_ns if on_time else now_ns) + self._period_ns
        self._last_ns, self._hurried = now_ns, False

    def hurry(self) -> None:
        """There is something new to say."""
        self._hurried = True
