from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sim.controllers import JointImpedanceController, JointTrajectoryController, Point, Trajectory

MS = 1_000_000
NAMES = ("a", "b")
HELD = np.array([0.1, -0.2])


def point(t_ms: float, *values: list[float]) -> Point:
    arrays = [np.array(v) for v in values]
    return Point(int(t_ms * MS), *arrays)


def trajectory(*points: Point, start_ms: float = 0.0, names: tuple[str, ...] = NAMES) -> Trajectory:
    return Trajectory(int(start_ms * MS), names, points)


def at(controller: JointTrajectoryController, t_ms: float) -> tuple[list[float], list[float]]:
    sample = controller.sample(np.array([int(t_ms * MS)]))
    return sample.positions[0].tolist(), sample.velocities[0].tolist()


def test_without_a_trajectory_it_holds() -> None:
    assert at(JointTrajectoryController(NAMES, HELD), 5) == ([0.1, -0.2], [0, 0])


def test_zero_stamp_starts_at_receipt_and_runs_linearly_from_the_state_there() -> None:
    controller = JointTrajectoryController(NAMES, HELD)
    assert controller.accept(trajectory(point(100, [1.1, 0.8]), point(200, [2.1, 0.8])), 1000 * MS, HELD) == ""
    assert at(controller, 1000)[0] == pytest.approx([0.1, -0.2])
    assert at(controller, 1050)[0] == pytest.approx([0.6, 0.3])
    assert at(controller, 1050)[1] == pytest.approx([10, 10])
    assert at(controller, 1150)[0] == pytest.approx([1.6, 0.8])
    assert at(controller, 1200) == ([2.1, 0.8], [0, 0])
    assert at(controller, 9000) == ([2.1, 0.8], [0, 0])


def test_past_stamp_is_sampled_in_the_middle_and_never_from_the_measured_state() -> None:
    controller = JointTrajectoryController(NAMES, HELD)
    message = trajectory(point(0, [0, 0]), point(100, [1, 2]), start_ms=1000)
    assert controller.accept(message, 1050 * MS, np.array([9.0, 9.0])) == ""
    assert at(controller, 1050)[0] == pytest.approx([0.5, 1.0])


def test_future_stamp_interpolates_from_the_state_at_receipt() -> None:
    controller = JointTrajectoryController(NAMES, HELD)
    assert controller.accept(trajectory(point(0, [1.1, 0.8]), start_ms=1100), 1000 * MS, HELD) == ""
    assert at(controller, 1025)[0] == pytest.approx([0.35, 0.05])


def test_velocities_make_a_cubic_and_accelerations_a_quintic() -> None:
    """Rest to rest over 1 s: mid-way speed is 1.5 for the cubic 3s^2-2s^3, 1.875 for the minimum-jerk quintic."""
    zero = [0.0, 0.0]
    for fields, speed, quarter in (([zero], 1.5, 0.15625), ([zero, zero], 1.875, 0.103515625)):
        controller = JointTrajectoryController(NAMES, HELD)
        points = point(0, zero, *fields), point(1000, [1.0, 2.0], *fields)
        assert controller.accept(trajectory(*points, start_ms=1), MS, HELD) == ""
        assert at(controller, 501)[0] == pytest.approx([0.5, 1.0])
        assert at(controller, 501)[1] == pytest.approx([speed, 2 * speed])
        assert at(controller, 251)[0] == pytest.approx([quarter, 2 * quarter])


def test_spline_order_is_that_of_the_fields_both_points_have() -> None:
    controller = JointTrajectoryController(NAMES, HELD)
    zero = [0.0, 0.0]
    points = point(0, zero, zero), point(1000, [1.0, 1.0])
    assert controller.accept(trajectory(*points, start_ms=1), MS, HELD) == ""
    assert at(controller, 251)[0] == pytest.approx([0.25, 0.25])


def test_before_the_first_point_the_measured_velocity_is_kept() -> None:
    """Cubic from (0.1, 1 rad/s) to (0.1, 0) over 1 s: c2 = -2, c3 = 1, hence 0.1 + 0.5 - 0.5 + 0.125 at half time."""
    controller = JointTrajectoryController(NAMES, HELD)
    message = trajectory(point(1000, [0.1, -0.2], [0.0, 0.0]), start_ms=1000)
    assert controller.accept(message, 1000 * MS, HELD, np.array([1.0, 0.0])) == ""
    assert at(controller, 1500)[0] == pytest.approx([0.225, -0.2])


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(-3, 3), min_size=12, max_size=12), st.integers(1, 400))
def test_quintic_meets_both_points(values: list[float], duration_ms: int) -> None:
    """Against a solve of the six boundary conditions."""
    a, b = np.array(values[:6]).reshape(3, 2), np.array(values[6:]).reshape(3, 2)
    t = duration_ms / 1e3
    rows = [[1, 0, 0, 0, 0, 0], [0, 1, 0, 0, 0, 0], [0, 0, 2, 0, 0, 0]]
    rows += [[t**k for k in range(6)], [k * t ** max(k - 1, 0) for k in range(6)]]
    rows += [[k * (k - 1) * t ** max(k - 2, 0) for k in range(6)]]
    scale = np.diag([t**-k for k in range(6)])
    expected = scale @ np.linalg.solve(np.array(rows) @ scale, np.vstack([a, b]))
    controller = JointTrajectoryController(NAMES, HELD)
    last = Point(2 * duration_ms * MS, b[0], np.zeros(2), np.zeros(2))
    points = Point(0, *a), Point(duration_ms * MS, *b), last
    assert controller.accept(Trajectory(MS, NAMES, points), MS, HELD) == ""
    for part in (0.0, 0.3, 0.99):
        s = int(part * duration_ms) / 1e3
        got = controller.sample(np.array([MS + int(part * duration_ms) * MS]))
        np.testing.assert_allclose(got.positions[0], np.array([s**k for k in range(6)]) @ expected, atol=1e-9)
        derivative = np.array([k * s ** max(k - 1, 0) for k in range(6)])
        np.testing.assert_allclose(got.velocities[0], derivative @ expected, atol=1e-7, rtol=1e-7)


VECTORS = Path(__file__).parent / "data" / "joint_trajectory_controller.json"


@pytest.mark.parametrize("case", json.loads(VECTORS.read_text()), ids=lambda c: f"{c['start_ns']}-{len(c['points'])}")
def test_samples_are_those_of_upstream(case: dict[str, Any]) -> None:
    """Vectors made by ros2_controllers' own `trajectory.cpp` (jazzy, 92535e670), which takes linear, cubic, quintic and
    mixed trajectories with zero, past and future stamps."""

    def point(p: dict[str, Any]) -> Point:
        q, v, a = (np.array(p[key]) if p[key] else None for key in "qva")
        assert q is not None
        return Point(p["t_ns"], q, v, a)

    state = point(case["state"])
    controller = JointTrajectoryController(NAMES, state.positions)
    message = Trajectory(case["start_ns"], NAMES, tuple(map(point, case["points"])))
    assert controller.accept(message, case["now_ns"], state.positions, state.velocities) == ""
    got = controller.sample(np.array([s["t_ns"] for s in case["samples"]]))
    np.testing.assert_allclose(got.positions, [s["q"] for s in case["samples"]], rtol=0, atol=1e-12)
    np.testing.assert_allclose(got.velocities, [s["v"] for s in case["samples"]], rtol=0, atol=1e-9)


def test_names_in_another_order_are_sorted() -> None:
    controller = JointTrajectoryController(NAMES, HELD)
    message = trajectory(point(0, [1, 2], [0, 0], [0, 0]), names=("b", "a"))
    assert controller.accept(message, MS, HELD) == ""
    assert at(controller, 1)[0] == [2, 1]


def test_what_upstream_rejects_leaves_the_running_trajectory() -> None:
    controller = JointTrajectoryController(NAMES, HELD)
    good = trajectory(point(0, [0, 0]), point(100, [1, 1]), start_ms=1000)
    assert controller.accept(good, 1000 * MS, HELD) == ""
    bad = {
        "not the controller's": trajectory(point(0, [1, 1]), names=("a", "c")),
        "are not the controller's": trajectory(point(0, [1]), names=("a",)),
        "no points": trajectory(),
        "positions of point 0 have 3": trajectory(point(0, [1, 1, 1])),
        "velocities of point 0 have 1": trajectory(point(0, [1, 1], [0])),
        "accelerations of point 1 have 0": trajectory(point(0, [1, 1]), point(1, [1, 1], [0, 0], [])),
        "strictly increasing": trajectory(point(1, [1, 1]), point(1, [1, 1])),
        "ended 400.0 ms ago": trajectory(point(0, [1, 1]), point(100, [1, 1]), start_ms=500),
        "velocity is not zero": trajectory(point(0, [1, 1], [0, 1e-6])),
        "accelerations without velocities": trajectory(Point(0, np.zeros(2), None, np.zeros(2))),
        "negative": trajectory(point(-1, [1, 1])),
    }
    for reason, message in bad.items():
        assert reason in controller.accept(message, 1000 * MS, HELD)
    assert at(controller, 1050)[0] == pytest.approx([0.5, 0.5])


def test_a_new_trajectory_replaces_the_running_one_at_once() -> None:
    controller = JointTrajectoryController(NAMES, HELD)
    assert controller.accept(trajectory(point(0, [0, 0]), point(100, [1, 1]), start_ms=1000), 1000 * MS, HELD) == ""
    later = trajectory(point(0, [0, 0]), point(100, [-1, -1]), start_ms=1000)
    assert controller.accept(later, 1050 * MS, HELD) == ""
    assert at(controller, 1050)[0] == pytest.approx([-0.5, -0.5])
    controller.hold(HELD)
    assert at(controller, 1060)[0] == [0.1, -0.2]


def impedance() -> JointImpedanceController:
    return JointImpedanceController(HELD, 1000 * MS)


def target(controller: JointImpedanceController) -> list[float]:
    return controller.sample(np.array([0, 1])).positions[1].tolist()


def test_impedance_holds_the_latest_target_for_ever() -> None:
    controller = impedance()
    assert target(controller) == [0.1, -0.2]
    assert controller.accept(np.array([1.0, 2.0, 3.0]), 1010 * MS, 1010 * MS) == ""
    assert target(controller) == [1.0, 2.0]
    assert controller.dead == ""


def test_impedance_dies_of_a_gap_of_half_a_second() -> None:
    controller = impedance()
    assert controller.accept(np.ones(2), 1100 * MS, 1100 * MS) == ""
    assert controller.accept(np.ones(2), 1599 * MS, 1599 * MS) == ""
    assert "0.500 s since the last stamp" in controller.accept(np.zeros(2), 2099 * MS, 2099 * MS)
    assert controller.dead
    assert controller.accept(np.zeros(2), 2100 * MS, 2100 * MS) == controller.dead
    assert target(controller) == [1, 1]
    controller.restart(HELD, 3000 * MS)
    assert controller.dead == ""
    assert controller.accept(np.zeros(2), 3001 * MS, 3001 * MS) == ""


def test_impedance_dies_of_an_old_stamp_but_waits_before_the_first_target() -> None:
    controller = impedance()
    assert controller.accept(np.ones(2), 1100 * MS, 1700 * MS) == ""
    assert controller.accept(np.ones(2), 1701 * MS, 1701 * MS) == ""
    assert target(controller) == [0.1, -0.2], "two stale ones: the second came 0.6 s after the first's stamp"
    assert controller.accept(np.ones(2), 1702 * MS, 1702 * MS) == ""
    assert target(controller) == [1, 1]
    assert "stopped" in controller.accept(np.ones(2), 1203 * MS, 1703 * MS)
    assert "has 1 positions" in impedance().accept(np.ones(1), 1100 * MS, 1100 * MS)
