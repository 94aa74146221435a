from __future__ import annotations

import numpy as np
import pytest

from sim.controllers import Point, Trajectory
from sim.fr3_plant import Fr3Plant
from sim.rig import Rig, Target

MS = 1_000_000


def rig(controller: str = "joint_trajectory", judged: bool = True) -> Rig:
    return Rig(Fr3Plant(width_px=16, height_px=16), controller, judged, 1000 * MS)


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
    assert "not finite" in played.refused[0] and played.violations
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
