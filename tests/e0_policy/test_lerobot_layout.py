from __future__ import annotations

import numpy as np
import pytest

from e0_policy.lerobot_layout import Layout, LayoutError

NAMES = ("one", "two", "gripper")


def test_columns_are_picked_and_brought_to_our_units():
    layout = Layout(degrees=True, gripper_closed=255.0, gripper_open=0.0)
    table = np.array([[9, 180, 255, 90], [9, 0, 0, -90], [9, 0, 260, 0]], np.float32)
    got = layout.joints_and_gripper(table, "state", (3, 1, 2), NAMES)
    np.testing.assert_allclose(got, [[np.pi / 2, np.pi, 0], [-np.pi / 2, 0, 1], [0, 0, 0]])


def test_the_defaults_leave_our_numbers_as_they_are():
    table = np.random.default_rng(0).uniform(0, 1, (5, 3)).astype(np.float32)
    np.testing.assert_array_equal(Layout().joints_and_gripper(table, "state", (), NAMES), table.astype(np.float64))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"views": ["base"]}, "views is .*; needed are our names of views"),
        ({"views": {"base": 3}}, "views is .*; needed are our names of views"),
        ({"state": 3}, "state is 3; needed is a text"),
        ({"state_columns": (0, -1)}, r"state_columns is \(0, -1\); needed are numbers of columns"),
        ({"gripper_open": "wide"}, "gripper_open is 'wide'; needed is a number"),
        ({"gripper_open": 0.0}, r"gripper_open 0\.0; needed are .*two different numbers"),
        ({"degrees": 1}, "degrees is 1"),
    ],
)
def test_settings_of_another_kind_are_named(settings, message):
    with pytest.raises(LayoutError, match=message):
        Layout(**settings)


def test_columns_that_are_not_there_are_named():
    with pytest.raises(LayoutError, match="state has 3 columns; column 7 was asked for"):
        Layout().joints_and_gripper(np.zeros((2, 3), np.float32), "state", (0, 1, 7), NAMES)
