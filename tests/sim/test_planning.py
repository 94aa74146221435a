from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from sim.maniskill import ManiSkillAdapter
from sim.planning import ManiSkillPlanner

pytestmark = [pytest.mark.sim, pytest.mark.usefixtures("maniskill")]
STEPS = 5
"""Physics steps in a control step."""


@pytest.fixture(scope="module")
def planner(maniskill: None) -> Iterator[ManiSkillPlanner]:
    made = ManiSkillPlanner()
    yield made
    made.close()


def test_a_plan_repeats_and_is_legal(planner: ManiSkillPlanner) -> None:
    first, other, again = (planner.plan("PickCube-v1", seed) for seed in (4, 5, 4))
    assert first.success and other.success
    assert (first.rows == again.rows).all()
    assert first.rows.shape != other.rows.shape or (first.rows != other.rows).any()
    assert first.rows.shape[1] == 8 and np.isfinite(first.rows).all()
    assert set(np.unique(first.rows[:, -1])) == {0.0, 1.0}
    assert np.abs(np.diff(first.rows[:, :7], axis=0)).max() < 0.15


def test_the_plan_solves_the_scene_of_the_same_seed_and_no_other(planner: ManiSkillPlanner) -> None:
    adapter = ManiSkillAdapter(())
    solved = {}
    for seed in (4, 5):
        rows = planner.plan("PickCube-v1", 4).rows
        adapter.reset("PickCube-v1", seed)
        solved[seed] = any(_control_step(adapter, rows[min(i, len(rows) - 1)]) for i in range(len(rows) + 40))
    adapter.close()
    assert solved == {4: True, 5: False}


def _control_step(adapter: ManiSkillAdapter, row: np.ndarray) -> bool:
    for _ in range(STEPS):
        adapter.step(row[:7], np.zeros(7), row[7])
    return adapter.privileged().success


def test_what_cannot_be_planned_is_refused(planner: ManiSkillPlanner) -> None:
    with pytest.raises(ValueError, match="did you mean 'PushCube-v1'"):
        planner.plan("PushCube", 0)
    with pytest.raises(ValueError, match="seed is"):
        planner.plan("PickCube-v1", 2**32)
