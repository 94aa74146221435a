from dataclasses import replace
from types import SimpleNamespace as Made

import numpy as np
import pytest

from e0_policy.embodiment import load_embodiment
from e0_policy.kinematics import flange_pose, tcp_position_m
from e0_ros.core.camera_model import CameraModel
from e0_ros.core.plan_overlay import PAST, PLAIN, Plan, draw_plan, draw_scale, flange_at, latest, plan_of, scale_nats

ARM = load_embodiment("fr3")
PERIOD = 50_000_000
# 64 x 32 px in a panel of 128 x 128: scaled by 2, 32 px from the top; looks down the base's -z from 1 m
CAMERA = CameraModel(
    64,
    32,
    np.array([[32.0, 0.0, 31.5], [0.0, 32.0, 15.5], [0.0, 0.0, 1.0]]),
    "base",
    np.array([[1.0, 0, 0, 0], [0, -1, 0, 0], [0, 0, -1, 1.0], [0, 0, 0, 1]]),
)


def chunk(table: np.ndarray, **changed) -> Made:
    made = {"status": 0, "rows": len(table), "columns": table.shape[1], "data": table.ravel(), "period_ns": PERIOD}
    made |= {"representation": 0, "joint_names": list(ARM.joint_names), "t0": Made(sec=1, nanosec=5), "uncertainty": []}
    return Made(**{**made, **changed})


def rows(count: int = 4) -> np.ndarray:
    return np.hstack([ARM.home + np.linspace(0, 0.2, count)[:, None], np.ones((count, 1))])


def test_a_chunk_becomes_the_tools_path_in_time():
    plan = plan_of(chunk(rows(), uncertainty=[0.1, 0.2, 0.3, 0.4]), ARM)
    np.testing.assert_allclose(plan.points_m, tcp_position_m(rows()[:, :7]))
    np.testing.assert_array_equal(plan.times_ns, 10**9 + 5 + PERIOD * np.arange(4))
    assert plan.uncertainty.tolist() == [0.1, 0.2, 0.3, 0.4]
    poses = np.array([[0.4, 0.1, 0.2, 0, 0, 0, 1, 1.0]])
    assert plan_of(chunk(poses, representation=1), ARM).points_m.tolist() == [[0.4, 0.1, 0.2]]


@pytest.mark.parametrize(
    "changed",
    [
        {"status": 1},
        {"rows": 5},
        {"rows": 0, "data": []},
        {"data": np.full(32, np.nan)},
        {"joint_names": ["a"] * 7},
        {"representation": 2},
        {"period_ns": 0},
    ],
)
def test_what_cannot_be_placed_is_no_plan(changed):
    assert plan_of(chunk(rows(), **changed), ARM) is None


def test_seven_joints_of_another_make_are_not_placed():
    other, state = replace(ARM, kinematics="none"), Made(name=list(ARM.joint_names), position=ARM.home)
    assert plan_of(chunk(rows()), ARM) and plan_of(chunk(rows()), other) is None
    assert flange_at(state, ARM) is not None and flange_at(state, other) is None


def plan(*points: tuple[float, float, float], uncertainty: list[float] | None = None) -> Plan:
    times = PERIOD * np.arange(len(points), dtype=np.float64)
    return Plan(times, np.array(points), None if uncertainty is None else np.array(uncertainty))


def test_rows_are_drawn_where_the_camera_sees_them():
    panel = np.zeros((128, 128, 3), np.uint8)
    draw_plan(panel, plan((0.5, 0.25, 0.0)), CAMERA, 0, 0.0)
    ys, xs = np.nonzero(panel.any(axis=2))
    # the camera's pixel (31.5 + 16, 15.5 - 8), whose centre lies at ((p + 0.5) * 2 - 0.5) and 32 px further down
    assert (xs.mean(), ys.mean()) == pytest.approx((95.5, 47.5), abs=0.3)
    assert tuple(panel[47, 95]) == PLAIN


def test_doubt_is_shown_as_colour_and_the_past_as_grey():
    panel = np.zeros((128, 128, 3), np.uint8)
    points = [(-0.5, 0.0, 0.0), (0.0, 0.0, 0.0), (0.5, 0.0, 0.0)]
    draw_plan(panel, plan(*points, uncertainty=[0.0, 0.0, 2.0]), CAMERA, PERIOD, 1.0)
    past, sure, unsure = panel[63, 31], panel[63, 63], panel[63, 95]
    assert tuple(past) == PAST
    assert sure[2] > sure[0] and unsure[0] > 2 * unsure[2]  # blue, and red
    between = panel[63, 79]
    assert between[0] > 2 * between[2]  # a segment has the colour of the row that it leads to


def test_points_behind_the_camera_and_far_outside_do_no_harm():
    panel = np.zeros((128, 128, 3), np.uint8)
    draw_plan(panel, plan((0.0, 0.0, 5.0), (1e9, 0.0, 0.0), (0.0, 0.0, 1.0)), CAMERA, 0, 0.0)
    assert not panel.any()


def test_the_wrists_camera_needs_the_flange():
    on_flange = CameraModel(64, 32, CAMERA.intrinsics, "flange", np.eye(4))
    panel = np.zeros((128, 128, 3), np.uint8)
    state = Made(name=list(reversed(ARM.joint_names)), position=np.array(ARM.home[::-1]))
    np.testing.assert_allclose(flange_at(state, ARM), flange_pose(ARM.home))
    assert flange_at(Made(name=["x"], position=np.zeros(1)), ARM) is None
    tool = plan(tuple(tcp_position_m(ARM.home)))
    draw_plan(panel, tool, on_flange, 0, 0.0)
    assert not panel.any()
    draw_plan(panel, tool, on_flange, 0, 0.0, flange_at(state, ARM))
    assert tuple(panel[63, 63]) == PLAIN  # the tool is straight ahead of the flange


def test_the_scale_ends_where_most_doubts_lie():
    assert scale_nats([chunk(rows())]) == 0.0
    assert scale_nats([chunk(rows(), uncertainty=[0.0, 1.0, 2.0, 3.0]), chunk(rows())]) == pytest.approx(2.85)
    panel = np.zeros((128, 128, 3), np.uint8)
    draw_scale(panel, 2.85)
    assert panel[-14].any() and not panel[:64].any()


def test_a_plan_is_shown_as_long_as_it_has_rows_to_come():
    shown = plan((0, 0, 0), (0, 0, 0))
    assert latest(shown, PERIOD) is shown and latest(shown, PERIOD + 1) is None and latest(None, 0) is None
