"""`e0 doctor`: what is wrong with this machine, and what cures it."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from e0_policy.files import write_json
from e0_ros.config import add_arguments, from_arguments
from e0_ros.doctor import report
from e0_ros.doctor.checks import CHECKS, chosen, examine
from e0_ros.doctor.finding import RED, Bench
from e0_ros.doctor.listening import listen
from e0_ros.doctor.machine import Machine

_EPILOG = """examples:
  e0 doctor                                         # on a laptop
  e0 doctor --robot-ip 172.16.0.2 --gello --system-image 5.9.0
  e0 doctor --measure                               # beside a running graph: rates, skew
  e0 doctor --measure --robot-ip 172.16.0.2         # while none runs: the link to the arm
  e0 doctor --only usb clock --json doctor.json

green: seen and good. yellow: known to cause trouble. red: will fail; exit status 1. grey (?): cannot be seen from here.
"""


def main(argv: Sequence[str] | None = None, machine: Machine | None = None) -> int:
    """Examine a machine, by default this one. Exit status 0: nothing red, 1: something red, 2: wrong arguments."""
    parser = argparse.ArgumentParser(
        prog="e0 doctor",
        description="What is wrong with this machine, and what cures it.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="these checks or groups")
    parser.add_argument("--measure", action="store_true", help="also what takes time: streams and the arm's link")
    parser.add_argument("--list", action="store_true", help="every check and what it asks")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the findings as JSON")
    add_arguments(parser, Bench)
    options = parser.parse_args(argv)
    width = min(shutil.get_terminal_size((120, 24)).columns, 120)
    if options.list:
        print(report.listing(width))
        return 0
    checks = chosen(options.only, options.measure)
    results = examine(checks, machine or Machine(listen=listen), from_arguments(Bench, options))
    skipped = [] if options.only else [check for check in CHECKS if check not in checks]
    print(report.text(results, skipped, sys.stdout.isatty() and not os.environ.get("NO_COLOR"), width))
    if options.json:
        write_json(options.json, report.values(results))
    return 1 if any(result.finding.level == RED for result in results) else 0
