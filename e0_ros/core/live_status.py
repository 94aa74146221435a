"""What a recording shows while it runs, from the graph's own words: rates, gaps, skew, trouble, disk time left."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

_KEY = re.compile(r"(?P<stream>\S+) (?P<what>rate|expected|gap|bound|skew|age|stale)(?: \[\w+\])?")
RATE_SHARE = 0.9


@dataclass(frozen=True)
class StreamStatus:
    """A stream in the last second, as observation_sync sees it; NaN where it says nothing."""

    name: str
    rate_hz: float = math.nan
    expected_hz: float = math.nan
    gap_ms: float = math.nan
    bound_ms: float = math.nan
    skew_ms: float = math.nan
    age_ms: float = math.nan

    def trouble(self, lockstep: bool = False) -> list[str]:
        """What is wrong with it. In lock-step nothing follows from rates and times."""
        if lockstep:
            return []
        found = []
        if self.rate_hz < RATE_SHARE * self.expected_hz:
            found.append(f"{self.rate_hz:.1f} Hz of {self.expected_hz:.1f} Hz")
        if max(self.gap_ms, 0.0 if self.age_ms < 0 else self.age_ms) > self.bound_ms:
            found.append(f"gap of {max(self.gap_ms, self.age_ms):.0f} ms")
        return found


@dataclass(frozen=True)
class Status:
    """All that is shown. `trouble` is observation_sync's own complaint; empty if observations flow."""

    streams: tuple[StreamStatus, ...] = ()
    trouble: str = ""
    instruction: str = ""
    recording: bool = False
    duration_s: float = 0.0
    size_bytes: int = 0
    lost: int = 0
    free_bytes: int = 0
    bytes_per_s: float = math.nan
    mode: str = ""
    silent: tuple[str, ...] = ()
    lockstep: bool = False


def streams_of(values: Mapping[str, str]) -> tuple[StreamStatus, ...]:
    """Streams from the key-value pairs of observation_sync's diagnostics."""
    found: dict[str, dict[str, float]] = {}
    units = {"rate": "rate_hz", "expected": "expected_hz", "gap": "gap_ms", "bound": "bound_ms", "skew": "skew_ms"}
    units["age"] = "age_ms"
    for key, text in values.items():
        match = _KEY.fullmatch(key)
        if match and match["what"] in units:
            found.setdefault(match["stream"], {})[units[match["what"]]] = _number(text)
    return tuple(StreamStatus(name, **numbers) for name, numbers in found.items() if "rate_hz" in numbers)


def minutes_left(free_bytes: int, bytes_per_s: float) -> float:
    """How long the disk lasts at this rate; NaN if nothing was written yet."""
    return free_bytes / bytes_per_s / 60.0 if bytes_per_s > 0 else math.nan


def lines(status: Status) -> Iterator[str]:
    """The view, a line each; what is wrong is marked with `!`."""
    yield _head(status)
    width = max((len(s.name) for s in status.streams), default=0)
    for s in status.streams:
        skew = "" if math.isnan(s.skew_ms) else f"  skew {s.skew_ms:6.1f} ms"
        mark = "".join(f"  ! {text}" for text in s.trouble(status.lockstep))
        yield f"  {s.name:<{width}}  {s.rate_hz:7.1f} Hz  gap {s.gap_ms:7.1f} ms{skew}{mark}"
    yield from troubles(status)


def line(status: Status) -> str:
    """The view in one line, for a log."""
    rates = ", ".join(f"{s.name} {s.rate_hz:.0f} Hz" for s in status.streams)
    return "; ".join([_head(status), rates, *(text.strip() for text in troubles(status))])


def troubles(status: Status) -> Iterator[str]:
    """What is wrong with the graph as a whole."""
    if status.trouble:
        yield f"  ! {status.trouble}"
    for node in status.silent:
        yield f"  ! {node} is silent"
    if status.lost:
        yield f"  ! {status.lost} messages lost"


def _head(status: Status) -> str:
    minutes = minutes_left(status.free_bytes, status.bytes_per_s)
    left = f"{status.free_bytes / 1e9:.1f} GB free" + ("" if math.isnan(minutes) else f", {minutes:.0f} min")
    state = f"REC {status.duration_s:6.1f} s {status.size_bytes / 1e6:7.2f} MB" if status.recording else "idle"
    return f"{state}  {left}  arm {status.mode or 'unknown'}  {status.instruction!r}"


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan
