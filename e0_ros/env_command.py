"""`e0 env`: what this installation runs on; worth having in every bug report."""

from __future__ import annotations

import argparse
import platform
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as package_version
from pathlib import Path

from e0_policy.files import write_json
from e0_ros import environment

PACKAGES = ("rclpy", "numpy", "torch", "mani_skill", "transformers", "mcap", "rosbags", "opencv-python")


def version() -> str:
    """Version of this package."""
    try:
        return package_version("e0_ros")
    except PackageNotFoundError:
        return "unknown"


def report() -> dict[str, str]:
    """Facts by name."""
    facts = {
        "e0_ros": version(),
        "ros": str(environment.detect()),
        "python": f"{platform.python_version()} ({sys.executable})",
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
    }
    for name in PACKAGES:
        try:
            facts[name] = package_version(name)
        except PackageNotFoundError:
            facts[name] = "not installed"
    return facts


def main(argv: Sequence[str] | None = None) -> int:
    """Print the report."""
    parser = argparse.ArgumentParser(prog="e0 env", description="What this runs on.", epilog="example: e0 env")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write it as JSON")
    options = parser.parse_args(argv)
    facts = report()
    for name, value in facts.items():
        print(f"{name:<15}{value}")
    if options.json:
        write_json(options.json, facts)
    return 0
