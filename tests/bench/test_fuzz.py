from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from e0_policy.embodiment import load_embodiment
from e0_ros.core import workspace
from e0_ros.core.command import Command
from e0_ros.core.limiter import Limits, plan
from e0_ros.core.reference import RowCurve
from sim import hostile
from sim.hostile import MS


@pytest.mark.parametrize("name", ["fr3", "panda"])
def test_no_hostile_chunk_makes_the_limiter_illegal(name: str, record_property) -> None:
    found = hostile.fuzz_limiter(name, chunks=4000, seed=1, copies=32)
    record_property("figure", f"{name}, limiter: {found.illegal} illegal of {found.setpoints}, {found.chunks} chunks")
    assert found.illegal == 0 and found.chunks >= 4000
    assert found.kept_in > 50, "arms in narrow workspaces are asked to leave them"
    assert found.setpoints > 20 * found.chunks, "30 ms of each, on average"
    rounding_s = 0.0 if name == "fr3" else 0.003  # phases of braking last whole milliseconds
    assert (found.stop_s > 0.05).all() and (found.stop_s <= found.stop_limit_s + rounding_s).all()


def test_arms_side_by_side_move_as_they_do_alone() -> None:
    arm = load_embodiment("fr3")
    many = hostile.side_by_side(arm, 3)
    assert many.joints == 21 and many.joint_names[7] == "1.fr3_joint1"
    np.testing.assert_array_equal(many.envelope_gain.reshape(3, 7), np.tile(arm.envelope_gain, (3, 1)))


def test_rows_that_are_no_numbers_stop_no_other_arm() -> None:
    hold = np.tile(hostile.side_by_side(load_embodiment("fr3"), 2).home, (5, 1))
    hold[:, 7:] += 0.3
    alone = hold.copy()
    alone[:, :7] = np.nan
    both = hostile.side_by_side(load_embodiment("fr3"), 2)
    limits, rest = Limits.of(both, 0.95, 0.97, 0.5), Command.rest(both.home, 0)
    moved = [plan(limits, rest, RowCurve(rows, 0, 20 * MS), 0, 100 * MS) for rows in (hold, alone)]
    times = np.arange(0, 100, 10) * MS
    good, spoilt = (command.sample(times).position for command in moved)
    np.testing.assert_allclose(spoilt[:, 7:], good[:, 7:], atol=1e-12)
    np.testing.assert_array_equal(spoilt[:, :7], np.tile(both.home[:7], (10, 1)))


def test_the_judge_of_the_fuzz_sees_a_limiter_that_is_wrong(monkeypatch) -> None:
    right = Limits.of
    monkeypatch.setattr(Limits, "of", lambda arm, *shares: right(replace(arm, jerk=2.2 * arm.jerk), *shares))
    assert hostile.fuzz_limiter("fr3", chunks=400, seed=1, copies=4).illegal > 0


@pytest.mark.ros
@pytest.mark.parametrize(
    ("name", "worst_ms", "narrow"), [("fr3", 1.0, False), ("panda", 200.0, False), ("fr3", 9.0, True)]
)
def test_no_hostile_message_makes_the_executor_illegal(
    name: str, worst_ms: float, narrow: bool, record_property
) -> None:
    from e0_ros.bench.fuzz import fuzz_executor

    found = fuzz_executor(name, 120, 3, worst_ms, narrow)
    figure = f"{name}, executor: {found['illegal']} illegal, {found['refused']} messages refused"
    record_property("figure", figure)
    assert found["illegal"] == 0
    assert found["accepted"] > 10 and found["refused"] > 5


def test_the_judge_of_the_fuzz_sees_arms_that_leave_their_workspaces(monkeypatch) -> None:
    monkeypatch.setattr(workspace, "_MARGIN_M", -0.01)
    assert hostile.fuzz_limiter("fr3", chunks=1000, seed=1, copies=8).illegal > 0
