from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from e0_policy.embodiment import load_embodiment
from e0_policy.types import ActionChunk, NoChunk, Observation
from sim.demonstration import PERIOD_NS
from sim.direct import DirectLoop, Moment
from sim.live_expert import GrowingPlan, LiveExpert
from sim.maniskill import ManiSkillAdapter
from sim.planning import ManiSkillPlanner

ARM = load_embodiment("panda")


def seen(tick: int) -> Observation:
    return Observation(stamp_ns=1_000 + tick * PERIOD_NS, joint_positions=ARM.home, gripper_opening=1.0, views={})


def row(i: int) -> np.ndarray:
    return np.append(ARM.home + 0.001 * i, 1.0)


def test_a_plan_that_grows_is_told_when_it_grew_and_row_i_is_due_i_ticks_after_the_first() -> None:
    plan = GrowingPlan(ARM)
    assert isinstance(plan.answer(seen(0), None), NoChunk), "no rows yet"
    plan.reset("PickCube-v1", 3)
    plan.rows += [row(i) for i in range(4)]
    first = plan.answer(seen(0), None)
    assert isinstance(first, ActionChunk) and first.seed == 3 and first.joint_names == ARM.joint_names
    np.testing.assert_array_equal(first.rows[:4], plan.rows)
    assert (first.rows[4:] == plan.rows[-1]).all(), "the last row is held"
    kept = plan.answer(seen(1), None)
    assert isinstance(kept, NoChunk) and kept.keep
    plan.rows += [row(i) for i in range(4, 9)]
    longer = plan.answer(seen(3), None)
    assert isinstance(longer, ActionChunk)
    due = (seen(3).stamp_ns - longer.t0_ns) // PERIOD_NS
    np.testing.assert_array_equal(longer.rows[due], row(3))
    np.testing.assert_array_equal(longer.rows[due + 1], row(4))
    plan.reset("PickCube-v1", 4)
    assert isinstance(plan.answer(seen(9), None), NoChunk), "nothing of the episode before is left"


@pytest.fixture(scope="module")
def loop(maniskill: None) -> Iterator[DirectLoop]:
    adapter = ManiSkillAdapter(("base",), 16, 16)
    yield DirectLoop(adapter, "PegInsertionSide-v1")
    adapter.close()


@pytest.mark.sim
@pytest.mark.usefixtures("maniskill")
def test_a_peg_goes_into_its_hole_by_looking_again(loop: DirectLoop) -> None:
    """In the loop's own scene, within the arm's limits, to the same bit; the planner of before is as it was."""
    from mani_skill.examples.motionplanning.panda.motionplanner import PandaArmMotionPlanningSolver as Solver

    before, moments = vars(Solver).copy(), list[Moment]()
    done = LiveExpert(loop, ARM).run("PegInsertionSide-v1", 300_000, moments.append)
    assert done.success and done.violations == 0 and done.holds == ()
    assert vars(Solver) == before
    rows = np.array([m.row for m in moments if m.row is not None])
    assert rows.shape[1] == 8 and np.isfinite(rows).all() and set(np.unique(rows[:, -1])) == {0.0, 1.0}
    planner = ManiSkillPlanner()
    planned = planner.plan("PegInsertionSide-v1", 300_000).rows
    planner.close()
    shared = min(len(planned), len(rows))
    assert (planned[:shared] != rows[:shared]).any(), "a path is planned from what the last one came to"


@pytest.mark.sim
@pytest.mark.usefixtures("maniskill")
def test_the_step_limit_ends_it_in_the_middle_of_a_path(loop: DirectLoop) -> None:
    done = LiveExpert(loop, ARM).run("PegInsertionSide-v1", 300_000, max_steps=7)
    assert (done.success, done.steps) == (False, 7)
