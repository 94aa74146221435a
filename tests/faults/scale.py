"""How much the fault tests do: a little in `make test`, what their targets name in `make faults`."""

from __future__ import annotations

import os

FULL = os.environ.get("E0_FAULTS") == "full"


def scaled(little: int, whole: int) -> int:
    """How many cases to run."""
    return whole if FULL else little
