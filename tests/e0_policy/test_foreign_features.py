from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from e0_policy.embodiment import load_embodiment
from e0_policy.foreign_features import FeatureError, Features, features_of, fitted
from e0_policy.types import Observation, Representation

ARM = load_embodiment("panda")
JOINTS = np.linspace(0.1, 0.7, 7)
VIEWS = {
    "base": np.full((48, 64, 3), 200, np.uint8),
    "wrist": np.arange(64 * 64 * 3, dtype=np.uint8).reshape(64, 64, 3),
}
SEEN = Observation(1_000, VIEWS, JOINTS, 0.25, "push it", "panda", ARM.joint_names)
OURS = Features(views={"base": "observation.images.base"}, image_px=32)


def test_what_droids_policies_are_fed_and_answer() -> None:
    droid = features_of(
        {
            "views": {"base": "observation/exterior_image_1_left", "wrist": "observation/wrist_image_left"},
            "image_px": 64,
            "rotate": ["wrist"],
            "state": {"observation/joint_position": ["joints"], "observation/gripper_position": ["gripper"]},
            "action": "joint_velocity",
            "gripper_state": [1.0, 0.0],
            "gripper_action": [1, 0],
            "period_ms": 100,
        }
    )
    told = droid.request([SEEN])
    assert set(told) == {*droid.views.values(), *droid.state, "prompt"} and told["prompt"] == "push it"
    assert told["observation/gripper_position"].tolist() == [0.75]
    assert np.allclose(told["observation/joint_position"], JOINTS)
    assert told["observation/exterior_image_1_left"].shape == (64, 64, 3)
    assert (
        not told["observation/exterior_image_1_left"][:8].any() and told["observation/exterior_image_1_left"][8].all()
    )
    assert np.array_equal(told["observation/wrist_image_left"], VIEWS["wrist"][::-1, ::-1])
    output = droid.output({"actions": np.hstack([np.ones((3, 7)), [[1.0], [0.5], [-7.0]]])}, SEEN, ARM)
    assert np.allclose(output.rows[:, 0], 0.1 + np.array([0.1, 0.2, 0.3])) and output.period_ns == 100_000_000
    assert output.rows[:, 7].tolist() == [0.0, 0.5, 1.0] and output.representation == Representation.JOINT_POSITION


@given(st.integers(1, 5), st.floats(-2.0, 2.0))
def test_absolute_rows_pass_and_deltas_are_from_the_joints_observed(count: int, value: float) -> None:
    rows = np.full((count, 8), value)
    assert np.array_equal(OURS.output({"actions": rows}, SEEN, ARM).rows[:, :7], rows[:, :7])
    moved = replace(OURS, action="joint_delta", action_scale=0.5).output({"actions": rows}, SEEN, ARM).rows
    assert np.allclose(moved[:, :7], JOINTS + 0.5 * value)


def test_columns_are_picked_and_poses_and_steps_of_a_benchmark_keep_their_meaning() -> None:
    wide = np.arange(32.0).reshape(1, 32)
    picked = replace(OURS, action_columns=(3, 1, 2, 0, 4, 5, 6, 31)).output({"actions": wide}, SEEN, ARM).rows
    assert picked[0].tolist() == [3, 1, 2, 0, 4, 5, 6, 1]
    assert OURS.output({"actions": wide}, SEEN, ARM).rows.shape == (1, 8)
    pose = replace(OURS, action="ee_pose").output({"actions": wide[:, :8]}, SEEN, ARM)
    assert pose.representation == Representation.EE_POSE and pose.rows[0].tolist() == [0, 1, 2, 3, 4, 5, 6, 1]
    step = replace(OURS, action="ee_delta_step").output({"actions": -wide[:, :7]}, SEEN, ARM)
    assert step.representation == Representation.EE_DELTA_STEP and step.rows[0].tolist() == [0, -1, -2, -3, -4, -5, 0]


def test_several_observations_are_stacked_with_the_present_one_last() -> None:
    before = replace(SEEN, gripper_opening=1.0, instruction="of before")
    told = replace(OURS, observations=2).request([before, SEEN])
    assert told["observation.images.base"].shape == (2, 32, 32, 3) and told["prompt"] == "push it"
    assert told["observation.state"][:, 7].tolist() == [1.0, 0.25]


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        ({}, "no rows 'actions'"),
        ({"actions": np.zeros(8)}, r"it has {'actions': \(8,\)}"),
        ({"actions": np.zeros((0, 8))}, "no rows"),
        ({"actions": [[1.0]]}, "'actions': 'list'"),
        ({"actions": np.zeros((4, 7))}, "have 7 columns; column 7 is needed"),
        ({"actions": np.full((4, 8), np.nan)}, "not finite"),
    ],
)
def test_answers_that_do_not_fit(answer: dict[str, Any], text: str) -> None:
    with pytest.raises(FeatureError, match=text):
        OURS.output(answer, SEEN, ARM)


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"view": {}}, "did you mean 'views'"),
        ({"views": {}}, "views is empty"),
        ({"views": "base"}, "no mapping"),
        ({"views": {"base": "x"}, "action": "torque"}, "allowed are joint_position"),
        ({"views": {"base": "x"}, "state": {"s": ["effort"]}}, "state has 'effort'"),
        ({"views": {"base": "x"}, "state": {"s": "joints"}}, "no list"),
        ({"views": {"base": "x"}, "rotate": ["wrist"]}, "rotate names 'wrist'"),
        ({"views": {"base": "x"}, "gripper_state": [1, 1]}, "closed and open"),
        ({"views": {"base": "x"}, "period_ms": 0}, "period_ms is 0"),
        ({"views": {"base": "x"}, "execution_horizon": "many"}, "invalid literal"),
    ],
)
def test_settings_that_are_wrong(values: dict[str, Any], text: str) -> None:
    with pytest.raises(FeatureError, match=text):
        features_of(values)


def test_a_missing_view_is_named() -> None:
    with pytest.raises(FeatureError, match="view 'top' is missing; got base, wrist"):
        replace(OURS, views={"top": "x"}).request([SEEN])


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 40), st.integers(1, 40))
def test_a_scaled_view_keeps_its_aspect_and_is_centred(h: int, w: int, height: int, width: int) -> None:
    out = fitted(np.full((h, w, 3), 255, np.uint8), (height, width), "x")
    assert out.shape == (height, width, 3) and out.max() == 255
    lit = np.argwhere(out[..., 0] == 255)
    (top, left), (bottom, right) = lit.min(0), lit.max(0)
    assert bottom - top + 1 == height or right - left + 1 == width
    assert abs(top - (height - 1 - bottom)) <= 2 and abs(left - (width - 1 - right)) <= 2
