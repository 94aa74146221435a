"""What an observation and an action chunk are: plain values shared by live nodes, conversion and training.

Times are integer nanoseconds of ROS time. Images are `uint8 (height, width, 3)` RGB. Joint positions are in rad,
a gripper opening is in [0, 1] with 1 fully open.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
ImageArray = NDArray[np.uint8]

WRIST_VIEWS = ("wrist", "left_wrist", "right_wrist")
"""Views that move with an arm, whatever their cameras do."""
MAX_ROWS = 1024
MAX_PERIOD_NS = 3600 * 10**9
MAX_COLUMNS = 64
SOURCES = ("policy", "teleop", "replay", "scripted", "home")
_SESSION = re.compile(r"[a-z0-9_-]{1,64}")


class Representation(IntEnum):
    """Meaning of an action row; the values are those of `e0_msgs/ActionChunk`."""

    JOINT_POSITION = 0
    """Absolute joint positions [rad], then the gripper opening."""
    EE_POSE = 1
    """Absolute tool pose in the base frame: x y z [m], quaternion xyzw, then the gripper opening."""
    EE_DELTA_STEP = 2
    """Rows of a benchmark's own controller (LIBERO's: deltas), one per control step; lock-step simulation only."""

    @property
    def label(self) -> str:
        """Its name in files and settings, as `joint_position`."""
        return self.name.lower()

    @staticmethod
    def of(label: object) -> Representation:
        """The representation of a label.

        Raises:
            ValueError: there is none; the message has those that there are.

        """
        known = {kind.label: kind for kind in Representation}
        if label not in known:
            raise ValueError(f"representation is {label!r}; known are {', '.join(known)}")
        return known[str(label)]


@dataclass(frozen=True)
class Observation:
    """Every stream brought to one reference stamp.

    `view_skew_ns[name]` is that view's capture time minus `stamp_ns`; joint positions are interpolated to
    `stamp_ns`, `joint_skew_ns` is the distance to the nearest sample used. `view_offsets[name]` is how far that view's
    camera is known to stand from its place in training (`e0_policy.view_offset`); a view without one stands there.
    """

    stamp_ns: int
    views: Mapping[str, ImageArray]
    joint_positions: FloatArray
    gripper_opening: float
    instruction: str = ""
    embodiment: str = ""
    joint_names: tuple[str, ...] = ()
    view_skew_ns: Mapping[str, int] = field(default_factory=dict)
    joint_skew_ns: int = 0
    gripper_age_ns: int = 0
    sequence: int = 0
    view_offsets: Mapping[str, FloatArray] = field(default_factory=dict)


@dataclass(frozen=True)
class Stale:
    """No observation can be made for `stamp_ns`: `stream` ("joints", "gripper" or a view) is why.

    `age_ns` is the age of the stream's newest sample, -1 if it never sent one.
    """

    stamp_ns: int
    stream: str
    reason: str
    age_ns: int


class ChunkError(ValueError):
    """An action chunk breaks the array contract; the message says what was got and what is allowed."""


@dataclass(frozen=True)
class ActionChunk:
    """A plan: `rows[i]` is the set-point in force from `t0_ns + i * period_ns`.

    Construction checks the array contract, so that an `ActionChunk` that exists is well-formed and finite.

    Args:
        rows: `(rows, columns)` float64; columns are the joints in order (or the pose), then the gripper opening.
        uncertainty: `(rows,)` entropy in nats, or None.

    Raises:
        ChunkError: wrong shape, size, source, session or period, or a number that is not finite.

    """

    rows: FloatArray
    t0_ns: int
    period_ns: int
    source: str
    session: str
    sequence: int
    representation: Representation = Representation.JOINT_POSITION
    embodiment: str = ""
    joint_names: tuple[str, ...] = ()
    in_reply_to_ns: int = 0
    uncertainty: NDArray[np.float32] | None = None
    latency_ns: int = 0
    seed: int = 0
    checkpoint: str = ""

    def __post_init__(self) -> None:
        rows = self.rows
        if rows.ndim != 2 or not 1 <= rows.shape[0] <= MAX_ROWS or not 1 <= rows.shape[1] <= MAX_COLUMNS:
            raise ChunkError(f"rows have shape {rows.shape}; allowed is (1..{MAX_ROWS}, 1..{MAX_COLUMNS})")
        if not np.isfinite(rows).all():
            row, column = (int(i) for i in np.argwhere(~np.isfinite(rows))[0])
            raise ChunkError(f"row {row} column {column} is {rows[row, column]}; every number must be finite")
        if not 0 < self.period_ns <= MAX_PERIOD_NS:
            raise ChunkError(f"period_ns is {self.period_ns}; allowed is 1 to {MAX_PERIOD_NS}")
        if self.source not in SOURCES:
            raise ChunkError(f"source is {self.source!r}; allowed are {', '.join(SOURCES)}")
        if not _SESSION.fullmatch(self.session):
            raise ChunkError(f"session is {self.session[:80]!r}; allowed is [a-z0-9_-]{{1,64}}")
        if self.uncertainty is not None and self.uncertainty.shape != (rows.shape[0],):
            raise ChunkError(f"uncertainty has shape {self.uncertainty.shape}; it must be ({rows.shape[0]},)")

    @property
    def end_ns(self) -> int:
        """Time of the last row."""
        return self.t0_ns + (self.rows.shape[0] - 1) * self.period_ns


@dataclass(frozen=True)
class NoChunk:
    """A source's answer to an observation when it has no new plan; `keep`: because the last one is still good."""

    in_reply_to_ns: int
    reason: str
    source: str
    session: str
    sequence: int
    keep: bool = False
