"""From servo angles to joints, by property."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from e0_policy.embodiment import load_embodiment
from e0_policy.resources import config_dir
from e0_ros.config import ConfigError, from_mapping
from e0_ros.core.gello_geometry import (
    Calibration,
    calibration_text,
    fit_offsets,
    joints,
    load_calibration,
    nearest,
    opening,
    sign_of_turn,
    ticks_to_rad,
    turn_words,
)

ARM = load_embodiment("fr3")
SHIPPED = load_calibration(config_dir() / "gello.yaml")
SIGNS = st.lists(st.sampled_from([-1.0, 1.0]), min_size=7, max_size=7).map(np.array)
HOLES = st.lists(st.integers(0, 3), min_size=7, max_size=7).map(lambda h: np.array(h) * math.pi / 2)
TURNS = st.lists(st.integers(-50, 50), min_size=7, max_size=7).map(lambda t: np.array(t) * 2 * math.pi)
PARTS = st.lists(st.floats(0.0, 1.0), min_size=7, max_size=7).map(np.array)
ERRORS = st.lists(st.floats(-0.7, 0.7), min_size=7, max_size=7).map(np.array)


def pose(part):
    return ARM.position_lower + part * (ARM.position_upper - ARM.position_lower)


@settings(deadline=None, max_examples=40)
@given(SIGNS, HOLES, TURNS, PARTS, PARTS, ERRORS)
def test_a_calibrated_leader_reads_its_pose_whatever_the_assembly_and_the_turns(signs, holes, turns, at, then, error):
    calibration = replace(SHIPPED, signs=tuple(signs), offsets_rad=tuple(holes))
    raw = signs * (pose(at) + error) + holes + turns
    offsets, residual = fit_offsets(raw, pose(at), signs)
    np.testing.assert_allclose(offsets, holes, atol=1e-9)
    np.testing.assert_allclose(residual, error, atol=1e-9)
    moved = signs * pose(then) + holes + turns
    found = nearest(joints(replace(calibration, offsets_rad=tuple(offsets)), moved), pose(then))
    np.testing.assert_allclose(found, pose(then), atol=1e-9)


@settings(deadline=None, max_examples=40)
@given(PARTS, TURNS, st.floats(-3.0, 3.0))
def test_nearest_is_within_half_a_turn_and_a_whole_number_of_turns_away(part, turns, reference):
    found = nearest(pose(part) + turns, reference)
    assert np.abs(found - reference).max() <= math.pi + 1e-9
    whole = (found - pose(part)) / (2 * math.pi)
    np.testing.assert_allclose(whole, np.round(whole), atol=1e-9)


@settings(deadline=None, max_examples=40)
@given(st.floats(0.0, 1.0), st.integers(-5, 5), st.booleans())
def test_the_trigger_maps_to_an_opening_in_either_direction_and_any_turn(part, turns, other_way):
    ends = (2.9, 3.6) if other_way else (3.6, 2.9)
    calibration = replace(SHIPPED, gripper_open_rad=ends[0], gripper_closed_rad=ends[1])
    raw = np.append(np.zeros(7), ends[1] + part * (ends[0] - ends[1]) + turns * 2 * math.pi)
    assert opening(calibration, raw) == pytest.approx(part, abs=1e-9)
    assert opening(calibration, raw + np.append(np.zeros(7), 0.5 * np.sign(ends[0] - ends[1]))) <= 1.0


@settings(deadline=None, max_examples=40)
@given(SIGNS, HOLES, TURNS, PARTS, st.integers(0, 6), st.floats(0.11, 1.0))
def test_a_positive_turn_tells_the_sign_whatever_the_assembly_and_the_turns(signs, holes, turns, at, joint, by):
    before = signs * pose(at) + holes
    moved = pose(at) + by * np.eye(7)[joint]
    assert sign_of_turn(before, signs * moved + holes + turns, joint) == signs[joint]


def test_a_turn_that_tells_nothing_is_refused():
    still, turned = np.zeros(7), 0.3 * np.eye(7)[4]
    assert "at least 0.1 rad" in sign_of_turn(still, still + 0.05, 2)
    assert "joint 5 turned, by 0.30 rad; turn joint 3" in sign_of_turn(still, turned, 2)


def test_the_words_for_a_turn_are_those_of_the_arm():
    """Franka's axes at the pose of a calibration: 1 and 3 up, 2 left, 4 and 6 right, 5 to the front, 7 down."""
    q = np.array([0.0, 0.0, 0.0, -math.pi / 2, 0.0, math.pi / 2, 0.0])
    sides = [turn_words(q, i).removeprefix("counter-clockwise as seen from ") for i in range(7)]
    assert sides == ["above", "its left", "above", "its right", "its front", "its right", "below"]


def test_without_a_trigger_the_gripper_is_open():
    assert opening(replace(SHIPPED, gripper_id=0), np.zeros(7)) == 1.0
    assert replace(SHIPPED, gripper_id=0).ids == (1, 2, 3, 4, 5, 6, 7)


def test_ticks_are_a_4096th_of_a_turn_and_signed():
    np.testing.assert_allclose(ticks_to_rad([0, 2048, -4096]), [0, math.pi, -2 * math.pi])


def test_a_file_is_read_back_as_it_was_written(tmp_path):
    (tmp_path / "g.yaml").write_text(calibration_text(SHIPPED))
    assert load_calibration(tmp_path / "g.yaml") == SHIPPED


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"signs": [1.0] * 6}, "one per joint"),
        ({"signs": [0.5] * 7}, "each is 1 or -1"),
        ({"joint_ids": [1, 1, 2, 3, 4, 5, 6]}, "each may appear once"),
        ({"gripper_id": 7}, "each may appear once"),
        ({"gripper_open_rad": 2.9}, "at least 0.1 rad"),
        ({"offset_rad": [0.0] * 7}, "did you mean 'offsets_rad'"),
    ],
)
def test_a_wrong_file_says_what_is_wrong(wrong, said):
    with pytest.raises(ConfigError, match=said):
        from_mapping(Calibration, wrong, "gello.yaml")
