"""Honest statistics of success rates."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from e0_policy.types import FloatArray


def wilson_interval(successes: int, trials: int, z: float = 1.959964) -> tuple[float, float]:
    """Wilson score interval of a success rate, 95 % by default; `(0, 1)` without trials.

    Source: E. B. Wilson, Probable Inference, the Law of Succession, and Statistical Inference (1927).

    Raises:
        ValueError: `successes` is not in `0..trials`.
    """
    if not 0 <= successes <= trials:
        raise ValueError(f"{successes} successes of {trials} trials; allowed is 0 to the number of trials")
    if trials == 0:
        return 0.0, 1.0
    rate = successes / trials
    centre = rate + z * z / (2 * trials)
    spread = z * math.sqrt(rate * (1 - rate) / trials + z * z / (4 * trials * trials))
    scale = 1 + z * z / trials
    low, high = (centre - spread) / scale, (centre + spread) / scale
    return (low if successes else 0.0), (high if successes < trials else 1.0)


def mcnemar_p(only_first: int, only_second: int) -> float:
    """Two-sided p value of McNemar's exact test: could a fair coin have split the discordant pairs this unevenly?

    `only_first` and `only_second` are the pairs in which only one of the two succeeded.

    Source: Q. McNemar, Psychometrika 12 (1947); the exact form is the sign test on the discordant pairs.
    """
    count, fewer = only_first + only_second, min(only_first, only_second)
    tail = sum(math.comb(count, k) for k in range(fewer + 1))
    return min(1.0, 2 * tail / 2**count)  # whole numbers divide whatever their size


def paired_difference(only_first: int, only_second: int, pairs: int, z: float = 1.959964) -> tuple[float, float, float]:
    """Second minus first success rate over the same pairs, with its 95 % interval; (-1, 1) without pairs.

    Source of the interval: D. G. Bonett and R. M. Price, Adjusted Wald confidence interval for a difference of
    binomial proportions based on paired data (2012).
    """
    if pairs == 0:
        return 0.0, -1.0, 1.0
    first, second = (only_first + 1) / (pairs + 2), (only_second + 1) / (pairs + 2)
    spread = z * math.sqrt((first + second - (second - first) ** 2) / (pairs + 2))
    low, high = second - first - spread, second - first + spread
    return (only_second - only_first) / pairs, max(low, -1.0), min(high, 1.0)


def total(counts: Iterable[int]) -> float:
    """Sum of counts; NaN if one of them is not known (negative)."""
    found = list(counts)
    return math.nan if min(found, default=0) < 0 else float(sum(found))


def known(count: float, otherwise: str, unit: str = "") -> str:
    """A count as text, or what to say if it is NaN."""
    return otherwise if math.isnan(count) else f"{count:.0f}{unit}"


def percentile(values: list[float], share: float) -> float:
    """Nearest-rank percentile, `share` in [0, 1]; NaN for no values."""
    if not values:
        return math.nan
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, math.ceil(share * len(ordered)) - 1))]


def rms_jerk(stamps_ns: NDArray[np.int64], positions: FloatArray, period_ns: int) -> float:
    """Root of the mean squared jerk of a motion, over time and joints: 0 for a parabola; less is smoother.

    Args:
        stamps_ns: `(n,)`, rising.
        positions: `(n, joints)` [rad]; brought to equal spacing by cubic interpolation, if they are not.
        period_ns: that spacing.

    Returns:
        From third differences [rad/s^3]; NaN for fewer than four positions.

    """
    grid = np.arange(stamps_ns[0], stamps_ns[-1] + 1, period_ns) if len(stamps_ns) > 1 else stamps_ns
    if len(grid) < 4:
        return math.nan
    if not np.array_equal(grid, stamps_ns):
        positions = _cubic(stamps_ns / 1e9, positions, grid / 1e9)
    jerk = np.diff(positions, n=3, axis=0) / (period_ns / 1e9) ** 3
    return float(np.sqrt(np.mean(jerk**2)))


def _cubic(times: FloatArray, values: FloatArray, wanted: FloatArray) -> FloatArray:
    """Values `(m, columns)` at other times, by cubic Hermite pieces with slopes from finite differences."""
    slopes = np.gradient(values, times, axis=0)
    i = np.clip(np.searchsorted(times, wanted, side="right") - 1, 0, len(times) - 2)
    width = (times[i + 1] - times[i])[:, None]
    u = (wanted - times[i])[:, None] / width
    rest: FloatArray = u * (1 - u) ** 2 * width * slopes[i] - u**2 * (1 - u) * width * slopes[i + 1]
    return (1 + 2 * u) * (1 - u) ** 2 * values[i] + u**2 * (3 - 2 * u) * values[i + 1] + rest
