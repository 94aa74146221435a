from __future__ import annotations

import numpy as np
import pytest

from e0_ros.core.joint_names import gripper_opening, pick_joints

WANTED = ("a", "b", "c")


def test_joints_are_picked_by_name_from_any_order_and_company() -> None:
    picked = pick_joints(["finger", "c", "a", "b"], [9.0, 3.0, 1.0, 2.0], WANTED)
    np.testing.assert_array_equal(picked, [1.0, 2.0, 3.0])


@pytest.mark.parametrize(
    ("names", "positions", "text"),
    [
        (["a", "c"], [1.0, 2.0], "no joint b; got a, c"),
        ([], [], "no joint a, b, c; got none"),
        (["a", "b", "c"], [1.0, 2.0], "3 joint names for 2 positions"),
        (["a", "b", "c", "a"], [1.0, 2.0, 3.0, 4.0], "repeated joint names"),
        (["a", "b", "c"], [1.0, float("nan"), 3.0], "every number must be finite"),
    ],
)
def test_what_does_not_fit_is_refused(names: list[str], positions: list[float], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        pick_joints(names, positions, WANTED)


@pytest.mark.parametrize(("finger_m", "opening"), [(0.0, 0.0), (0.02, 0.5), (0.04, 1.0), (0.041, 1.0), (-0.001, 0.0)])
def test_the_opening_is_the_fingers_share_of_the_width(finger_m: float, opening: float) -> None:
    assert gripper_opening(["l", "r"], [finger_m, finger_m], ["l", "r"], 0.08) == pytest.approx(opening)
