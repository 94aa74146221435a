"""The action of a frame: the set-point in force from the frame's time on, absolute.

* `commanded`: the row of the plan that the executor follows. A plan acts from the `committed_until` of the first
  executor state that names it, unless a later state names another that acts before that, or holds; row i is in force
  from `t0 + i * period`, the last row stays in force. While the
  executor holds (no plan, a fault, a stop), or follows a plan that the bag does not hold (or slowed, or released later:
  then it has another t0), the set-point is its own reference, by the stamps of its states. Refused plans never count.
* `teleop`: the row of the teleoperator's latest target, from its t0 on, whether the arm followed it or not.

Joints may be interpolated between the rows of a plan (and from one teleoperation target to the next); the gripper is
always held.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from e0_policy.embodiment import Embodiment
from e0_policy.types import ActionChunk, FloatArray, Representation

RUNNING = 2
"""`e0_msgs/ExecutorState.RUNNING`."""
MAX_PLANS = 200_000
_Key = tuple[str, str, int, int]


@dataclass(frozen=True, order=True)
class _Entry:
    """In force from `from_ns` on: the plan that is named, or else the executor's own reference."""

    from_ns: int
    stamp_ns: int
    plan: _Key | None = field(compare=False)
    reference: FloatArray | None = field(compare=False, default=None)


class SetPoints:
    """Set-points over time, from executor states and action chunks in any order."""

    def __init__(self, signal: str, arm: Embodiment, interpolate: bool = False) -> None:
        self._teleop, self._arm, self._interpolate = signal == "teleop", arm, interpolate
        self._plans: dict[_Key, ActionChunk] = {}
        self._entries: list[_Entry] = []
        self._references: list[_Entry] = []
        self._followed: list[tuple[int, str]] = []

    @property
    def start_ns(self) -> int | None:
        """Time of the first set-point, None if there is none yet."""
        return next((e.from_ns for e in self._entries if self._resolved(e) is not None), None)

    @property
    def sources(self) -> list[str]:
        """Sources of the plans that were in force."""
        plans = (self._plans.get(entry.plan) for entry in self._entries if entry.plan)
        return sorted({plan.source for plan in plans if plan is not None})

    def add_chunk(self, message: Any) -> None:
        """Take an e0_msgs/ActionChunk.

        Raises:
            ValueError: it is malformed, another arm's, or one too many.

        """
        chunk = read_chunk(message, self._arm)
        if chunk is None or (self._teleop and chunk.source != "teleop"):
            return
        if len(self._plans) >= MAX_PLANS:
            raise ValueError(f"more than {MAX_PLANS} plans")
        key = (chunk.source, chunk.session, chunk.sequence, chunk.t0_ns)
        self._plans[key] = chunk
        if self._teleop:
            self._take(_Entry(chunk.t0_ns, chunk.t0_ns, key))

    def add_state(self, stamp_ns: int, message: Any) -> None:
        """Take an e0_msgs/ExecutorState."""
        if message.mode == RUNNING and (not self._followed or self._followed[-1][1] != message.source):
            self._followed.append((stamp_ns, message.source))
        if self._teleop:
            return
        committed_ns, t0_ns = (int(t.sec) * 10**9 + int(t.nanosec) for t in (message.committed_until, message.t0))
        named = (message.source, message.session, int(message.sequence), t0_ns)
        plan = named if message.mode == RUNNING else None
        row = np.append(np.asarray(message.positions, np.float64), float(message.gripper_opening))
        known = tuple(message.joint_names) == self._arm.joint_names and bool(np.isfinite(row).all())
        if plan or known:
            from_ns = committed_ns if plan else stamp_ns
            self._take(_Entry(from_ns, stamp_ns, plan, row if known else None))
        if known:
            insort(self._references, _Entry(stamp_ns, stamp_ns, None, row))

    def _take(self, entry: _Entry) -> None:
        """Keep an entry unless what was said after it acts no later, and drop those of which it is that."""
        place = end = bisect_right(self._entries, entry)
        if place and self._entries[place - 1].stamp_ns > entry.stamp_ns:
            return
        while end < len(self._entries) and self._entries[end].stamp_ns < entry.stamp_ns:
            end += 1
        self._entries[place:end] = [entry]

    def at(self, t: int) -> FloatArray | None:
        """Row `(columns,)` in force at `t`; None before the first set-point."""
        place = self._place(t)
        entry = None if place < 0 else self._resolved(self._entries[place])
        if entry is None or not isinstance(entry, ActionChunk):
            return entry if entry is None else self._reference(t, entry)
        last = len(entry.rows) - 1
        index = min(max((t - entry.t0_ns) // entry.period_ns, 0), last)
        row: FloatArray = entry.rows[index]
        if not self._interpolate:
            return row
        share, following = (t - entry.t0_ns - index * entry.period_ns) / entry.period_ns, None
        if index < last:
            following = entry.rows[index + 1]
        elif self._teleop:
            share, following = self._to_next_target(place, t)
        if following is None or share <= 0:
            return row
        return np.append(row[:-1] + share * (following[:-1] - row[:-1]), row[-1])

    def has(self, t: int) -> bool:
        """Whether a frame at `t` has an action."""
        return self.start_ns is not None and self.start_ns <= t

    def held(self, t: int) -> bool:
        """Whether the set-point at `t` is the executor's own, because it followed no plan that is known."""
        place = self._place(t)
        return place >= 0 and not isinstance(self._resolved(self._entries[place]), ActionChunk)

    def intervened(self, t: int) -> bool:
        """Whether a human has the arm at `t` that a machine moved before, until a machine moves it again."""
        until = bisect_right(self._followed, t, key=lambda entry: entry[0])
        return until > 1 and self._followed[until - 1][1] == "teleop"

    def _place(self, t: int) -> int:
        """Of the entry in force at `t`; -1 if there is none."""
        place = bisect_right(self._entries, t, key=lambda entry: entry.from_ns) - 1
        while place >= 0 and self._resolved(self._entries[place]) is None:
            place -= 1
        return place

    def _reference(self, t: int, default: FloatArray) -> FloatArray:
        """The executor's own at `t`: a state tells it for its stamp, which is before its plan acts."""
        place = bisect_right(self._references, t, key=lambda entry: entry.from_ns) - 1
        found = self._references[place].reference if place >= 0 else None
        return default if found is None else found

    def _resolved(self, entry: _Entry) -> ActionChunk | FloatArray | None:
        plan = self._plans.get(entry.plan) if entry.plan else None
        return entry.reference if plan is None else plan

    def _to_next_target(self, place: int, t: int) -> tuple[float, FloatArray | None]:
        """Share of the way to the teleoperator's next target, and that target, if it follows without a break."""
        if place + 1 == len(self._entries):
            return 0.0, None
        here, there = (self._resolved(entry) for entry in self._entries[place : place + 2])
        if not isinstance(here, ActionChunk) or not isinstance(there, ActionChunk) or here.session != there.session:
            return 0.0, None
        span_ns = there.t0_ns - here.end_ns
        if not 0 < span_ns <= 2 * here.period_ns:
            return 0.0, None
        return (t - here.end_ns) / span_ns, there.rows[0]


def read_chunk(message: Any, arm: Embodiment) -> ActionChunk | None:
    """The plan of an e0_msgs/ActionChunk with rows of the arm's joint positions; None if it has none.

    Raises:
        ValueError: sizes that contradict each other, numbers that are not finite, or another arm's joints.

    """
    if message.status != 0:
        return None
    rows, columns = int(message.rows), int(message.columns)
    if message.representation != Representation.JOINT_POSITION:
        raise ValueError(f"action rows are {message.representation}; only joint positions are converted")
    if columns != arm.columns or tuple(message.joint_names) != arm.joint_names or rows * columns != len(message.data):
        names = ", ".join(message.joint_names)[:200]
        raise ValueError(f"a plan of {rows} x {columns} numbers for {names}; {arm.name} has {arm.columns} columns")
    return ActionChunk(
        rows=np.array(message.data, np.float64).reshape(rows, columns),
        t0_ns=int(message.t0.sec) * 10**9 + int(message.t0.nanosec),
        period_ns=int(message.period_ns),
        source=message.source,
        session=message.session,
        sequence=int(message.sequence),
    )
