"""Memory, threads and open files of processes over time, and whether they grow."""

from __future__ import annotations

import contextlib
import math
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

MIB = 2**20
BLOCKS = 8
"""Neighbouring samples are alike: the slope's error is that of slopes of a series whose blocks are left out in turn."""
LONG_H, ALLOWED_MIB_PER_H, ERRORS = 1.0, 1.0, 3.0
"""A life is long enough to tell from when it has settled this long; more than this beyond its error is growth."""


@dataclass(frozen=True)
class Sample:
    """At a time [s]: anonymous memory [bytes], threads, open files."""

    at_s: float
    memory: int
    threads: int
    files: int


class Growth(NamedTuple):
    """Slope of memory over time and its standard error [MiB/h]; NaN: too few samples."""

    mib_per_h: float
    error: float


@dataclass(frozen=True)
class Trend:
    """Growth per hour of the longest life of a process and of that life's second half, each with its standard error;
    what it held first and last. `more_threads` and `more_files` are how many more than at most in the first quarter
    there were at least in the last, which nothing that comes and goes adds to.
    """

    hours: float
    first: Sample
    last: Sample
    lives: int
    whole: Growth
    half: Growth
    more_threads: int
    more_files: int

    @property
    def long_enough(self) -> bool:
        """Whether its growth can be told at all."""
        return self.hours >= LONG_H and math.isfinite(self.half.error)

    @property
    def grows(self) -> str:
        """What of it grows, in words; empty: nothing, or its life is too short to tell."""
        if not self.long_enough:
            return ""
        slope, error = self.half
        memory = f"{slope:+.2f} +- {error:.2f} MiB/h" if slope - ERRORS * error > ALLOWED_MIB_PER_H else ""
        threads = f"{self.more_threads:+d} threads" if self.more_threads > 0 else ""
        files = f"{self.more_files:+d} files" if self.more_files > 0 else ""
        return ", ".join(filter(None, (memory, threads, files)))


def sample(pid: int, at_s: float) -> Sample | None:
    """What a process holds now; None: it has ended."""
    with contextlib.suppress(OSError, KeyError):
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        fields = dict(line.split(":", 1) for line in lines if ":" in line)
        memory = int(fields["RssAnon"].split()[0]) * 1024
        files = len(list(Path(f"/proc/{pid}/fd").iterdir()))
        return Sample(at_s, memory, int(fields["Threads"]), files)
    return None


class Gauges:
    """Samples by process name and life: a process that was started anew begins a new series."""

    def __init__(self) -> None:
        self._series: dict[str, dict[int, list[Sample]]] = defaultdict(lambda: defaultdict(list))

    def read(self, pids: dict[str, int], at_s: float) -> None:
        """Take a sample of each."""
        for name, pid in pids.items():
            if (taken := sample(pid, at_s)) is not None:
                self._series[name][pid].append(taken)

    def trends(self, settle_s: float) -> dict[str, Trend]:
        """Per process the trend of its longest life without that life's first `settle_s`."""
        found = {}
        for name, lives in self._series.items():
            longest = max(lives.values(), key=lambda samples: samples[-1].at_s - samples[0].at_s)
            settled = [s for s in longest if s.at_s >= longest[0].at_s + settle_s] or longest[-1:]
            hours, half = (settled[-1].at_s - settled[0].at_s) / 3600, settled[len(settled) // 2 :]
            slopes = growth(settled), growth(half)
            counts = more([s.threads for s in settled]), more([s.files for s in settled])
            found[name] = Trend(hours, settled[0], settled[-1], len(lives), *slopes, *counts)
        return found


def more(counts: list[int]) -> int:
    """The least of the last quarter above the most of the first."""
    quarter = max(1, len(counts) // 4)
    return min(counts[-quarter:]) - max(counts[:quarter])


def growth(samples: list[Sample]) -> Growth:
    """By least squares, the error by the jackknife over blocks."""
    if len(samples) < 2 * BLOCKS:
        return Growth(math.nan, math.nan)
    hours = np.array([s.at_s for s in samples]) / 3600
    mib = np.array([s.memory for s in samples]) / MIB
    block = np.arange(len(samples)) * BLOCKS // len(samples)
    without = np.array([np.polyfit(hours[block != k], mib[block != k], 1)[0] for k in range(BLOCKS)])
    error = math.sqrt((BLOCKS - 1) / BLOCKS * float(((without - without.mean()) ** 2).sum()))
    return Growth(float(np.polyfit(hours, mib, 1)[0]), error)
