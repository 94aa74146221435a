from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sim.disturbance import Disturbance
from sim.fr3_plant import Fr3Plant
from sim.rig import Rig

MS = 1_000_000


def path(disturbance: Disturbance, seconds: float = 5.0) -> tuple[np.ndarray, np.ndarray]:
    samples = [disturbance.at(t) for t in np.arange(0.0, seconds, 0.001)]
    return np.array([s[0] for s in samples]), np.array([s[1] for s in samples])


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**32), st.floats(0.001, 0.1))
def test_pushes_are_bounded_smooth_and_come_back(seed: int, amplitude_rad: float) -> None:
    disturbance = Disturbance(3, amplitude_rad, 1.0)
    disturbance.restart(seed)
    offset, rate = path(disturbance)
    assert np.abs(offset).max() <= amplitude_rad
    assert np.abs(offset).max() > amplitude_rad / 10
    assert (offset == 0.0).all(1).mean() > 0.1, "no pause between pushes"
    assert np.abs(np.diff(offset, axis=0) / 0.001 - (rate[1:] + rate[:-1]) / 2).max() < 0.02 * amplitude_rad / 0.3


def test_the_same_seed_pushes_the_same_way() -> None:
    one, other = Disturbance(7, 0.02, 1.0), Disturbance(7, 0.02, 1.0)
    one.restart(5)
    path(one, 3.0)
    one.restart(4)
    other.restart(4)
    np.testing.assert_array_equal(path(one)[0], path(other)[0])


def test_only_a_share_of_the_scenes_is_disturbed() -> None:
    disturbance = Disturbance(1, 0.02, 0.5)
    hit = 0
    for seed in range(100):
        disturbance.restart(seed)
        hit += bool(np.abs(path(disturbance, 3.0)[0][::20]).max())
    assert 30 <= hit <= 70


@pytest.mark.parametrize("amplitude_rad", [0.0, 0.05])
def test_the_arm_is_pushed_but_the_judge_sees_the_command(amplitude_rad: float) -> None:
    plant = Fr3Plant(("base",), 32, 32, "fr3", 50 * MS, 0.0)
    plant.reset(plant.tasks[0], 0)
    disturbance = Disturbance(7, amplitude_rad, 1.0) if amplitude_rad else None
    rig = Rig(plant, "joint_trajectory", True, 0, disturbance)
    rig.reset(plant.tasks[0], 1, 0)
    start = plant.joint_state()[0]
    played = rig.advance(3_000 * MS)
    moved = max(float(np.abs(s.positions - start).max()) for s in played.samples)
    assert (moved > amplitude_rad / 10) == bool(amplitude_rad)
    assert rig.judge is not None and rig.judge.violations == 0
