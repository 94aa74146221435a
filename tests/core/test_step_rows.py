from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from e0_policy.embodiment import load_embodiment
from e0_policy.types import Representation
from e0_ros.core.step_rows import OSC_POSE, TWO_ARMS, StepPoints

STEP = Representation.EE_DELTA_STEP


def message(row: list[float], **changes: Any) -> SimpleNamespace:
    told = {"status": 0, "rows": 1, "columns": len(row), "data": row, "representation": STEP, "source": "scripted"}
    return SimpleNamespace(**{**told, **changes})


def test_columns_have_names_and_end_with_the_gripper() -> None:
    """RoboTwin's are its embodiment's joints, among which are the grippers."""
    for names in (OSC_POSE, TWO_ARMS):
        assert len(set(names)) == len(names) and names[-1] == "gripper"
    assert TWO_ARMS[:-1] == load_embodiment("dual_panda").joint_names[:-1]


def test_a_frame_has_the_row_of_its_own_step_and_none_where_the_simulator_stood() -> None:
    points = StepPoints(OSC_POSE)
    assert points.start_ns is None and not points.has(50)
    points.add_step(50, message([0.1] * 7))
    points.add_step(100, SimpleNamespace(status=1))
    points.add_step(150, message([0.2] * 7, source="policy"))
    np.testing.assert_array_equal(points.at(150), [0.2] * 7)
    assert [points.has(t) for t in (50, 75, 100, 150)] == [True, False, False, True]
    assert points.at(75) is None and points.start_ns == 50 and points.sources == ["policy", "scripted"]
    assert not points.held(100) and not points.intervened(150)


@pytest.mark.parametrize(
    "wrong",
    [
        message([0.1] * 8),
        message([0.1] * 14, rows=2, columns=7),
        message([0.1] * 7, representation=Representation.JOINT_POSITION),
        message([0.1] * 6 + [float("nan")]),
    ],
    ids=["columns", "rows", "meaning", "finite"],
)
def test_what_is_no_row_of_the_controller_is_refused(wrong: SimpleNamespace) -> None:
    with pytest.raises(ValueError, match=r"one row of dx, dy, dz, drx, dry, drz, gripper|must be finite"):
        StepPoints(OSC_POSE).add_step(50, wrong)
