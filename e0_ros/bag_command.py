"""`e0 bag check` and `e0 bag repair`: is every byte of a bag as it was written, and what is whole of a broken one."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from e0_policy.files import write_json
from e0_ros.convert_bags import find_bags
from e0_ros.core.bag_check import WHOLE, BagState, check_bag
from e0_ros.core.bag_reader import BagReadError
from e0_ros.core.bag_recovery import recover
from e0_ros.core.definitions import installed


def line(state: BagState) -> str:
    """One line on a bag."""
    text = f"{state.state:<9}{state.path}  {state.kept} messages on {len(state.topics)} topics"
    if state.state == WHOLE:
        return text
    if state.missing is None:
        return f"{text}, what was lost was not counted: {'; '.join(state.damage)}"
    lost = ", ".join(f"{topic.topic} {topic.missing}" for topic in state.topics if topic.missing)
    return f"{text}, {state.missing} lost{f' ({lost})' if lost else ''}: {'; '.join(state.damage)}"


def check(argv: Sequence[str] | None = None) -> int:
    """`e0 bag check`. 0: all are whole; 1: one is not."""
    parser = argparse.ArgumentParser(
        prog="e0 bag check",
        description="Read every byte of bags, validate every checksum, and count messages against metadata.yaml.",
        epilog="example: e0 bag check bags   (exit status 1 if a bag is not whole)",
    )
    parser.add_argument("places", nargs="+", type=Path, help="bag folders, .mcap files, or folders of bags")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write what was found as JSON")
    options = parser.parse_args(argv)
    states, failed = [], False
    for path in find_bags(options.places):
        try:
            states.append(check_bag(path))
            print(line(states[-1]))
        except BagReadError as error:
            print(f"e0 bag check: {error}", file=sys.stderr)
            failed = True
    if options.json:
        found = [asdict(s) | {"path": str(s.path), "kept": s.kept, "missing": s.missing} for s in states]
        write_json(options.json, {"bags": found})
    return int(failed or any(state.state != WHOLE for state in states))


def repair(argv: Sequence[str] | None = None) -> int:
    """`e0 bag repair`. 0: all are whole now; 1: one cannot be read, or its copy is there already."""
    parser = argparse.ArgumentParser(
        prog="e0 bag repair",
        description="Copy what is whole of a partial or damaged bag to <bag>-recovered beside it. The original stays; "
        "the copy is unlabelled and says in its metadata what was lost.",
        epilog="example: e0 bag repair bags/20260101-120000.partial",
    )
    parser.add_argument("bags", nargs="+", type=Path, help="bag folders or .mcap files")
    failed = False
    for path in parser.parse_args(argv).bags:
        try:
            state = check_bag(path)
            print(line(state))
            if state.state != WHOLE:
                print(line(check_bag(recover(path, installed()).path)))
        except BagReadError as error:
            print(f"e0 bag repair: {error}", file=sys.stderr)
            failed = True
    return int(failed)
