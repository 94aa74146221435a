"""Statistics of a dataset in one pass, and the map of actions and proprioception to [-1, 1] and back.

sketch = StatisticsSketch((8,), names)          # or (rows, 8): one set per (row, dimension) of a chunk
for episode in episodes:
    sketch.update(episode.actions)              # (frames, 8)
normalizer = Normalizer.fit(sketch.statistics(), bounds={"gripper": (0.0, 1.0)})
normalizer.normalize(rows)                      # q01 -> -1, q99 -> +1, not clipped
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from e0_policy.types import FloatArray

Kind = Literal["quantile", "mean_std"]
Constant = Literal["error", "hold"]


class NormalizationError(ValueError):
    """Values or statistics cannot be normalised; the message names the dimension and what it had."""


@dataclass(frozen=True)
class Statistics:
    """Statistics of each dimension; arrays have the shape of one item, `(dims,)` or `(rows, dims)`.

    `q_low` and `q_high` are order statistics, off by at most `quantile_error` (see `StatisticsSketch`).
    """

    names: tuple[str, ...]
    count: NDArray[np.int64]
    minimum: FloatArray
    maximum: FloatArray
    mean: FloatArray
    std: FloatArray
    q_low: FloatArray
    q_high: FloatArray
    quantile_error: FloatArray


class StatisticsSketch:
    """Mergeable one-pass statistics: exact count, extremes, mean and deviation, and a histogram for quantiles.

    Bins of each dimension are `2**e` wide and aligned at zero, so that doubling the width merges whole bins and
    two sketches merge without loss. A quantile is off from the exact order statistic (numpy's `inverted_cdf`) by
    at most one bin, which is at most `2 * (maximum - minimum) / (bins - 2)`.

    Args:
        shape: shape of one item, `(dims,)` or `(rows, dims)`.
        names: name of each of the `dims` dimensions, for errors.
        bins: histogram bins per dimension.

    """

    def __init__(self, shape: tuple[int, ...], names: Sequence[str], bins: int = 8192) -> None:
        if not shape or len(names) != shape[-1]:
            raise NormalizationError(f"{len(names)} names for items of shape {shape}; the last axis is named")
        self.shape, self.names, self.bins = tuple(shape), tuple(names), bins
        size = int(np.prod(shape))
        self._count = np.zeros(size, np.int64)
        self._mean = np.zeros(size)
        self._m2 = np.zeros(size)
        self._minimum = np.full(size, np.inf)
        self._maximum = np.full(size, -np.inf)
        self._exponent = np.full(size, -1074)
        self._origin = np.zeros(size, np.int64)
        self._histogram = np.zeros((size, bins), np.int64)

    def update(self, values: FloatArray, valid: NDArray[np.bool_] | None = None) -> None:
        """Add items `(..., *shape)`; where `valid` (broadcast to the values) is false, a value is left out.

        Raises:
            NormalizationError: wrong shape, or a valid number that is not finite.

        """
        values = np.asarray(values, np.float64)
        if values.shape[values.ndim - len(self.shape) :] != self.shape:
            raise NormalizationError(f"values have shape {values.shape}; needed is (..., {str(self.shape)[1:-1]})")
        keep = np.broadcast_to(True if valid is None else valid, values.shape).reshape(-1, self._count.size)
        flat = values.reshape(-1, self._count.size)
        if not np.isfinite(flat[keep]).all():
            item, dim = (int(i) for i in np.argwhere(keep & ~np.isfinite(flat))[0])
            raise NormalizationError(f"{self._name(dim)} is {flat[item, dim]} in item {item}; it must be finite")
        count = keep.sum(0)
        if not count.any():
            return
        total = np.where(keep, flat, 0.0).sum(0)
        mean = total / np.maximum(count, 1)
        m2 = (np.where(keep, flat - mean, 0.0) ** 2).sum(0)
        self._merge_moments(count, mean, m2)
        low, high = np.where(keep, flat, np.inf).min(0), np.where(keep, flat, -np.inf).max(0)
        self._widen(np.minimum(self._minimum, low), np.maximum(self._maximum, high))
        index = np.floor(np.ldexp(np.where(keep, flat, 0.0), -self._exponent)).astype(np.int64) - self._origin
        index += np.arange(self._count.size) * self.bins
        self._histogram += np.bincount(index[keep], minlength=self._histogram.size).reshape(self._histogram.shape)

    def merge(self, other: StatisticsSketch) -> None:
        """Add everything that `other` has seen; the same as having seen it here.

        Raises:
            NormalizationError: another shape, other names or another number of bins.

        """
        mine, theirs = (self.shape, self.names, self.bins), (other.shape, other.names, other.bins)
        if mine != theirs:
            raise NormalizationError(f"cannot merge a sketch of (shape, names, bins) {theirs} into one of {mine}")
        self._merge_moments(other._count, other._mean, other._m2)
        self._widen(np.minimum(self._minimum, other._minimum), np.maximum(self._maximum, other._maximum))
        for dim in np.flatnonzero(other._count):
            self._pour(dim, other._histogram[dim], int(other._exponent[dim]), int(other._origin[dim]))

    def statistics(self, low: float = 0.01, high: float = 0.99) -> Statistics:
        """Statistics so far, with quantiles `low` and `high`.

        Raises:
            NormalizationError: a dimension has no value.

        """
        if not self._count.all():
            raise NormalizationError(f"{self._name(int(np.argmin(self._count)))} has no value; feed the dataset first")
        arrays = {
            "count": self._count.copy(),
            "minimum": self._minimum,
            "maximum": self._maximum,
            "mean": self._mean,
            "std": np.sqrt(self._m2 / self._count),
            "q_low": self._quantile(low),
            "q_high": self._quantile(high),
            "quantile_error": np.ldexp(1.0, self._exponent),
        }
        return Statistics(self.names, **{k: v.reshape(self.shape) for k, v in arrays.items()})

    def _name(self, flat_dim: int) -> str:
        return _name(self.names, np.unravel_index(flat_dim, self.shape))

    def _merge_moments(self, count: NDArray[np.int64], mean: FloatArray, m2: FloatArray) -> None:
        """Chan et al. (1979): parallel update of mean and sum of squared deviations."""
        total = np.maximum(self._count + count, 1)
        delta = mean - self._mean
        self._m2 += m2 + delta**2 * self._count * count / total
        self._mean += delta * count / total
        self._count = self._count + count

    def _widen(self, minimum: FloatArray, maximum: FloatArray) -> None:
        """Make the histogram of each dimension cover `[minimum, maximum]`, merging bins where needed."""
        for dim in np.flatnonzero((minimum < self._minimum) | (maximum > self._maximum)):
            low, high = float(minimum[dim]), float(maximum[dim])
            span = max(high - low, abs(low) * 2.0**-40, abs(high) * 2.0**-40)
            exponent = int(np.frexp(span / (self.bins - 1))[1]) - 1 if span else -1000
            exponent = max(exponent, int(self._exponent[dim]))
            while np.floor(np.ldexp(high, -exponent)) - np.floor(np.ldexp(low, -exponent)) >= self.bins:
                exponent += 1
            old = self._histogram[dim].copy(), int(self._exponent[dim]), int(self._origin[dim])
            self._histogram[dim] = 0
            self._exponent[dim], self._origin[dim] = exponent, int(np.floor(np.ldexp(low, -exponent)))
            self._pour(int(dim), *old)
        self._minimum, self._maximum = minimum, maximum

    def _pour(self, dim: int, counts: NDArray[np.int64], exponent: int, origin: int) -> None:
        """Add counts of bins `2**exponent` wide from `origin` on, to the bins of `dim`, which are as wide or wider."""
        filled = np.flatnonzero(counts)
        if filled.size:
            coarser = min(int(self._exponent[dim]) - exponent, 62)
            np.add.at(self._histogram[dim], ((origin + filled) >> coarser) - self._origin[dim], counts[filled])

    def _quantile(self, q: float) -> FloatArray:
        rank = np.clip(np.ceil(q * self._count), 1, self._count)
        cumulative = self._histogram.cumsum(1)
        bin_ = (cumulative < rank[:, None]).sum(1)
        rows = np.arange(bin_.size)
        inside = self._histogram[rows, bin_]
        share = (rank - (cumulative[rows, bin_] - inside) - 0.5) / inside
        return np.clip(np.ldexp(self._origin + bin_ + share, self._exponent), self._minimum, self._maximum)


@dataclass(frozen=True)
class Normalizer:
    """Affine map per dimension: `low -> -1`, `high -> +1`. Values outside are not clipped (tokenizers clip and count).

    Arrays are `(dims,)`, or `(rows, dims)` for statistics per (row, dimension). A dimension with `low == high` is
    held: it normalises to 0 and comes back as `low`, whatever the model says.
    """

    kind: Kind
    names: tuple[str, ...]
    low: FloatArray
    high: FloatArray

    def __post_init__(self) -> None:
        low, high = (np.array(v, np.float64) for v in (self.low, self.high))
        if low.shape != high.shape or low.ndim not in (1, 2) or low.shape[-1] != len(self.names):
            raise NormalizationError(
                f"low {low.shape}, high {high.shape} and {len(self.names)} names do not fit; "
                "needed is (dims,) or (rows, dims) with one name per dimension"
            )
        bad = ~(np.isfinite(low) & np.isfinite(high) & (low <= high))
        if bad.any():
            at = tuple(np.argwhere(bad)[0])
            raise NormalizationError(
                f"{_name(self.names, at)} maps [{low[at]}, {high[at]}] to [-1, 1]; low is below high"
            )
        for name, value in (("low", low), ("high", high)):
            value.setflags(write=False)
            object.__setattr__(self, name, value)

    @staticmethod
    def fit(
        statistics: Statistics,
        kind: Kind = "quantile",
        *,
        bounds: Mapping[str, tuple[float, float]] | None = None,
        constant: Constant = "error",
        sigmas: float = 3.0,
        minimum_range: float = 1e-6,
    ) -> Normalizer:
        """Build from statistics.

        Args:
            statistics: of the training data alone.
            kind: "quantile" maps q01 and q99 to -1 and +1 (E0's choice), "mean_std" maps `mean -+ sigmas * std`.
            bounds: dimensions whose range is known, by name (a gripper opening has 0 to 1).
            constant: what to do with a dimension whose range is below `minimum_range`: "error", or "hold" its mean.
            sigmas: deviations that fill [-1, 1]. At 1 a third of normally distributed values clip.
            minimum_range: in the units of the dimension.

        Raises:
            NormalizationError: unknown name, or a constant dimension; the message names it and the way out.

        """
        if unknown := sorted(set(bounds or {}) - set(statistics.names)):
            raise NormalizationError(f"bounds for {', '.join(unknown)}; dimensions are {', '.join(statistics.names)}")
        if kind == "quantile":
            low, high = statistics.q_low.copy(), statistics.q_high.copy()
        else:
            half = sigmas * statistics.std
            low, high = statistics.mean - half, statistics.mean + half
        for name, (bound_low, bound_high) in (bounds or {}).items():
            low[..., statistics.names.index(name)] = bound_low
            high[..., statistics.names.index(name)] = bound_high
        flat = high - low < minimum_range
        if flat.any() and constant == "error":
            at = tuple(np.argwhere(flat)[0])
            raise NormalizationError(
                f"{_name(statistics.names, at)} has zero range: {kind} bounds are [{low[at]:.6g}, {high[at]:.6g}] over "
                f"{statistics.count[at]} values (minimum {statistics.minimum[at]:.6g}, maximum "
                f"{statistics.maximum[at]:.6g}). Give its bounds, hold it constant, or leave it out"
            )
        held = np.clip(statistics.mean, statistics.minimum, statistics.maximum)
        low, high = np.where(flat, held, low), np.where(flat, held, high)
        return Normalizer(kind, statistics.names, low, high)

    def normalize(self, values: FloatArray) -> FloatArray:
        """Map `(..., *shape)` to [-1, 1], unclipped.

        Raises:
            NormalizationError: wrong shape, or a number that is not finite.

        """
        values = self._checked(values)
        held = self.high == self.low
        scale = np.where(held, 1.0, self.high - self.low)
        return np.where(held, 0.0, (values - self.low) / scale * 2.0 - 1.0)

    def denormalize(self, values: FloatArray) -> FloatArray:
        """Inverse of `normalize`; same shapes and errors."""
        return self.low + (self._checked(values) + 1.0) / 2.0 * (self.high - self.low)

    def _checked(self, values: FloatArray) -> FloatArray:
        values = np.asarray(values, np.float64)
        shape = self.low.shape
        if values.shape[max(values.ndim - len(shape), 0) :] != shape:
            raise NormalizationError(f"values have shape {values.shape}; statistics are for (..., {str(shape)[1:-1]})")
        if not np.isfinite(values).all():
            at = tuple(np.argwhere(~np.isfinite(values))[0])
            raise NormalizationError(
                f"{self.names[at[-1]]} is {values[at]} at {tuple(map(int, at))}; it must be finite"
            )
        return values

    def to_json(self) -> dict[str, Any]:
        """Plain values for a JSON file."""
        return {"kind": self.kind, "names": list(self.names), "low": self.low.tolist(), "high": self.high.tolist()}

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> Normalizer:
        """Read what `to_json` wrote.

        Raises:
            NormalizationError: a key is missing, or the values do not fit.

        """
        if missing := sorted({"kind", "names", "low", "high"} - set(data)):
            raise NormalizationError(f"normalisation statistics lack {', '.join(missing)}")
        if data["kind"] not in ("quantile", "mean_std"):
            raise NormalizationError(f"normalisation kind is {data['kind']!r}; allowed are quantile, mean_std")
        names = tuple(str(name) for name in data["names"])
        return Normalizer(data["kind"], names, np.asarray(data["low"], float), np.asarray(data["high"], float))


def _name(names: tuple[str, ...], at: tuple[Any, ...]) -> str:
    return names[int(at[-1])] + (f" (row {int(at[0])})" if len(at) == 2 else "")
