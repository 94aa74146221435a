from __future__ import annotations

import numpy as np
import pytest

from e0_policy.embodiment import load_embodiment
from e0_policy.policy import PolicyOutput
from e0_policy.types import ChunkError, Observation, Representation
from e0_ros.core.plan_keeper import InForce, PlanKeeper

ARM = load_embodiment("fr3")
PERIOD = 50_000_000


def keeper() -> PlanKeeper:
    return PlanKeeper("policy", "abc123", ARM, 8, "ckpt")


def observation(stamp_ns: int) -> Observation:
    return Observation(stamp_ns, {}, ARM.home, 1.0, embodiment="fr3", joint_names=ARM.joint_names)


def output(value: float = 0.0) -> PolicyOutput:
    return PolicyOutput(np.full((16, 8), value), PERIOD, seed=5)


def test_a_plan_is_due_at_first_and_after_the_execution_horizon() -> None:
    kept = keeper()
    assert kept.due(1000)
    kept.chunk(output(), observation(1000), 0)
    assert not kept.due(1000) and not kept.due(1000 + 8 * PERIOD - 1)
    assert kept.due(1000 + 8 * PERIOD)
    assert kept.due(999), "time went back"
    kept.reset()
    assert kept.due(1001)


def test_the_next_plan_is_due_when_a_short_one_ends() -> None:
    kept = keeper()
    kept.chunk(PolicyOutput(np.zeros((5, 8)), PERIOD), observation(1000), 0)
    assert not kept.due(1000 + 5 * PERIOD - 1) and kept.due(1000 + 5 * PERIOD)


def test_a_chunk_carries_what_the_executor_checks() -> None:
    chunk = keeper().chunk(output(0.5), observation(1000), 42)
    assert (chunk.t0_ns, chunk.in_reply_to_ns, chunk.period_ns) == (1000, 1000, PERIOD)
    assert (chunk.source, chunk.session, chunk.sequence) == ("policy", "abc123", 1)
    assert (chunk.embodiment, chunk.joint_names) == ("fr3", ARM.joint_names)
    assert (chunk.latency_ns, chunk.seed, chunk.checkpoint) == (42, 5, "ckpt")


def test_the_plan_in_force_is_the_chunk_that_the_executor_names() -> None:
    kept = keeper()
    first = kept.chunk(output(0.1), observation(1000), 0)
    second = kept.chunk(output(0.2), observation(2000), 0)
    plan = kept.plan(InForce(2500, "policy", "abc123", first.sequence, 3000, 1000))
    assert plan is not None
    assert (plan.t0_ns, plan.committed_until_ns, plan.rows[0, 0]) == (1000, 3000, 0.1)
    plan = kept.plan(InForce(2500, "policy", "abc123", second.sequence, 3000, 2000))
    assert plan is not None and plan.rows[0, 0] == 0.2


def test_no_plan_of_another_source_session_sequence_time_or_episode() -> None:
    kept = keeper()
    chunk = kept.chunk(output(), observation(1000), 0)
    for other in (
        None,
        InForce(1, "teleop", "abc123", chunk.sequence, 0, 1000),
        InForce(1, "policy", "other", chunk.sequence, 0, 1000),
        InForce(1, "policy", "abc123", chunk.sequence + 1, 0, 1000),
        InForce(1, "policy", "abc123", chunk.sequence, 0, 1001),
        InForce(1, "", "", 0, 0, 0),
    ):
        assert kept.plan(other) is None
    kept.reset()
    assert kept.plan(InForce(1, "policy", "abc123", chunk.sequence, 0, 1000)) is None


def test_sequence_numbers_rise_over_plans_refusals_and_resets() -> None:
    kept = keeper()
    numbers = [kept.chunk(output(), observation(1), 0).sequence, kept.none(2, "x").sequence]
    kept.reset()
    numbers.append(kept.chunk(output(), observation(3), 0).sequence)
    assert numbers == [1, 2, 3]
    with pytest.raises(ChunkError):
        kept.chunk(output(np.nan), observation(4), 0)
    assert kept.none(5, "x").sequence == 4


def test_rows_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="have 7 columns; fr3 takes 8"):
        keeper().chunk(PolicyOutput(np.zeros((4, 7)), PERIOD), observation(1), 0)
    pose = PolicyOutput(np.zeros((4, 7)), PERIOD, Representation.EE_DELTA_STEP)
    assert keeper().chunk(pose, observation(1), 0).joint_names == ()
    with pytest.raises(ValueError, match="execution_horizon is 0"):
        PlanKeeper("policy", "abc", ARM, 0)
