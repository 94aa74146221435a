"""A bounded buffer of samples in order of their stamps.

Worked example, capacity 3, samples written as `stamp: value`:

    insert(10, a), insert(30, c)     10: a, 30: c
    insert(20, b)                    10: a, 20: b, 30: c      out of order: goes to its place
    insert(20, x) -> False           10: a, 20: b, 30: c      duplicate stamp: the first one stays
    insert(40, d)                    20: b, 30: c, 40: d      full: the oldest goes
    insert(15, x) -> False           20: b, 30: c, 40: d      older than all of a full buffer: not taken

    at_or_before(30) = 30: c         at_or_before(29) = 20: b         at_or_before(19) = None
    at_or_after(30) = 30: c          at_or_after(31) = 40: d          at_or_after(41) = None
    nearest(24) = 20: b              nearest(25) = 20: b (a tie goes to the earlier)
    drop_before(35)                  30: c, 40: d             the last one at or before 35 stays

Interpolation is linear between the neighbours and never extrapolates. With 20: [0.0] and 40: [1.0]:

    interpolate(25) = [0.25], nearest_ns 5, gap_ns 20
    interpolate(40) = [1.0],  nearest_ns 0, gap_ns 0
    interpolate(41) = None
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from e0_policy.types import FloatArray

V = TypeVar("V")


@dataclass(frozen=True)
class Sample(Generic[V]):
    """A value and its stamp [ns]."""

    stamp_ns: int
    value: V


@dataclass(frozen=True)
class Interpolated:
    """A value between two samples: distance to the nearer one, and distance between the two."""

    value: FloatArray
    nearest_ns: int
    gap_ns: int


class StampedBuffer(Generic[V]):
    """At most `capacity` samples in order of stamp; the module's docstring gives the rules by example."""

    def __init__(self, capacity: int) -> None:
        if capacity < 2:
            raise ValueError(f"capacity is {capacity}; a buffer holds at least 2 samples")
        self._capacity = capacity
        self._stamps: list[int] = []
        self._values: list[V] = []

    def __len__(self) -> int:
        return len(self._stamps)

    @property
    def stamps(self) -> tuple[int, ...]:
        """Stamps held, in order."""
        return tuple(self._stamps)

    @property
    def newest_ns(self) -> int | None:
        """Newest stamp held, None if there is none."""
        return self._stamps[-1] if self._stamps else None

    def insert(self, stamp_ns: int, value: V) -> bool:
        """Put a sample in its place; False if its stamp is there already or it is too old for a full buffer."""
        stamps = self._stamps
        place = len(stamps) if not stamps or stamp_ns > stamps[-1] else bisect_left(stamps, stamp_ns)
        if place < len(stamps) and stamps[place] == stamp_ns:
            return False
        if len(stamps) == self._capacity:
            if place == 0:
                return False
            del stamps[0], self._values[0]
            place -= 1
        stamps.insert(place, stamp_ns)
        self._values.insert(place, value)
        return True

    def at_or_before(self, stamp_ns: int) -> Sample[V] | None:
        """Latest sample not after `stamp_ns`."""
        return self._sample(bisect_right(self._stamps, stamp_ns) - 1)

    def at_or_after(self, stamp_ns: int) -> Sample[V] | None:
        """Earliest sample not before `stamp_ns`."""
        return self._sample(bisect_left(self._stamps, stamp_ns))

    def nearest(self, stamp_ns: int) -> Sample[V] | None:
        """Sample closest to `stamp_ns`, the earlier one of two equally close."""
        before, after = self.at_or_before(stamp_ns), self.at_or_after(stamp_ns)
        if before is None or after is None:
            return before or after
        return before if stamp_ns - before.stamp_ns <= after.stamp_ns - stamp_ns else after

    def interpolate(self, stamp_ns: int, read: Callable[[V], FloatArray]) -> Interpolated | None:
        """Value at `stamp_ns`, linear between its neighbours; None outside of what is held.

        `read` turns a held value into numbers; it is called for the neighbours only.
        """
        before, after = self.at_or_before(stamp_ns), self.at_or_after(stamp_ns)
        if before is None or after is None:
            return None
        start, gap_ns = read(before.value), after.stamp_ns - before.stamp_ns
        if gap_ns == 0:
            return Interpolated(start, 0, 0)
        share = (stamp_ns - before.stamp_ns) / gap_ns
        nearest_ns = min(stamp_ns - before.stamp_ns, after.stamp_ns - stamp_ns)
        return Interpolated(start + share * (read(after.value) - start), nearest_ns, gap_ns)

    def drop_before(self, stamp_ns: int) -> None:
        """Forget what lies before the latest sample at or before `stamp_ns`."""
        keep = bisect_right(self._stamps, stamp_ns) - 1
        if keep > 0:
            del self._stamps[:keep], self._values[:keep]

    def clear(self) -> None:
        """Forget everything."""
        self._stamps.clear()
        self._values.clear()

    def _sample(self, place: int) -> Sample[V] | None:
        return Sample(self._stamps[place], self._values[place]) if 0 <= place < len(self._stamps) else None
