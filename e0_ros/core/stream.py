"""One sensor stream of an observation: its buffer, its bounds, and what is wrong with it in words."""

from __future__ import annotations

import math
from typing import Generic, TypeVar

from e0_policy.types import Stale
from e0_ros.core.latency import Latency
from e0_ros.core.stamped_buffer import StampedBuffer

V = TypeVar("V")
NS_PER_S = 1_000_000_000
NS_PER_MS = 1_000_000


class Stream(Generic[V]):
    """Samples of one stream with the counts that diagnostics need.

    `bound_ns` is how far behind it may fall before it counts as silent: `periods` of its rate plus a slack.
    """

    def __init__(self, name: str, rate_hz: float, periods: float, slack_ms: float) -> None:
        self.name = name
        self.period_ns = round(NS_PER_S / rate_hz)
        self.bound_ns = round(periods * NS_PER_S / rate_hz + slack_ms * NS_PER_MS)
        self.buffer: StampedBuffer[V] = StampedBuffer(max(32, math.ceil(rate_hz)))
        self.received = self.duplicates = self.dropped = self.repeats = 0
        self.latency = Latency()
        self.newest_ns: int | None = None
        self.arrived_ns: int | None = None
        self._fingerprint: int | None = None
        self._pixels_since_ns = 0
        self._longest_ns = 0

    def add(self, stamp_ns: int, value: V, now_ns: int) -> bool:
        """Take a sample; False for a stamp that it has already, or one too old to be of use."""
        self.received += 1
        newest = self.newest_ns
        if not self.buffer.insert(stamp_ns, value) or (newest is not None and stamp_ns == newest):
            self.duplicates += 1
            self.repeats += stamp_ns == newest
            return False
        if newest is None or stamp_ns > newest:
            self._longest_ns = max(self._longest_ns, stamp_ns - (stamp_ns if newest is None else newest))
            self.newest_ns, self.arrived_ns, self.repeats = stamp_ns, now_ns, 0
        return True

    def take_longest_ns(self) -> int:
        """The longest step from one stamp to the next since the last call."""
        longest, self._longest_ns = self._longest_ns, 0
        return longest

    def watch_pixels(self, stamp_ns: int, fingerprint: int) -> None:
        """Note an image's fingerprint, to see pixels that stand still under fresh stamps."""
        if fingerprint != self._fingerprint:
            self._fingerprint, self._pixels_since_ns = fingerprint, stamp_ns

    def still_ns(self, stamp_ns: int) -> int:
        """How long the pixels have been identical at `stamp_ns`."""
        return 0 if self._fingerprint is None else stamp_ns - self._pixels_since_ns

    def silent(self, now_ns: int, since_ns: int) -> bool:
        """Whether nothing fresh has come within the bound; `since_ns` counts if it never sent anything."""
        return now_ns - (since_ns if self.arrived_ns is None else self.arrived_ns) > self.bound_ns

    def stale(self, stamp_ns: int, now_ns: int | None, otherwise: str) -> Stale:
        """Why this stream has no sample for `stamp_ns`: never seen, frozen, silent, or else `otherwise`.

        Without a clock (None, lock-step) only what the stamps say is told, so that it does not depend on timing.
        """
        if now_ns is None:
            before = self.buffer.at_or_before(stamp_ns)
            return Stale(stamp_ns, self.name, otherwise, -1 if before is None else stamp_ns - before.stamp_ns)
        if self.newest_ns is None:
            return Stale(stamp_ns, self.name, "missing: it has sent nothing yet", -1)
        age_ns = now_ns - self.newest_ns
        if self.repeats:
            reason = f"frozen: the same stamp came {self.repeats + 1} times"
        elif self.newest_ns < stamp_ns and age_ns > self.bound_ns:
            reason = f"missing: its newest sample is {_ms(age_ns)} old; allowed is {_ms(self.bound_ns)}"
        else:
            reason = otherwise
        return Stale(stamp_ns, self.name, reason, age_ns)

    def clear(self) -> None:
        """Forget all samples; the counts stay."""
        self.buffer.clear()
        self.latency.clear()
        self.newest_ns = self.arrived_ns = self._fingerprint = None
        self.repeats = 0


def _ms(ns: int) -> str:
    return f"{ns / NS_PER_MS:.1f} ms"
