"""The findings as text for a terminal, and as plain values."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from e0_ros.doctor.checks import CHECKS, Check, Result
from e0_ros.doctor.finding import GREEN, GREY, LEVELS, RED, YELLOW

MARKS = {GREEN: ("ok", "32"), YELLOW: ("warn", "33"), RED: ("FAIL", "31"), GREY: ("?", "90")}
"""Word and colour of a level; the word alone must do."""
TITLES = {
    "host": "This host",
    "ros": "ROS 2",
    "arm": "Arm and controllers",
    "usb": "Cameras and leader arm",
    "time": "Time",
    "resources": "Disk, GPU, renderer",
}
_NAME, _MARK = 17, 5


def text(results: Sequence[Result], skipped: Sequence[Check], colour: bool, width: int) -> str:
    """The findings by group, each cure under what it cures, and a last line that counts."""
    lines: list[str] = []
    for group, title in TITLES.items():
        members = [result for result in results if result.check.group == group]
        if members:
            lines += ["", _bold(title, colour), *(line for r in members for line in _lines(r, colour, width))]
    counts = Counter(result.finding.level for result in results)
    words = [f"{counts[level]} {level}" for level in LEVELS if counts[level]]
    lines += ["", _bold(", ".join(words), colour)]
    if skipped:
        lines.append(f"not measured: {', '.join(check.name for check in skipped)} (--measure)")
    return "\n".join(lines[1:])


def _lines(result: Result, colour: bool, width: int) -> Iterator[str]:
    finding = result.finding
    word, code = MARKS[finding.level]
    mark = f"\033[{code}m{word:<{_MARK}}\033[0m" if colour else f"{word:<{_MARK}}"
    indent = " " * (2 + _MARK + _NAME + 1)
    first, *more = _wrap(finding.seen, width - len(indent))
    yield f"  {mark}{result.check.name:<{_NAME}} {first}"
    yield from (indent + line for line in more)
    if finding.cure and finding.level != GREEN:
        lead = "-> "
        wrapped = _wrap(finding.cure, width - len(indent) - len(lead))
        yield from (indent + (lead if i == 0 else " " * len(lead)) + line for i, line in enumerate(wrapped))


def listing(width: int) -> str:
    """Every check and what it asks."""
    rows = [f"  {c.name:<{_NAME}} {c.group:<10} {c.asks}{' (--measure)' if c.slow else ''}" for c in CHECKS]
    return "\n".join(["checks, their groups and what they ask:", *rows])


def values(results: Sequence[Result]) -> dict[str, Any]:
    """Plain values: the worst level, and per check its level, what was seen, the cure and the time taken [s]."""
    found = {
        result.check.name: {
            "group": result.check.group,
            "level": result.finding.level,
            "seen": result.finding.seen,
            "cure": result.finding.cure,
            "seconds": round(result.seconds, 3),
        }
        for result in results
    }
    levels = [result.finding.level for result in results]
    counts = {level: levels.count(level) for level in LEVELS}
    return {"red": counts[RED], "yellow": counts[YELLOW], "grey": counts[GREY], "green": counts[GREEN], "checks": found}


def _wrap(words: str, width: int) -> list[str]:
    """Lines of at most `width` characters; commands and paths are not broken inside."""
    return textwrap.wrap(words, max(width, 30), break_long_words=False, break_on_hyphens=False) or [""]


def _bold(words: str, colour: bool) -> str:
    return f"\033[1m{words}\033[0m" if colour else words
