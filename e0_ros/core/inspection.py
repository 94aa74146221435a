"""Figures of one take, a bag's or a dataset's episode: what its streams and its motion look like, in plain numbers.

Reading is in `inspection_bag` and `inspection_dataset`; this holds what both compute, and what is suspicious of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from e0_policy.embodiment import Embodiment, embodiment_names, load_embodiment
from e0_policy.types import FloatArray
from e0_ros.core.traces import Trace, Traces

ROUGHNESS_HZ = 20.0
IDLE_RAD_S = 0.01
TEXT_CHARS = 300
LAG_MAX_S = 0.4

Stamps = NDArray[np.int64]


@dataclass(frozen=True)
class Stream:
    """Timing of one stream by its capture stamps.

    `gap_ms` is the longest time between neighbours, `gap_at_s` when it began; `skew_ms` the largest distance from an
    image of the reference view to this view's nearest one; `frozen_ms` the longest time without a changed pixel.
    """

    name: str
    type: str
    count: int
    rate_hz: float = 0.0
    gap_ms: float = 0.0
    gap_at_s: float = 0.0
    backwards: int = 0
    skew_ms: float | None = None
    frozen_ms: float | None = None


@dataclass(frozen=True)
class Motion:
    """Motion of the arm. Vectors are per joint.

    `low`, `high`: measured range [rad]; `error_mean`, `error_max`: |commanded - measured| [rad]; `lag_ms`: the delay
    that explains most of that error; `speed`: largest commanded speed as a share of the limit (rad/s without
    one); `roughness`: rms of second over first differences of the commands at 20 Hz, 0 straight, 1.7 white noise;
    `idle_start_s`, `idle_end_s`: time in which no joint is commanded to move at the ends.
    """

    joint_names: tuple[str, ...]
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()
    error_mean: tuple[float, ...] = ()
    error_max: tuple[float, ...] = ()
    lag_ms: float | None = None
    speed: float | None = None
    roughness: float | None = None
    idle_start_s: float = 0.0
    idle_end_s: float = 0.0
    gripper: tuple[float, float] | None = None


@dataclass
class TakeReport:
    """One take. `fault` tells why it cannot be read; then the rest may be empty. Images are JPEG, the plot is SVG.

    `lost` messages are known to be lost, and are all if `lost_counted`. `flags` is the verdict of `grading`, on a bag
    of this project (`graded`) or kept in its dataset; `findings` is all that is suspicious. `ages_ms` is the largest
    age of each stream in a dataset's frames, `age_bounds_ms` what is allowed.
    """

    name: str
    path: str
    kind: str
    fault: str = ""
    task: str = ""
    seed: str = ""
    instruction: str = ""
    outcome: str = ""
    note: str = ""
    embodiment: str = ""
    duration_s: float = 0.0
    frames: int = 0
    messages: int = 0
    size_bytes: int = 0
    lost: int = 0
    lost_counted: bool = False
    observations: int = 0
    stale: dict[str, int] = field(default_factory=dict)
    refused: int = 0
    holds: dict[str, float] = field(default_factory=dict)
    views: tuple[str, ...] = ()
    streams: list[Stream] = field(default_factory=list)
    ages_ms: dict[str, float] = field(default_factory=dict)
    age_bounds_ms: dict[str, float] = field(default_factory=dict)
    motion: Motion | None = None
    graded: bool = False
    flags: list[str] = field(default_factory=list)
    findings: list[str] = field(default_factory=list)
    thumbnails: dict[str, list[bytes]] = field(default_factory=dict)
    plot: str = ""

    @property
    def suspicious(self) -> bool:
        """Something about it should be looked at before it is trained on."""
        return bool(self.fault or self.findings)

    def stream(self, name: str) -> Stream | None:
        """A stream by its name."""
        return next((s for s in self.streams if s.name == name), None)

    def reference(self) -> Stream | None:
        """The reference view's stream, by whose images frames are counted."""
        return self.stream(self.views[0]) if self.views else None


def stream_of(name: str, kind: str, stamps_ns: Stamps, start_ns: int, **more: Any) -> Stream:
    """Timing of a stream from the stamps of its messages in order."""
    if len(stamps_ns) < 2:
        return Stream(name, kind, len(stamps_ns), **more)
    steps = np.diff(stamps_ns)
    widest = int(steps.argmax())
    span_s = float(stamps_ns.max() - stamps_ns.min()) / 1e9
    return Stream(
        name,
        kind,
        len(stamps_ns),
        rate_hz=(len(stamps_ns) - 1) / span_s if span_s else 0.0,
        gap_ms=float(steps[widest]) / 1e6,
        gap_at_s=float(stamps_ns[widest] - start_ns) / 1e9,
        backwards=int((steps < 0).sum()),
        **more,
    )


def skew_ms(reference_ns: Stamps, other_ns: Stamps) -> float | None:
    """Largest distance from a reference stamp to the nearest of the other stream [ms]; None if either is empty."""
    if not len(reference_ns) or not len(other_ns):
        return None
    ordered = np.sort(other_ns)
    right = np.clip(np.searchsorted(ordered, reference_ns), 1, max(1, len(ordered) - 1))
    near = np.minimum(
        np.abs(ordered[np.minimum(right, len(ordered) - 1)] - reference_ns), np.abs(ordered[right - 1] - reference_ns)
    )
    return float(near.max()) / 1e6


def frozen_ms(stamps_ns: Stamps, prints: Sequence[int]) -> float | None:
    """Longest time for which an image's pixels stayed the same under new stamps [ms]; None without two images."""
    if len(stamps_ns) < 2:
        return None
    longest, since = 0, 0
    for i in range(1, len(prints)):
        since = since if prints[i] == prints[i - 1] else i
        longest = max(longest, int(stamps_ns[i] - stamps_ns[since]))
    return longest / 1e6


def arm_named(name: str) -> Embodiment | None:
    """The shipped embodiment of that name, if it is one."""
    return load_embodiment(name) if name in embodiment_names() else None


def motion_of(traces: Traces, arm: Embodiment | None) -> Motion:
    """Ranges, tracking and smoothness of an episode's traces."""
    measured, commanded = traces.measured, traces.commanded
    values: dict[str, Any] = {"joint_names": traces.joint_names}
    if len(measured.values):
        values["low"], values["high"] = _floats(measured.values.min(0)), _floats(measured.values.max(0))
    error = np.abs(traces.tracking_error_rad())
    if len(error):
        values["error_mean"], values["error_max"] = _floats(error.mean(0)), _floats(error.max(0))
        values["lag_ms"] = lag_ms(measured, commanded)
    if len(commanded.time_s) > 3:
        values.update(_smoothness(commanded, arm))
    gripper = traces.gripper_measured.values
    if len(gripper):
        values["gripper"] = (float(gripper.min()), float(gripper.max()))
    return Motion(**values)


def lag_ms(measured: Trace, commanded: Trace) -> float | None:
    """The delay (0 to 400 ms, in steps of 10 ms) after which the measured positions are nearest to the commands.

    None if the arm hardly moves, so that any delay would do.
    """
    start, end = commanded.time_s[0] + LAG_MAX_S, commanded.time_s[-1]
    times = measured.time_s[(measured.time_s >= start) & (measured.time_s <= end)][
        :: max(1, len(measured.time_s) // 500)
    ]
    if len(times) < 10 or np.ptp(commanded.values, axis=0).max() < 0.05:
        return None
    here = measured.at(times)
    delays = np.arange(0.0, LAG_MAX_S, 0.01)
    errors = [float(np.square(here - commanded.at(times - delay)).mean()) for delay in delays]
    return float(delays[int(np.argmin(errors))]) * 1e3


def _smoothness(commanded: Trace, arm: Embodiment | None) -> dict[str, float]:
    times = np.arange(commanded.time_s[0], commanded.time_s[-1], 1.0 / ROUGHNESS_HZ)
    if len(times) < 4:
        return {}
    steps = np.diff(commanded.at(times), axis=0)
    limits = arm.velocity if arm is not None and len(arm.velocity) == steps.shape[1] else np.ones(steps.shape[1])
    moving = np.flatnonzero((np.abs(steps) * ROUGHNESS_HZ > IDLE_RAD_S).any(axis=1))
    figures = {"speed": float((np.abs(steps) * ROUGHNESS_HZ / limits).max())}
    if not len(moving):
        return figures | {"idle_start_s": len(steps) / ROUGHNESS_HZ}
    active = steps[moving[0] : moving[-1] + 1]
    if len(active) > 2:
        figures["roughness"] = float(np.sqrt(np.square(np.diff(active, axis=0)).mean() / np.square(active).mean()))
    figures["idle_start_s"] = float(moving[0]) / ROUGHNESS_HZ
    figures["idle_end_s"] = float(len(steps) - 1 - moving[-1]) / ROUGHNESS_HZ
    return figures


def _floats(values: FloatArray) -> tuple[float, ...]:
    return tuple(float(v) for v in values)


def short(text: str) -> str:
    """Text from data, cut to a length that a page can show, without control characters."""
    plain = "".join(c if c.isprintable() else " " for c in text[: TEXT_CHARS + 1])
    return plain[:TEXT_CHARS] + "…" if len(plain) > TEXT_CHARS else plain
