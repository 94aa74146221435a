"""Where a LeRobotDataset keeps what training needs, and how its numbers become ours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from e0_policy.types import FloatArray

GRIPPER_SLACK = 0.1
"""By how much a measured opening may leave [0, 1]; it is clipped."""

NEXT_STATE = "next_state"


class LayoutError(ValueError):
    """A dataset is not laid out as was said; the message says what was got and what to change."""


@dataclass(frozen=True)
class Layout:
    """Where a dataset of others keeps what we need. The defaults are right for ours.

    Actions must be absolute joint positions; where a dataset has none, `action: next_state` takes the state of the
    frame after.

    Args:
        embodiment: whose demonstrations they are, as in `config/embodiment/`.
        views: our names of views to the dataset's features; empty takes every `observation.images.<view>`.
        state: feature with the joint positions and the gripper.
        state_columns: columns of the joints in the embodiment's order, then the gripper; empty takes all.
        action: feature with the commands, or `next_state`.
        action_columns: as `state_columns`.
        degrees: whether joints are in degrees.
        gripper_closed: the dataset's value for a closed gripper.
        gripper_open: its value for an open one.

    Raises:
        LayoutError: a value of another kind.

    """

    embodiment: str = ""
    views: Mapping[str, str] = field(default_factory=dict)
    state: str = "observation.state"
    state_columns: tuple[int, ...] = ()
    action: str = "action"
    action_columns: tuple[int, ...] = ()
    degrees: bool = False
    gripper_closed: float = 0.0
    gripper_open: float = 1.0

    def __post_init__(self) -> None:
        views = self.views.items() if isinstance(self.views, Mapping) else [(self.views, None)]
        if not all(isinstance(text, str) for pair in views for text in pair):
            raise LayoutError(f"views is {self.views!r}; needed are our names of views to the dataset's features")
        for name in ("embodiment", "state", "action"):
            if not isinstance(getattr(self, name), str):
                raise LayoutError(f"{name} is {getattr(self, name)!r}; needed is a text")
        for name in ("state_columns", "action_columns"):
            columns = getattr(self, name)
            if not isinstance(columns, tuple) or not all(type(c) is int and c >= 0 for c in columns):
                raise LayoutError(f"{name} is {columns!r}; needed are numbers of columns, the first is 0")
        for name in ("gripper_closed", "gripper_open"):
            if type(getattr(self, name)) not in (int, float):
                raise LayoutError(f"{name} is {getattr(self, name)!r}; needed is a number")
        if type(self.degrees) is not bool or self.gripper_closed == self.gripper_open:
            raise LayoutError(
                f"degrees is {self.degrees!r}, gripper_closed {self.gripper_closed!r}, gripper_open "
                f"{self.gripper_open!r}; needed are true or false, and two different numbers"
            )

    def joints_and_gripper(
        self, table: NDArray[np.float32], feature: str, columns: Sequence[int], names: Sequence[str]
    ) -> FloatArray:
        """Joint positions [rad] and gripper opening [0, 1] `(frames, len(names))` of a feature's values.

        Raises:
            LayoutError: another number of columns, or a gripper far outside of what was said.

        """
        if columns and max(columns) >= table.shape[1]:
            raise LayoutError(f"{feature} has {table.shape[1]} columns; column {max(columns)} was asked for")
        picked = table.astype(np.float64)[:, list(columns) if columns else slice(None)]
        if picked.shape[1] != len(names):
            raise LayoutError(
                f"{feature} has {picked.shape[1]} columns; {len(names)} are needed: {', '.join(names)}. Pick them with "
                "state_columns and action_columns"
            )
        joints = np.deg2rad(picked[:, :-1]) if self.degrees else picked[:, :-1]
        gripper = (picked[:, -1:] - self.gripper_closed) / (self.gripper_open - self.gripper_closed)
        if gripper.min() < -GRIPPER_SLACK or gripper.max() > 1.0 + GRIPPER_SLACK:
            raise LayoutError(
                f"the gripper's column of {feature} spans {picked[:, -1].min():g} to {picked[:, -1].max():g}; closed "
                f"is {self.gripper_closed:g}, open {self.gripper_open:g}. Give gripper_closed and gripper_open"
            )
        return np.concatenate([joints, np.clip(gripper, 0.0, 1.0)], 1)
