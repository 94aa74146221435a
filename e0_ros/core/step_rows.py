"""Rows of benchmarks' own controllers (`Representation.EE_DELTA_STEP`): the names of their columns, and what was fed.

A stepped simulator is moved by such rows and by nothing else; the names are in every dataset and checkpoint of them.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from e0_policy.types import FloatArray, Representation

OSC_POSE = ("dx", "dy", "dz", "drx", "dry", "drz", "gripper")
"""Shares of 0.05 m and (as a rotation vector) 0.5 rad in the base frame, as robosuite's controller takes them."""
_LEFT, _RIGHT = ([f"{side}_joint{i}" for i in range(1, 8)] for side in ("left", "right"))
TWO_ARMS = (*_LEFT, "left_gripper", *_RIGHT, "gripper")
"""Absolute [rad], and openings, as RoboTwin takes them."""
STEP_NAMES = {"libero": OSC_POSE, "robotwin": TWO_ARMS}
"""By simulator."""


class StepPoints:
    """What each control step of an episode was fed, from the rows on /e0/sim/step; in the place of `SetPoints`."""

    def __init__(self, names: tuple[str, ...]) -> None:
        self._names = names
        self._rows: dict[int, FloatArray] = {}
        self._sources: set[str] = set()

    @property
    def start_ns(self) -> int | None:
        """Time of the first row, None if there is none yet."""
        return min(self._rows, default=None)

    @property
    def sources(self) -> list[str]:
        """Who planned the rows."""
        return sorted(self._sources)

    def add_step(self, stamp_ns: int, message: Any) -> None:
        """Take the e0_msgs/ActionChunk of a control step; one without a row is a step in which the simulator stood.

        Raises:
            ValueError: it is not one row of these columns.

        """
        if message.status != 0:
            return
        sizes = int(message.rows), int(message.columns), len(message.data), int(message.representation)
        columns = len(self._names)
        if sizes != (1, columns, columns, Representation.EE_DELTA_STEP):
            names = ", ".join(self._names)
            raise ValueError(
                f"a step of {sizes[0]} x {sizes[1]} numbers, representation {sizes[3]}; one row of {names}"
            )
        row = np.array(message.data, np.float64)
        if not np.isfinite(row).all():
            raise ValueError(f"a step's row is {row.tolist()}; every number must be finite")
        self._rows[stamp_ns] = row
        self._sources.add(str(message.source))

    def at(self, t: int) -> FloatArray | None:
        """Row `(columns,)` of the step that begins at `t`; None if the simulator stands in it."""
        return self._rows.get(t)

    def has(self, t: int) -> bool:
        """Whether a frame at `t` has an action."""
        return t in self._rows

    def held(self, t: int) -> bool:
        """Never: a step has its row or none."""
        return False

    def intervened(self, t: int) -> bool:
        """Never: no hand takes over in lock-step."""
        return False
