from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from sim.controllers import Point, Trajectory
from sim.fr3_plant import Fr3Plant
from sim.judge import ACCELERATION, JERK, POSITION, VELOCITY
from sim.rig import Rig, Target

MS = 1_000_000


def rig(controller: str = "joint_trajectory", judged: bool = True, reflexes: bool = False) -> Rig:
    return Rig(Fr3Plant(width_px=16, height_px=16), controller, judged, 1000 * MS, reflexes=reflexes)


def move(r: Rig, start_ms: int, by: float, duration_ms: int = 400) -> Trajectory:
    q, zero = r.sample().positions, np.zeros(7)
    end = q.copy()
    end[0] += by
    points = Point(0, q, zero, zero), Point(duration_ms * MS, end, zero, zero)
    return Trajectory(start_ms * MS, r.arm.joint_names, points)


def test_every_physics_step_is_a_sample_of_the_set_point_at_its_end() -> None:
    r = rig()
    r.command(move(r, 1000, 0.1), 1000 * MS)
    start = r.sample().positions[0]
    played = r.advance(1200 * MS)
    assert [s.stamp_ns for s in played.samples] == [(1001 + i) * MS for i in range(200)]
    assert played.samples[-1].positions[0] == pytest.approx(start + 0.05)
    assert played.samples[-1].velocities[0] == pytest.approx(1.875 * 0.1 / 0.4)
    assert played.refused == played.violations == []


def test_a_command_acts_from_its_sending_even_when_physics_is_behind() -> None:
    one, two = rig(), rig()
    trajectory = move(one, 1000, 0.1)
    for r in (one, two):
        r.command(trajectory, 1000 * MS)
    second = Trajectory(1100 * MS, trajectory.joint_names, move(one, 0, -0.1).points)
    one.advance(1150 * MS)
    one.command(second, 1150 * MS)
    one.advance(1300 * MS)
    two.command(second, 1149 * MS + 1)
    two.advance(1300 * MS)
    assert (one.sample().positions == two.sample().positions).all()


def test_one_big_advance_equals_many_small_ones() -> None:
    one, two = rig(), rig()
    for r in (one, two):
        r.command(move(r, 1000, 0.1), 1003 * MS)
    big = one.advance(1100 * MS).samples
    small = [s for ms in range(1001, 1101) for s in two.advance(ms * MS).samples]
    assert all((a.positions == b.positions).all() for a, b in zip(big, small, strict=True))


def test_the_judge_hears_wrong_names_and_steps() -> None:
    r = rig()
    r.command(Trajectory(0, ("x",) * 7, move(r, 0, 0.1).points), 1000 * MS)
    played = r.advance(1001 * MS)
    assert "joint names" in played.refused[0] and len(played.violations) == 1
    q = r.sample().positions + 0.01
    r.command(Trajectory(1001 * MS, r.arm.joint_names, (Point(0, q),)), 1001 * MS)
    assert r.advance(1010 * MS).violations
    assert rig(judged=False).judge is None


def test_a_set_point_that_is_not_finite_stops_the_hardware_until_reset() -> None:
    r = rig()
    before = r.sample().positions
    bad = move(r, 1000, np.nan)
    r.command(bad, 1000 * MS)
    played = r.advance(1010 * MS)
    assert "not finite" in played.refused[0] and played.violations and played.errors == ["not_finite"]
    assert (r.sample().positions == before).all()
    r.command(move(r, 1010, 0.1), 1010 * MS)
    assert r.advance(1100 * MS).refused
    assert (r.sample().positions == before).all()
    r.reset("Reach-v0", 1, 2000 * MS)
    r.command(move(r, 2000, 0.1), 2000 * MS)
    assert r.advance(2100 * MS).refused == []


@pytest.mark.parametrize("controller", ["joint_trajectory", "impedance"])
def test_after_a_reset_the_arm_stays_where_the_scene_put_it(controller: str) -> None:
    r = rig(controller)
    r.command(move(r, 1000, 0.1) if controller == "joint_trajectory" else Target(1000 * MS, r.arm.home), 1000 * MS)
    r.gripper_target = 0.0
    r.advance(1100 * MS)
    r.command(move(r, 1100, 0.1), 1100 * MS)
    r.reset("Reach-v0", 1, 2000 * MS)
    placed = r.sample().positions
    assert r.advance(2200 * MS).violations == []
    assert (r.sample().positions == placed).all()
    assert r.adapter.gripper_opening() == 1.0


def test_impedance_holds_each_target_and_is_not_differentiated() -> None:
    r = rig("impedance")
    target = r.sample().positions + 0.01
    r.command(Target(1000 * MS, target), 1000 * MS)
    played = r.advance(1050 * MS)
    assert (r.sample().positions == target).all()
    assert played.violations == []
    r.command(Target(1600 * MS, target + 0.01), 1600 * MS)
    assert "stopped" in r.advance(1700 * MS).refused[0]
    assert (r.sample().positions == target).all()


def steps_at(r: Rig, *ms_and_rad: tuple[int, float]) -> Trajectory:
    """Linear pieces of joint 1 through these times from 1000 ms on and offsets from where it is."""
    q = r.sample().positions
    first = np.arange(7) == 0
    return Trajectory(1000 * MS, r.arm.joint_names, tuple(Point(ms * MS, q + rad * first) for ms, rad in ms_and_rad))


@pytest.mark.parametrize("judged", [True, False])
@pytest.mark.parametrize(
    ("path", "stands", "errors"),
    [
        (((0, 0.0), (50, 0.0), (51, 1e-4), (99, 1e-4)), 0.0, [ACCELERATION, JERK]),
        (((0, 0.0), (50, 0.0), (51, 8e-6), (99, 8e-6)), 0.0, [JERK]),
        (((0, 0.0), (50, 0.0), (51, 1e-2), (99, 1e-2)), 0.0, [VELOCITY, ACCELERATION, JERK]),
        (((0, 0.0), (50, 0.0), (51, 3.0), (99, 3.0)), 0.0, [POSITION, VELOCITY, ACCELERATION, JERK]),
    ],
)
def test_with_reflexes_the_first_illegal_set_point_stops_the_arm(judged, path, stands, errors) -> None:
    r = rig(judged=judged, reflexes=True)
    start = r.sample().positions
    r.command(steps_at(r, *path), 1000 * MS)
    r.command(move(r, 1060, 0.1), 1060 * MS)
    played = r.advance(1200 * MS)
    assert played.errors == errors and played.violations
    assert r.fault == f"reflex: {', '.join(errors)}"
    assert all((s.positions == start).all() for s in played.samples) and len(played.samples) == 200
    r.command(move(r, 1200, 0.1), 1200 * MS)
    assert r.advance(1300 * MS).refused == [r.fault]
    r.go_on()
    r.command(move(r, 1300, 0.1), 1300 * MS)
    played = r.advance(1700 * MS)
    assert played.violations == played.errors == played.refused == []
    assert r.sample().positions[0] == pytest.approx(start[0] + 0.1)


def test_the_arm_stands_where_it_was_when_the_motion_became_illegal() -> None:
    with_reflex, without = rig(reflexes=True), rig()
    for r in (with_reflex, without):
        r.command(move(r, 1000, 0.1), 1000 * MS)
        r.command(steps_at(r, (0, 0.5), (500, 0.5)), 1200 * MS)
    stopped, went_on = with_reflex.advance(1400 * MS), without.advance(1400 * MS)
    assert (with_reflex.sample().positions == stopped.samples[199].positions).all()
    assert (with_reflex.desired[0] == stopped.samples[199].positions).all() and not with_reflex.desired[1].any()
    assert without.sample().positions[0] > with_reflex.sample().positions[0] + 0.3
    assert stopped.violations == went_on.violations and went_on.errors == []


def test_neither_wrong_names_nor_the_workspace_are_a_reflex() -> None:
    r = rig(reflexes=True)
    r.judge._bounds = replace(r.judge._bounds, speed_m_s=np.array(0.01))
    r.command(Trajectory(0, ("x",) * 7, move(r, 0, 0.1).points), 1000 * MS)
    r.command(move(r, 1000, 0.1), 1000 * MS)
    played = r.advance(1400 * MS)
    assert {v.error for v in played.violations} > {"wrong_joint_names"} and played.errors == []
    assert r.fault == ""


def test_a_held_target_beyond_a_joint_is_a_reflex() -> None:
    r = rig("impedance", reflexes=True)
    start = r.sample().positions
    r.command(Target(1000 * MS, r.arm.position_upper + 0.01), 1000 * MS)
    played = r.advance(1010 * MS)
    assert played.errors == [POSITION] and (r.sample().positions == start).all()


def test_skip_lets_the_controller_run_on_without_the_arm() -> None:
    r = rig()
    r.command(move(r, 1000, 0.1), 1000 * MS)
    start = r.sample().positions[0]
    assert r.skip(1200 * MS).samples == []
    assert r.sample().positions[0] == start and r.now_ns == 1200 * MS
    played = r.advance(1201 * MS)
    assert played.violations == []
    assert r.sample().positions[0] == pytest.approx(start + 0.05, abs=1e-3)


def test_periods_must_fit() -> None:
    plant = Fr3Plant(width_px=16, height_px=16)
    plant.physics_period_ns = 500_000
    with pytest.raises(ValueError, match="whole milliseconds"):
        Rig(plant, "joint_trajectory", False, 0)
