"""`python -m tests.faults.run [ROW ...]`: the fault matrix, executed and printed. Exit status 1: a row failed.

`--json FILE` has every row that is done as soon as it is. A run goes on from there: what its file holds of the same
version of the code is not run again, whatever came of it, unless `--again` asks for it.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import textwrap
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest

from e0_policy.files import write_json
from e0_ros.progress import Progress
from e0_ros.version import code_version
from tests.faults.matrix import MATRIX, Row

WIDTHS = (3, 34, 42, 46, 8)
HEAD = ("#", "fault", "target", "figure, or what no test covers", "verdict")
NOT_RUN = ["not run"]
VERDICTS = ("pass", "partly", "untested", "FAIL")


class Outcomes:
    """A pytest plugin that keeps each test's outcome and figure by its name without parameters.

    `beyond` says where a figure, which a test does not assert, is beyond what its row asks for.
    """

    def __init__(self) -> None:
        self.outcomes: dict[str, list[str]] = defaultdict(list)
        self.figures: dict[str, list[str]] = defaultdict(list)
        self.beyond: dict[str, list[str]] = defaultdict(list)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        name = report.nodeid.split("[")[0]
        if report.when == "call" or report.outcome != "passed":
            reason = report.longrepr[2] if report.skipped and isinstance(report.longrepr, tuple) else ""
            self.outcomes[name].append(f"{report.outcome} {reason}".strip())
            for kind, told in (("figure", self.figures), ("beyond", self.beyond)):
                told[name] += [str(v) for k, v in report.user_properties if k == kind]

    def pytest_keyboard_interrupt(self, excinfo: pytest.ExceptionInfo[BaseException]) -> None:
        """Some of a test's parameters may have passed, which is no outcome of the test."""
        if excinfo.type is KeyboardInterrupt:
            self.forget(list(self.outcomes))

    def take(self, other: Outcomes) -> None:
        """Add those of other tests."""
        for mine, theirs in zip(vars(self).values(), vars(other).values(), strict=True):
            mine.update(theirs)

    def forget(self, tests: Iterable[str]) -> None:
        """As if these tests had not been run."""
        for test in tests:
            for told in vars(self).values():
                told.pop(test, None)


def execute(tests: Iterable[str]) -> Outcomes:
    """Run tests, each file in a process of its own: Fast DDS remembers the network that a process has seen first."""
    run, files = Outcomes(), defaultdict[str, list[str]](list)
    for test in dict.fromkeys(tests):
        files[test.split("::")[0]].append(test)
    for chosen in files.values():
        with ProcessPoolExecutor(1, get_context("spawn")) as process:
            try:
                run.take(process.submit(_execute, chosen).result())
            except BrokenProcessPool as error:  # its tests count as not run
                print(f"{chosen[0].split('::')[0]}: {error}")
    return run


def _execute(tests: list[str]) -> Outcomes:
    run = Outcomes()
    pytest.main(["-q", "--no-header", *tests], plugins=[run])
    return run


def verdict(row: Row, run: Outcomes) -> str:
    """`pass`, `partly` (passed, but not all of it is tried, or not all of it was reached), `untested`, or `FAIL`."""
    found = [outcome for test in row.tests for outcome in run.outcomes.get(test, NOT_RUN)]
    if any(not outcome.startswith(("passed", "skipped")) for outcome in found):
        return "FAIL"
    if not any(outcome == "passed" for outcome in found):
        return "untested"
    skipped = any(outcome.startswith("skipped") for outcome in found)
    return "partly" if row.missing or skipped or any(run.beyond.get(test) for test in row.tests) else "pass"


def figure(row: Row, run: Outcomes) -> str:
    """What was measured (how often, if it is the same), else how many passed; what is beyond the target or missing."""
    counts = Counter(text for test in row.tests for text in run.figures.get(test, []))
    told = [text if n == 1 else f"{n} x {text}" for text, n in counts.items()]
    beyond = [f"BEYOND: {text}" for test in row.tests for text in run.beyond.get(test, [])]
    passed = sum(o == "passed" for test in row.tests for o in run.outcomes.get(test, []))
    silent = sum(o == "passed" for t in row.tests for o in run.outcomes.get(t, []) if not run.figures.get(t))
    others = [f"{silent} more passed" if told else f"{passed} passed"] if silent else []
    skipped = [o for test in row.tests for o in run.outcomes.get(test, []) if o != "passed"]
    return "; ".join([*told, *beyond, *others, *skipped, *([f"not: {row.missing}"] if row.missing else [])])


def table(rows: Iterable[Sequence[str]]) -> str:
    """Rows of cells, wrapped to `WIDTHS`."""
    lines = []
    for row in rows:
        cells = [textwrap.wrap(cell, width) or [""] for cell, width in zip(row, WIDTHS, strict=True)]
        for k in range(max(map(len, cells))):
            parts = (cell[k] if k < len(cell) else "" for cell in cells)
            lines.append("  ".join(part.ljust(width) for part, width in zip(parts, WIDTHS, strict=True)).rstrip())
    return "\n".join(lines)


class Results:
    """Outcomes by test in a file, which holds the rows as well, for people. One of another version is begun anew.

    `version` tells the code and how much its tests do; that of a changed checkout tells neither.
    """

    def __init__(self, path: Path, version: str) -> None:
        self.path, self.version, self.run = path, version, Outcomes()
        if "-dirty" not in version and path.exists():
            try:
                held = json.loads(path.read_text(encoding="utf-8"))
                tests = held["tests"] if held["version"] == version else {}
                for name, told in tests.items():
                    getattr(self.run, name).update(told)
            except (ValueError, KeyError, TypeError, AttributeError):
                raise SystemExit(f"{path} holds no results of the matrix; name another file") from None

    def write(self) -> None:
        """The file as of now."""
        done = [row for row in MATRIX if all(test in self.run.outcomes for test in row.tests)]
        rows = [self.told(row) for row in done]
        write_json(self.path, {"version": self.version, "rows": rows, "tests": vars(self.run)})

    def told(self, row: Row) -> dict[str, Any]:
        """A row with what came of it."""
        return {**asdict(row), "figure": figure(row, self.run), "verdict": verdict(row, self.run)}


def work(results: Results, chosen: Sequence[Row]) -> None:
    """Run what is not done yet of these rows; write and tell each as it ends."""
    progress = Progress(len(chosen), "rows")
    for row in chosen:
        todo = [test for test in row.tests if results.run.outcomes.get(test, NOT_RUN) == NOT_RUN]
        progress.say(f"row {row.number}: {row.fault}" + ("" if todo or not row.tests else f" ({results.path} has it)"))
        results.run.take(execute(todo))
        for test in todo:
            results.run.outcomes.setdefault(test, NOT_RUN)
        results.write()
        told = results.told(row)
        progress.say(f"row {row.number}: {told['verdict']}; {told['figure']}")
        progress.advance()
    progress.close()


def parse(arguments: Sequence[str]) -> tuple[argparse.Namespace, list[Row]]:
    """The options, and the rows that are asked for."""
    parser = argparse.ArgumentParser(prog="make faults", description=__doc__.split("\n", 1)[0])
    parser.add_argument("rows", nargs="*", metavar="ROW", help="numbers (default: all)")
    parser.add_argument(
        "--json", type=Path, default=Path("runs/faults.json"), metavar="FILE", help="default: %(default)s"
    )
    parser.add_argument("--again", action="store_true", help="run the rows also if the file has them")
    options = parser.parse_args(arguments)
    known = {str(row.number): row for row in MATRIX}
    if unknown := [word for word in options.rows if word not in known]:
        names = "\n".join(f"  {number:>2} {row.fault}" for number, row in known.items())
        parser.error(f"there is no row {', '.join(unknown)}; there are\n{names}")
    return options, [row for number, row in known.items() if not options.rows or number in options.rows]


def main(arguments: Sequence[str]) -> int:
    """Run the rows of these numbers, or all."""
    options, chosen = parse(arguments)
    results = Results(options.json, f"{code_version()}, {os.environ.get('E0_FAULTS', 'short')}")
    if options.again:
        results.run.forget(test for row in chosen for test in row.tests)
    try:
        work(results, chosen)
    except KeyboardInterrupt:
        print(f"\ninterrupted; the same again goes on from {options.json}")
        return 130
    told = [results.told(row) for row in chosen]
    print(
        "\n" + table([HEAD, *([str(t[k]) for k in ("number", "fault", "target", "figure", "verdict")] for t in told)])
    )
    verdicts = [t["verdict"] for t in told]
    print("\n" + ", ".join(f"{verdicts.count(word)} {word}" for word in VERDICTS) + f"; {options.json}")
    return int("FAIL" in verdicts)


if __name__ == "__main__":
    os.environ.setdefault("E0_FAULTS", "full")
    sys.exit(main(sys.argv[1:]))
