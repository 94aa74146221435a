"""The numbers of an episode as columns, and columns as Arrow has them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from e0_policy.types import FloatArray, Observation
from e0_ros.core.dataset_facts import Facts
from e0_ros.core.dataset_stats import Stats
from e0_ros.core.pairing import GRIPPER, JOINTS

STATE, ACTION, INTERVENTION = "observation.state", "action", "e0.intervention"
NS_PER_MS = 1e6


def frame_columns(
    frames: list[Observation], actions: FloatArray, intervened: Sequence[bool], facts: Facts
) -> dict[str, NDArray[np.generic]]:
    """The numeric features of an episode but those that depend on its place in the dataset."""
    reference = facts.views[0]
    columns: dict[str, NDArray[np.generic]] = {
        STATE: np.array([state_of(frame) for frame in frames], np.float32),
        ACTION: actions.astype(np.float32),
    }
    columns[INTERVENTION] = np.array(intervened, np.float32)
    for view in facts.views:
        columns[f"e0.age_ms.{view}"] = _ms([-frame.view_skew_ns[view] for frame in frames])
    columns[f"e0.age_ms.{JOINTS}"] = _ms([frame.joint_skew_ns for frame in frames])
    columns[f"e0.age_ms.{GRIPPER}"] = _ms([frame.gripper_age_ns for frame in frames])
    for view in facts.views:
        columns[f"e0.skew_ms.{view}"] = _ms([f.view_skew_ns[view] - f.view_skew_ns[reference] for f in frames])
    index = np.arange(len(frames), dtype=np.int64)
    columns["timestamp"] = (index / facts.fps).astype(np.float32)
    columns["frame_index"] = index
    return columns


def arrow_column(values: NDArray[np.generic]) -> pa.Array:
    """A column of numbers, or of vectors as fixed-size lists."""
    if values.ndim == 1:
        return pa.array(values)
    return pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), values.shape[1])


def plain_stats(stats: Stats) -> dict[str, Any]:
    """Statistics as plain lists."""
    return {name: value.tolist() for name, value in stats.items()}


def state_of(frame: Observation) -> FloatArray:
    """Joint positions [rad], then the gripper opening."""
    return np.append(frame.joint_positions, frame.gripper_opening)


def _ms(values_ns: list[int]) -> NDArray[np.generic]:
    return (np.array(values_ns, np.float64) / NS_PER_MS).astype(np.float32)
