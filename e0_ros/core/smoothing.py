"""The 1 euro filter (Casiez, Roussel and Vogel, CHI 2012): smooth at rest, without delay in motion."""

from __future__ import annotations

import math

import numpy as np

from e0_policy.types import FloatArray


class OneEuro:
    """First-order low-pass whose cutoff grows with speed: `min_cutoff_hz + per_speed * |velocity|`."""

    def __init__(self, min_cutoff_hz: float, per_speed: float, velocity_cutoff_hz: float, start: FloatArray) -> None:
        self._min_cutoff_hz, self._per_speed, self._velocity_cutoff_hz = min_cutoff_hz, per_speed, velocity_cutoff_hz
        self._last, self.position, self.velocity = start, start, np.zeros_like(start)

    def update(self, sample: FloatArray, dt_s: float) -> None:
        """Take the next sample `(n,)`, `dt_s` > 0 after the one before."""
        share = _share(np.full_like(sample, self._velocity_cutoff_hz), dt_s)
        self.velocity = self.velocity + share * ((sample - self._last) / dt_s - self.velocity)
        cutoff_hz = self._min_cutoff_hz + self._per_speed * np.abs(self.velocity)
        self.position = self.position + _share(cutoff_hz, dt_s) * (sample - self.position)
        self._last = sample

    def shift(self, by: FloatArray) -> None:
        """Move everything, as when a joint is counted from another turn."""
        self._last, self.position = self._last + by, self.position + by


def _share(cutoff_hz: FloatArray, dt_s: float) -> FloatArray:
    share: FloatArray = 1.0 / (1.0 + 1.0 / (2 * math.pi * cutoff_hz * dt_s))
    return share
