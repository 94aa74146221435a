"""The action of a frame: the set-point in force from the frame's time on, absolute.

* `commanded`: the row of the plan that the executor follows. A plan acts from the `committed_until` of the first
  executor state that names it; row i is in force from `t0 + i * period`, the last row stays in force. While the
  executor holds (no plan, a fault, a stop), or follows a plan that the bag does not hold, the set-point is its own
  reference. Refused plans never count.
* `teleop`: the row of the teleoperator's latest target, from its t0 on, whether the arm followed it or not.

Joints may be interpolated between the rows of a plan (and from one teleoperation target to the next); the gripper is
always held.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import numpy as np

from e0_policy.embodiment import Embodiment
from e0_policy.types import ActionChunk, FloatArray, Representation

RUNNING = 2
"""`e0_msgs/ExecutorState.RUNNING`."""
PLANS_KEPT = 1024
_Key = tuple[str, str, int]


@dataclass(frozen=True)
class _Reference:
    """The executor's own reference; `plan` names the plan it follows, which may be heard of later."""

    row: FloatArray
    plan: _Key | None = None


class SetPoints:
    """Set-points over time, from executor states and action chunks in the order of their receipt."""

    def __init__(self, signal: str, arm: Embodiment, interpolate: bool = False) -> None:
        self._teleop, self._arm, self._interpolate = signal == "teleop", arm, interpolate
        self._plans: OrderedDict[_Key, ActionChunk] = OrderedDict()
        self._times: list[int] = []
        self._entries: list[ActionChunk | _Reference] = []
        self.sources: set[str] = set()

    @property
    def start_ns(self) -> int | None:
        """Time of the first set-point, None if there is none yet."""
        return self._times[0] if self._times else None

    def add_chunk(self, message: Any) -> None:
        """Take an e0_msgs/ActionChunk.

        Raises:
            ValueError: it is malformed, or another arm's.

        """
        chunk = read_chunk(message, self._arm)
        if chunk is None or (self._teleop and chunk.source != "teleop"):
            return
        if self._teleop:
            self._enter(chunk.t0_ns, chunk)
            return
        self._plans[chunk.source, chunk.session, chunk.sequence] = chunk
        if len(self._plans) > PLANS_KEPT:
            self._plans.popitem(last=False)

    def add_state(self, stamp_ns: int, message: Any) -> None:
        """Take an e0_msgs/ExecutorState."""
        if self._teleop:
            return
        committed_ns = int(message.committed_until.sec) * 10**9 + int(message.committed_until.nanosec)
        key = (message.source, message.session, int(message.sequence))
        running, chunk = message.mode == RUNNING, self._plans.get(key)
        if running and chunk is not None:
            if not self._entries or self._entries[-1] is not chunk:
                self._enter(committed_ns, chunk)
        elif tuple(message.joint_names) == self._arm.joint_names:
            row = np.append(np.asarray(message.positions, np.float64), float(message.gripper_opening))
            if np.isfinite(row).all():
                self._enter(stamp_ns, _Reference(row, key if running else None))

    def at(self, t: int) -> FloatArray | None:
        """Row `(columns,)` in force at `t`; None before the first set-point."""
        place = bisect_right(self._times, t) - 1
        if place < 0:
            return None
        entry = self._resolved(place)
        if isinstance(entry, _Reference):
            return entry.row
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

    def held(self, t: int) -> bool:
        """Whether the set-point at `t` is the executor's own, because it followed no plan."""
        place = bisect_right(self._times, t) - 1
        return place >= 0 and isinstance(self._resolved(place), _Reference)

    def _resolved(self, place: int) -> ActionChunk | _Reference:
        entry = self._entries[place]
        plan = self._plans.get(entry.plan) if isinstance(entry, _Reference) and entry.plan else None
        return plan or entry

    def _enter(self, from_ns: int, entry: ActionChunk | _Reference) -> None:
        if self._times and from_ns < self._times[-1]:
            from_ns = self._times[-1]
        self._times.append(from_ns)
        self._entries.append(entry)
        if isinstance(entry, ActionChunk):
            self.sources.add(entry.source)

    def _to_next_target(self, place: int, t: int) -> tuple[float, FloatArray | None]:
        """Share of the way to the teleoperator's next target, and that target, if it follows without a break."""
        if place + 1 == len(self._entries):
            return 0.0, None
        here, there = self._entries[place], self._entries[place + 1]
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
