"""`e0 compare`: evaluations on the same scenes against each other, pair by pair."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from e0_policy.files import write_json
from e0_ros.config import ConfigError
from sim.comparison import compare, open_run, table
from sim.comparison_page import write_page

DESCRIPTION = """\
Evaluations of `e0 eval` on the same tasks and seeds against each other. Every scene that two runs share is a pair, so
that luck with scenes does not count; McNemar's exact test says whether a difference could be chance. The first run is
what the others are compared with.
"""
EXAMPLES = """\
examples
  e0 compare runs/nano runs/nano-steps4
  e0 compare runs/shift/cameras-0deg runs/shift/cameras-5deg runs/shift/cameras-10deg --html shift.html
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Compare; 0, or 2 if there is nothing to compare."""
    raw = argparse.RawDescriptionHelpFormatter
    p = argparse.ArgumentParser(prog="e0 compare", description=DESCRIPTION, epilog=EXAMPLES, formatter_class=raw)
    p.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="folders of evaluations, two or more")
    p.add_argument("--html", type=Path, help="page to write (default: comparison.html in the last run's folder)")
    p.add_argument("--json", type=Path, help="write the figures to this file")
    options = p.parse_args(argv)
    try:
        page = compare_folders(options.runs, options.html, options.json)
    except ConfigError as error:
        print(f"e0 compare: {error}", file=sys.stderr)
        return 2
    print(f"\n  page  {page}")
    return 0


def compare_folders(folders: Sequence[Path], page: Path | None = None, figures: Path | None = None) -> Path:
    """Print the first run against each of the others; returns where the page was written.

    Raises:
        ConfigError: fewer than two runs, a folder without an evaluation, or runs that share no scene.

    """
    if len(folders) < 2:
        raise ConfigError("two evaluations or more are needed")
    runs = [open_run(folder) for folder in folders]
    told = [compare(runs[0], other) for other in runs[1:]]
    print("\n\n".join(table(runs[0], other, t) for other, t in zip(runs[1:], told, strict=True)))
    page = page or folders[-1] / "comparison.html"
    write_page(page, runs, told)
    if figures:
        write_json(figures, {"comparisons": told})
    return page


if __name__ == "__main__":
    sys.exit(main())
