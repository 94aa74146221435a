"""`e0 bench`: run the benchmarks, print one table, write JSON and Markdown.

A benchmark is a module of this package with `run(seconds) -> dict[str, float]`, a figure's name ending in its unit. It
may have `TARGETS`, from a figure's name to what it should be: `{"lost": "<= 0"}`.
"""

from __future__ import annotations

import argparse
import pkgutil
import re
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path

import e0_ros.bench
from e0_policy.files import write_json
from e0_ros.config import closest
from e0_ros.own_domain import own_domain

NO_BENCHMARKS = ("command", "processes")
HEADINGS = ("benchmark", "figure", "median", "n", "spread", "target", "met")


@dataclass(frozen=True)
class Figure:
    """One line of the table: median, smallest and largest of `n` repetitions, and the target if there is one."""

    benchmark: str
    name: str
    median: float
    n: int
    low: float
    high: float
    target: str = ""

    @property
    def met(self) -> bool | None:
        """Whether the median meets the target; None without one."""
        if not self.target:
            return None
        relation, bound = self.target.split()
        return self.median <= float(bound) if relation == "<=" else self.median >= float(bound)

    def cells(self) -> tuple[str, ...]:
        """As text, in the order of HEADINGS."""
        met = {None: "", True: "yes", False: "NO"}[self.met]
        spread = f"{self.low:.4g} .. {self.high:.4g}"
        return self.benchmark, self.name, f"{self.median:.4g}", str(self.n), spread, self.target, met


def benchmarks() -> list[str]:
    """Names of the modules of `e0_ros.bench` that are benchmarks."""
    return sorted(m.name for m in pkgutil.iter_modules(e0_ros.bench.__path__) if m.name not in NO_BENCHMARKS)


def figures(benchmark: str, runs: Sequence[Mapping[str, float]], targets: Mapping[str, str]) -> list[Figure]:
    """Lines of a benchmark's repetitions.

    Raises:
        ValueError: a target of another form than `<= 2`, or for a figure that was not measured.

    """
    for name, target in targets.items():
        if name not in runs[0] or not re.fullmatch(r"(<=|>=) [-+.e\d]+", target):
            raise ValueError(f"target {target!r} of {name!r}; '<= 2' or '>= 2' of a measured figure is needed")
    lines = []
    for name in runs[0]:
        values = [float(run[name]) for run in runs]
        spread = min(values), max(values)
        lines.append(Figure(benchmark, name, statistics.median(values), len(values), *spread, targets.get(name, "")))
    return lines


def measure(name: str, seconds: float, repeat: int) -> list[Figure]:
    """Run one benchmark `repeat` times."""
    module = import_module(f"e0_ros.bench.{name}")
    return figures(name, [module.run(seconds) for _ in range(repeat)], getattr(module, "TARGETS", {}))


def table(lines: Sequence[Figure], markdown: bool = False) -> str:
    """The figures as aligned text, or as a Markdown table."""
    rows = [HEADINGS, *(line.cells() for line in lines)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(HEADINGS))]
    if markdown:
        rows.insert(1, tuple("-" * width for width in widths))
    texts = [(" | " if markdown else "  ").join(c.ljust(w) for c, w in zip(r, widths, strict=True)) for r in rows]
    return "\n".join(f"| {text} |" if markdown else text.rstrip() for text in texts)


def main(argv: Sequence[str] | None = None) -> int:
    """Run benchmarks; 1 if one of them fails to run (a missed target is a result, not a failure).

    They speak as cameras, arm, leader, policy and executor, so they have a ROS domain to themselves.
    """
    parser = argparse.ArgumentParser(prog="e0 bench", description="Measure.", epilog="example: e0 bench --seconds 10")
    parser.add_argument("names", nargs="*", help=f"{', '.join(benchmarks()) or 'none yet'}; default: all")
    parser.add_argument("--seconds", type=float, default=10.0, help="length of each measurement (default: 10)")
    parser.add_argument("--repeat", type=int, default=3, help="repetitions (default: 3)")
    parser.add_argument("--targets", action="store_true", help="show only figures that have a target")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures as JSON")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="also write the table as Markdown")
    options = parser.parse_args(argv)
    for name in options.names:
        if name not in benchmarks():
            parser.error(f"no benchmark {name!r}{closest(name, benchmarks())}")
    lines, failed = [], []
    with own_domain():
        for name in options.names or benchmarks():
            print(f"{name} ...", file=sys.stderr, flush=True)
            try:
                lines += measure(name, options.seconds, options.repeat)
            except Exception as error:
                failed.append(name)
                print(f"{name}: failed: {error}", file=sys.stderr)
    if options.targets:
        lines = [line for line in lines if line.target]
    print(table(lines))
    if options.json:
        data = [{**asdict(line), "met": line.met} for line in lines]
        write_json(options.json, data)
    if options.markdown:
        options.markdown.write_text(table(lines, markdown=True) + "\n", encoding="utf-8")
    return 1 if failed else 0
