"""`e0 record`: by hand in a graph, or unattended in a simulator."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from e0_ros import record_command
from e0_ros.graph import GRAPHS
from sim import record_bulk


def main(argv: Sequence[str] | None = None) -> int:
    """Record by hand if a graph is named or `--attach` is given, else unattended."""
    words = list(sys.argv[1:] if argv is None else argv)
    by_hand = "--attach" in words or (bool(words) and words[0] in GRAPHS)
    return (record_command if by_hand else record_bulk).main(words)
