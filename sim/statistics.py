"""Honest statistics of success rates."""

from __future__ import annotations

import math
from collections.abc import Iterable


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
