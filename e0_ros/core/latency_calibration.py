"""How late images and the arm are, from one motion seen by the camera, the encoders and the executor.

As UMI does (Chi et al. 2024, section III), one motion is seen twice, and the shift that makes both agree is the
latency. The picture's side here is the change from one image to the next, which needs no marker and no known scene; it
is compared with how far the joints went in the same time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from e0_policy.types import FloatArray
from e0_ros.core.bench_calibration import MOST_LAG_MS

TimeArray = NDArray[np.int64]
_MS = 1_000_000
GRID_MS = np.arange(-150, 351, 2)
"""Shifts that are tried [ms]; the best is refined to fractions of a step."""
PARTS = 4
LEAST_MOTION_RAD = 0.05
LEAST_AGREEMENT = 0.7
MOST_SPREAD_MS = 15.0


class MotionError(ValueError):
    """A recording does not show what is needed; the message says what to do."""


@dataclass(frozen=True)
class Latency:
    """A latency [ms], how far parts of the recording differ on it (one sigma), and how well both sides agree (to 1)."""

    ms: float
    spread_ms: float
    agreement: float


def image_latency(stamps_ns: TimeArray, changes: FloatArray, times_ns: TimeArray, positions: FloatArray) -> Latency:
    """How much later than the joint states the images are stamped.

    Args:
        stamps_ns: `(n,)` stamps of the images.
        changes: `(n - 1,)` how much each image differs from the one before (mean absolute difference of pixels).
        times_ns: `(m,)` stamps of the joint states.
        positions: `(m, joints)` [rad].

    Raises:
        MotionError: no motion, an image that does not show it, or no single latency that explains it.

    """

    def agreement(shift_ms: float, part: slice) -> float:
        shifted = stamps_ns[part] - round(shift_ms * _MS)
        way = np.abs(np.diff(_at(shifted, times_ns, positions), axis=0)).sum(axis=1)
        return _correlation(way, changes[part][: len(way)])

    return _best(agreement, len(stamps_ns), times_ns, positions, "the camera sees too little of the motion")


def arm_latency(times_ns: TimeArray, positions: FloatArray, told_ns: TimeArray, reference: FloatArray) -> Latency:
    """How long the arm takes to be where its reference is.

    Args:
        times_ns: `(m,)` stamps of the joint states.
        positions: `(m, joints)` [rad], measured.
        told_ns: `(k,)` stamps of the executor's states.
        reference: `(k, joints)` [rad], commanded.

    Raises:
        MotionError: no motion, or an arm that does not follow, or later than the executor can make up for.

    """

    def agreement(shift_ms: float, part: slice) -> float:
        told = told_ns[part]
        there = _at(told + round(shift_ms * _MS), times_ns, positions)
        a, b = there - there.mean(axis=0), reference[part] - reference[part].mean(axis=0)
        return _correlation(a.ravel(), b.ravel())

    found = _best(agreement, len(told_ns), times_ns, positions, "the arm does not follow its reference")
    if found.ms > MOST_LAG_MS:
        raise MotionError(
            f"the arm follows after {found.ms:.0f} ms, the executor makes up for {MOST_LAG_MS:.0f} at most: is its "
            "controller tuned, and are all clocks the same?"
        )
    return found


def _best(
    agreement: Callable[[float, slice], float], count: int, times_ns: TimeArray, positions: FloatArray, trouble: str
) -> Latency:
    if count < 10 * PARTS or len(times_ns) < 2:
        raise MotionError(f"only {count} samples; record at least 10 s of motion")
    if np.ptp(positions, axis=0).max() < LEAST_MOTION_RAD:
        raise MotionError(f"no joint moves by {LEAST_MOTION_RAD} rad; record a motion (e0 calibrate latency makes one)")
    best, height = _peak(agreement, slice(0, count))
    if height < LEAST_AGREEMENT:
        raise MotionError(f"{trouble}: agreement {height:.2f}, needed is {LEAST_AGREEMENT}")
    edges = np.linspace(0, count, PARTS + 1).astype(int)
    parts = [_peak(agreement, slice(a, b))[0] for a, b in pairwise(edges)]
    spread = float(np.std(parts))
    if spread > MOST_SPREAD_MS:
        told = ", ".join(f"{ms:.0f}" for ms in parts)
        raise MotionError(f"parts of the recording disagree: {told} ms; move more, with nothing else in view")
    return Latency(best, spread, height)


def _peak(agreement: Callable[[float, slice], float], part: slice) -> tuple[float, float]:
    """Where the agreement is highest, between the steps of the grid by a parabola, and how high."""
    heights = np.array([agreement(float(ms), part) for ms in GRID_MS])
    i = int(heights.argmax())
    if i in (0, len(GRID_MS) - 1):
        raise MotionError(f"the latency lies outside of {GRID_MS[0]} to {GRID_MS[-1]} ms: are all clocks the same?")
    before, here, after = heights[i - 1 : i + 2]
    bend = before - 2 * here + after
    offset = 0.0 if bend == 0 else 0.5 * float((before - after) / bend)
    return float(GRID_MS[i]) + offset * float(GRID_MS[1] - GRID_MS[0]), float(here)


def _at(when_ns: TimeArray, times_ns: TimeArray, positions: FloatArray) -> FloatArray:
    start = times_ns[0]
    t, known = (when_ns - start) / 1e9, (times_ns - start) / 1e9
    return np.stack([np.interp(t, known, column) for column in positions.T], axis=1)


def _correlation(a: FloatArray, b: FloatArray) -> float:
    spread = float(a.std() * b.std())
    return 0.0 if spread < 1e-15 else float(((a - a.mean()) * (b - b.mean())).mean() / spread)
