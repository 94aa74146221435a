"""`python -m tests.faults.run [ROW ...]`: the fault matrix, executed and printed. Exit status 1: a row failed."""

from __future__ import annotations

import os
import sys
import textwrap
from collections import defaultdict
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context

import pytest

from tests.faults.matrix import MATRIX, Row

WIDTHS = (3, 34, 42, 46, 8)
HEAD = ("#", "fault", "target", "figure, or what no test covers", "verdict")


class Outcomes:
    """A pytest plugin that keeps each test's outcome and figure by its name without parameters."""

    def __init__(self) -> None:
        self.outcomes: dict[str, list[str]] = defaultdict(list)
        self.figures: dict[str, list[str]] = defaultdict(list)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        name = report.nodeid.split("[")[0]
        if report.when == "call" or report.outcome != "passed":
            reason = report.longrepr[2] if report.skipped and isinstance(report.longrepr, tuple) else ""
            self.outcomes[name].append(f"{report.outcome} {reason}".strip())
            self.figures[name] += [str(v) for k, v in report.user_properties if k == "figure"]


def execute(tests: Iterable[str]) -> Outcomes:
    """Run tests, each file in a process of its own: Fast DDS remembers the network that a process has seen first."""
    run, files = Outcomes(), defaultdict[str, list[str]](list)
    for test in dict.fromkeys(tests):
        files[test.split("::")[0]].append(test)
    for chosen in files.values():
        with ProcessPoolExecutor(1, get_context("spawn")) as process:
            try:
                ended = process.submit(_execute, chosen).result()
            except BrokenProcessPool as error:  # its tests count as not run
                print(f"{chosen[0].split('::')[0]}: {error}")
                continue
        run.outcomes |= ended.outcomes
        run.figures |= ended.figures
    return run


def _execute(tests: list[str]) -> Outcomes:
    run = Outcomes()
    pytest.main(["-q", "--no-header", *tests], plugins=[run])
    return run


def verdict(row: Row, outcomes: dict[str, list[str]]) -> str:
    """`pass`, `partly` (passed, but not all of it is tried), `untested`, or `FAIL`."""
    found = [outcome for test in row.tests for outcome in outcomes.get(test, ["not run"])]
    if any(not outcome.startswith(("passed", "skipped")) for outcome in found):
        return "FAIL"
    if not any(outcome == "passed" for outcome in found):
        return "untested"
    skipped = any(outcome.startswith("skipped") for outcome in found)
    return "partly" if row.missing or skipped else "pass"


def figure(row: Row, run: Outcomes) -> str:
    """What was measured, else how many tests passed; and what is missing."""
    told = [text for test in row.tests for text in run.figures.get(test, [])]
    passed = sum(o == "passed" for test in row.tests for o in run.outcomes.get(test, []))
    silent = sum(o == "passed" for t in row.tests for o in run.outcomes.get(t, []) if not run.figures.get(t))
    others = [f"{silent} more passed" if told else f"{passed} passed"] if silent else []
    skipped = [o for test in row.tests for o in run.outcomes.get(test, []) if o != "passed"]
    return "; ".join([*told, *others, *skipped, *([f"not: {row.missing}"] if row.missing else [])])


def table(rows: Iterable[Sequence[str]]) -> str:
    """Rows of cells, wrapped to `WIDTHS`."""
    lines = []
    for row in rows:
        cells = [textwrap.wrap(cell, width) or [""] for cell, width in zip(row, WIDTHS, strict=True)]
        for k in range(max(map(len, cells))):
            parts = (cell[k] if k < len(cell) else "" for cell in cells)
            lines.append("  ".join(part.ljust(width) for part, width in zip(parts, WIDTHS, strict=True)).rstrip())
    return "\n".join(lines)


def main(arguments: Sequence[str]) -> int:
    """Run the rows of these numbers, or all."""
    chosen = [row for row in MATRIX if not arguments or str(row.number) in arguments]
    run = execute([test for row in chosen for test in row.tests])
    verdicts = [verdict(row, run.outcomes) for row in chosen]
    cells = [(str(r.number), r.fault, r.target, figure(r, run), v) for r, v in zip(chosen, verdicts, strict=True)]
    print("\n" + table([HEAD, *cells]))
    print("\n" + ", ".join(f"{verdicts.count(word)} {word}" for word in ("pass", "partly", "untested", "FAIL")))
    return int("FAIL" in verdicts)


if __name__ == "__main__":
    os.environ.setdefault("E0_FAULTS", "full")
    sys.exit(main(sys.argv[1:]))
