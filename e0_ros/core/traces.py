"""What an episode's bag says of the arm: commanded and measured positions, holds and refusals, as plain arrays."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np

from e0_policy.types import FloatArray
from e0_ros.core.bag_reader import Bag, BagReadError
from e0_ros.interfaces import EPISODE_EVENT, EXECUTOR_STATE, JOINT_STATES, OBSERVATION

MODES = ("DISARMED", "ARMED", "RUNNING", "HOLD", "STOPPED")
"""Names of `e0_msgs/ExecutorState`'s modes."""
TRACED = tuple(topic.name for topic in (EPISODE_EVENT, EXECUTOR_STATE, JOINT_STATES, OBSERVATION))
"""Topics that traces are made of."""


def mode_name(mode: int) -> str:
    """Name of a mode of `e0_msgs/ExecutorState`; the number of one that there is not."""
    return MODES[mode] if 0 <= mode < len(MODES) else str(mode)


@dataclass(frozen=True)
class Span:
    """A time in which the executor was in one mode, for one reason [s since the episode's start]."""

    mode: str
    reason: str
    start_s: float
    end_s: float


@dataclass(frozen=True)
class Trace:
    """A signal over time: `time_s` `(n,)` [s since the episode's start], `values` `(n, columns)`."""

    time_s: FloatArray
    values: FloatArray

    def at(self, time_s: FloatArray) -> FloatArray:
        """Values interpolated linearly to other times, `(len(time_s), columns)`."""
        columns = [np.interp(time_s, self.time_s, column) for column in self.values.T]
        return np.stack(columns, axis=1)


@dataclass(frozen=True)
class Traces:
    """An episode. Positions in rad in the order of `joint_names`, gripper opening in [0, 1]; absent ones are empty."""

    episode_id: str
    task: str
    instruction: str
    outcome: str
    start_ns: int
    joint_names: tuple[str, ...]
    measured: Trace
    commanded: Trace
    gripper_measured: Trace
    gripper_commanded: Trace
    spans: tuple[Span, ...]
    refusals: tuple[tuple[float, str], ...]

    def tracking_error_rad(self) -> FloatArray:
        """Measured minus commanded positions at the measurements within the commands' time, `(n, joints)`."""
        if not len(self.commanded.time_s):
            return np.empty((0, len(self.joint_names)))
        time_s = self.measured.time_s
        inside = (time_s >= self.commanded.time_s[0]) & (time_s <= self.commanded.time_s[-1])
        error: FloatArray = self.measured.values[inside] - self.commanded.at(time_s[inside])
        return error


@dataclass
class _Rows:
    time_ns: list[int] = field(default_factory=list)
    values: list[Any] = field(default_factory=list)

    def add(self, time_ns: int, values: Any) -> None:
        self.time_ns.append(time_ns)
        self.values.append(values)

    def trace(self, start_ns: int, columns: int) -> Trace:
        times = (np.array(self.time_ns, np.int64) - start_ns) / 1e9
        return Trace(times, np.array(self.values, np.float64).reshape(len(times), columns))


def read_traces(bag: Bag) -> Traces:
    """Collect an episode's signals; samples that are not finite or name other joints are left out.

    Raises:
        BagReadError: the bag holds neither joint states nor executor states.

    """
    rows = {topic: list[Any]() for topic in TRACED}
    for message in bag.messages(rows):
        rows[message.topic].append(bag.decode(message))
    return traces_of(bag, rows)


def traces_of(bag: Bag, rows: Mapping[str, list[Any]]) -> Traces:
    """Traces from the decoded messages of the topics in `TRACED`, as `read_traces`, which does the reading too."""
    states, joints = rows[EXECUTOR_STATE.name], rows[JOINT_STATES.name]
    names = next((tuple(m.joint_names) for m in states if m.joint_names), tuple(joints[0].name) if joints else ())
    if not names:
        raise BagReadError(f"{bag.path}: holds neither joint states nor executor states; nothing can be plotted")
    events = rows[EPISODE_EVENT.name]
    first = [stamp_ns(m) for m in (*events[:1], *joints[:1], *states[:1])]
    measured, commanded = _positions(joints, names), _Rows()
    gripper_measured, gripper_commanded = _Rows(), _Rows()
    for m in states:
        if tuple(m.joint_names) == names and np.isfinite(m.positions).all():
            commanded.add(stamp_ns(m), m.positions)
        if np.isfinite(m.gripper_opening):
            gripper_commanded.add(stamp_ns(m), [m.gripper_opening])
    for m in rows[OBSERVATION.name]:
        if m.status == 0:
            gripper_measured.add(stamp_ns(m), [m.gripper_opening])
    start, custom = first[0], bag.custom
    return Traces(
        episode_id=custom.get("episode_id", bag.path.stem),
        task=custom.get("task", ""),
        instruction=custom.get("instruction", ""),
        outcome=custom.get("outcome", ""),
        start_ns=start,
        joint_names=names,
        measured=measured.trace(start, len(names)),
        commanded=commanded.trace(start, len(names)),
        gripper_measured=gripper_measured.trace(start, 1),
        gripper_commanded=gripper_commanded.trace(start, 1),
        spans=tuple(_spans(states, start)),
        refusals=tuple(_refusals(states, start)),
    )


def stamp_ns(message: Any) -> int:
    """Header stamp of a decoded message."""
    return int(message.header.stamp.sec) * 10**9 + int(message.header.stamp.nanosec)


def _positions(messages: Iterable[Any], names: tuple[str, ...]) -> _Rows:
    rows = _Rows()
    for m in messages:
        places = {name: i for i, name in enumerate(m.name)}
        if len(m.position) == len(m.name) and all(name in places for name in names):
            rows.add(stamp_ns(m), m.position[[places[name] for name in names]])
    return rows


def _spans(states: list[Any], start_ns: int) -> list[Span]:
    spans: list[Span] = []
    for m in states:
        now = (stamp_ns(m) - start_ns) / 1e9
        mode = mode_name(m.mode)
        if spans:
            spans[-1] = Span(spans[-1].mode, spans[-1].reason, spans[-1].start_s, now)
        if not spans or (mode, m.reason) != (spans[-1].mode, spans[-1].reason):
            spans.append(Span(mode, m.reason, now, now))
    return spans


def _refusals(states: list[Any], start_ns: int) -> list[tuple[float, str]]:
    return [
        ((stamp_ns(m) - start_ns) / 1e9, m.last_refusal)
        for before, m in pairwise(states)
        if m.chunks_refused > before.chunks_refused
    ]
