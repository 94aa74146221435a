"""Clocks that disagree, seen in how long messages seem to take."""

from __future__ import annotations

from collections import deque

_WINDOW = 5
_NS_PER_S = 1_000_000_000
FUTURE_NS = 5_000_000


class Latency:
    """The least time from stamp to arrival over the last seconds: transport, and what the stamps are off."""

    def __init__(self) -> None:
        self._least: deque[tuple[int, int]] = deque(maxlen=_WINDOW)

    def add(self, stamp_ns: int, now_ns: int) -> None:
        """Take one message."""
        second, latency_ns = now_ns // _NS_PER_S, now_ns - stamp_ns
        if self._least and self._least[-1][0] == second:
            latency_ns = min(latency_ns, self._least.pop()[1])
        self._least.append((second, latency_ns))

    @property
    def least_ns(self) -> int | None:
        """None until a whole second has been heard."""
        return min(latency for _, latency in self._least) if len(self._least) > 1 else None

    def clear(self) -> None:
        """Forget."""
        self._least.clear()


def disagreement(latencies: dict[str, Latency], most_ns: int) -> str:
    """Which camera's stamps are off, in words; empty if none are, as far as arrivals tell.

    Cameras of one kind take equally long, so what one takes longer or less than the first is the offset of its
    stamps. That all are late alike cannot be told from slow cameras; that they are early can.
    """
    known = {name: latency.least_ns for name, latency in latencies.items() if latency.least_ns is not None}
    for name, latency_ns in known.items():
        if latency_ns < -FUTURE_NS:
            return f"{name}: its stamps lie {-latency_ns / 1e6:.1f} ms in the future of this clock"
    reference = next(iter(known), "")
    for name, latency_ns in known.items():
        if most_ns and abs(latency_ns - known[reference]) >= most_ns:
            return f"{name}: its stamps are {(known[reference] - latency_ns) / 1e6:+.1f} ms off those of {reference}"
    return ""
