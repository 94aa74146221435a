"""Statistics of a dataset as LeRobot 0.4.4 defines them (`lerobot/datasets/compute_stats.py`).

Quantiles come from a histogram of 5000 bins per episode and column; a dataset's quantiles are the mean of its
episodes', weighted by their frames. Images: a sample of frames, per channel, in [0, 1], shape `(3, 1, 1)`.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from e0_policy.types import FloatArray, ImageArray

BINS = 5000
QUANTILES = {"q01": 0.01, "q10": 0.10, "q50": 0.50, "q90": 0.90, "q99": 0.99}
Stats = dict[str, NDArray[np.generic]]
"""`min max mean std` and the quantiles, each of a feature's shape, and `count` `(1,)`."""


def vector_stats(values: NDArray[np.generic]) -> Stats:
    """Statistics of a column `(T,)` (each of shape `(1,)`) or of vectors `(T, d)`; integers keep integer bounds."""
    table = values.reshape(len(values), -1)
    stats: Stats = {"min": table.min(axis=0), "max": table.max(axis=0)}
    wide = table.astype(np.float64)
    stats |= {"mean": wide.mean(axis=0), "std": wide.std(axis=0), "count": np.array([len(values)])}
    columns = [_quantiles(column, np.ones(len(column))) for column in wide.T]
    return stats | {name: np.array([column[name] for column in columns]) for name in QUANTILES}


def histogram(image: ImageArray) -> NDArray[np.uint32]:
    """How often each value occurs per channel, `(3, 256)`, over the pixels that LeRobot would take of an image."""
    height, width = image.shape[:2]
    if max(height, width) >= 300:
        step = int(max(height, width) / 150)
        image = np.ascontiguousarray(image[::step, ::step])
    counts = [cv2.calcHist([image], [channel], None, [256], [0, 256]) for channel in range(3)]
    return np.stack(counts)[..., 0].astype(np.uint32)


def image_stats(histograms: Sequence[NDArray[np.uint32]]) -> Stats:
    """Statistics of an episode's view from the histograms of all its frames."""
    chosen = sample_indices(len(histograms))
    counts = np.sum([histograms[i] for i in chosen], axis=0, dtype=np.float64)  # (3, 256)
    values, total = np.arange(256.0), counts.sum(axis=1)
    mean = counts @ values / total
    std = np.sqrt(np.maximum(0, counts @ values**2 / total - mean**2))
    present = [np.flatnonzero(channel) for channel in counts]
    bounds = {"min": np.array([p[0] for p in present]), "max": np.array([p[-1] for p in present])}
    columns = [_quantiles(values[p], channel[p]) for p, channel in zip(present, counts, strict=True)]
    raw = {**bounds, "mean": mean, "std": std, **{n: np.array([c[n] for c in columns]) for n in QUANTILES}}
    stats: Stats = {name: (value / 255.0).reshape(3, 1, 1) for name, value in raw.items()}
    return stats | {"count": np.array([len(chosen)])}


def sample_indices(frames: int) -> list[int]:
    """Frames of an episode whose images count: all up to 100, then `frames ** 0.75`, at most 10000, evenly spread."""
    number = max(min(frames, 100), min(int(frames**0.75), 10_000))
    return [int(i) for i in np.round(np.linspace(0, frames - 1, number)).astype(int)]


def aggregate(parts: Sequence[Stats]) -> Stats:
    """One feature's statistics over several episodes (or datasets), weighted by their counts."""
    counts = np.stack([p["count"] for p in parts]).astype(np.float64)  # (n, 1)
    total = counts.sum(axis=0)

    def stacked(name: str) -> FloatArray:
        return np.stack([p[name] for p in parts]).astype(np.float64)

    mean_of = stacked("mean")
    weights = counts.reshape(len(parts), *[1] * (mean_of.ndim - 1))
    mean = (mean_of * weights).sum(axis=0) / total
    variance = ((stacked("std") ** 2 + (mean_of - mean) ** 2) * weights).sum(axis=0) / total
    stats: Stats = {
        "min": np.min(np.stack([p["min"] for p in parts]), axis=0),
        "max": np.max(np.stack([p["max"] for p in parts]), axis=0),
        "mean": mean,
        "std": np.sqrt(variance),
        "count": np.stack([p["count"] for p in parts]).sum(axis=0),
    }
    return stats | {name: (stacked(name) * weights).sum(axis=0) / total for name in QUANTILES}


def _quantiles(values: FloatArray, counts: FloatArray) -> dict[str, float]:
    edges = np.linspace(values.min() - 1e-10, values.max() + 1e-10, BINS + 1)
    held = np.histogram(values, bins=edges, weights=counts)[0]
    below = np.cumsum(held)
    return {name: _quantile(q * counts.sum(), held, below, edges) for name, q in QUANTILES.items()}


def _quantile(target: float, held: FloatArray, below: FloatArray, edges: FloatArray) -> float:
    """Where the cumulated count reaches `target`, linear within a bin; the first bin's lower edge if there."""
    index = int(np.searchsorted(below, target))
    if index == 0:
        return float(edges[0])
    if index >= len(below):
        return float(edges[-1])
    share = (target - below[index - 1]) / held[index] if held[index] else 0.0
    return float(edges[index] + share * (edges[index + 1] - edges[index]))
