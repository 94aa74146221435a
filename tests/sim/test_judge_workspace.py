from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from e0_policy.embodiment import load_embodiment
from e0_policy.kinematics import POINT_RADII_M, arm_points_m
from sim.judge import Judge
from sim.judge_workspace import SPEED, SPHERES, TABLE, WORKSPACE, Bounds, centres

MS = 1_000_000
PANDA = load_embodiment("panda")
FREE = Bounds(np.full(3, -9.0), np.full(3, 9.0), np.array(-9.0), np.array(9.0))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31))
def test_two_ways_to_multiply_the_arm_out_agree(seed: int) -> None:
    """The judge's frames from the URDF and the project's own from Craig's parameters."""
    q = np.random.default_rng(seed).uniform(-3, 3, (4, 2, 7))
    np.testing.assert_allclose(np.moveaxis(centres(q), -2, 0), arm_points_m(q), atol=1e-12)
    assert [radius for *_, radius in SPHERES] == POINT_RADII_M.tolist()


def judged(path, **bounds) -> set[tuple[str, str]]:
    judge = Judge(PANDA, path[0], bounds=Bounds(**{**vars(FREE), **{k: np.array(v) for k, v in bounds.items()}}))
    found = judge.check(np.arange(len(path)) * MS, path)
    assert judge.violations == len(found)
    return {(v.error, v.joint.split(" of ")[0]) for v in found}


def test_each_bound_is_found_where_it_is_broken_and_not_before() -> None:
    at = centres(PANDA.home)
    still, tool = np.tile(PANDA.home, (5, 1)), at[-1]
    assert judged(still) == set()
    for axis, name in enumerate("xyz"):
        for side, corner in ((1, "lower"), (-1, "upper")):
            for off, expected in ((-1e-4, set()), (1e-4, {(WORKSPACE, f"tcp {name}")})):
                box = np.full(3, -9.0 * side)
                box[axis] = tool[axis] + side * off
                assert judged(still, **{corner: box}) == expected
    for k, (name, *_, radius) in enumerate(SPHERES):
        lowest = at[k, 2] - radius
        assert (TABLE, name) in judged(still, table_m=lowest + 1e-4)
        assert (TABLE, name) not in judged(still, table_m=lowest - 1e-4)


def test_speed_is_that_of_the_fastest_part() -> None:
    path = np.tile(PANDA.home, (5, 1))
    path[:, 0] += 0.5e-3 * np.arange(5)
    tool, elbow = (np.linalg.norm(centres(PANDA.home)[k, :2]) * 0.5 for k in (5, 0))
    found = judged(path[1:], speed_m_s=1.01 * elbow)
    assert (SPEED, "tcp") in found and (SPEED, "link4") not in found
    assert not any(error == SPEED for error, _ in judged(path[1:], speed_m_s=1.01 * tool))


def test_an_impedance_target_has_a_place_but_no_speed() -> None:
    path = np.tile(PANDA.home, (3, 1))
    path[1:, 0] += 0.4
    low = Bounds(FREE.lower, FREE.upper, np.array(0.2), np.array(0.1))
    found = Judge(PANDA, path[0], derivatives=False, bounds=low).check(np.arange(3) * MS, path)
    assert {v.error for v in found} == {TABLE}


@pytest.mark.parametrize("name", ["fr3", "panda"])
def test_by_default_the_reach_of_the_arm_is_the_bound(name: str) -> None:
    arm = load_embodiment(name)
    q = np.random.default_rng(0).uniform(arm.position_lower, arm.position_upper, (20_000, 7))
    tool = centres(q)[..., -1, :]
    assert (tool > arm.workspace_lower).all() and (tool < arm.workspace_upper).all()
    assert np.ptp(tool, axis=0).min() > 0.8 * (arm.workspace_upper - arm.workspace_lower).min()
