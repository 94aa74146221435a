from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from e0_ros.config import ConfigError
from e0_ros.core.command import State
from e0_ros.core.executor_types import ExecutorConfig
from e0_ros.core.handover import STRATEGIES, Blend, Ensemble, Replace, strategy_named
from e0_ros.core.reference import RowCurve
from tests.core.driven import MS, START, Driven, wave

P = 50 * MS
LIMITS = np.array([2.0]), np.array([10.0])
AT_REST = State(np.zeros(1), np.zeros(1), np.zeros(1))


def ramp(offset: float, t0_ns: int = 0, rows: int = 9, slope: float = 0.05) -> RowCurve:
    return RowCurve(offset + slope * np.arange(rows)[:, None], t0_ns, P)


def values(target, *times_ms: int) -> list[float]:
    return target(np.array(times_ms) * MS).position[:, 0].tolist()


def test_replace_is_the_new_plan_at_once() -> None:
    plan = ramp(0.3)
    assert Replace().join(plan, AT_REST, 100 * MS) is plan


def test_blend_goes_linearly_from_the_old_plan_to_the_new_one() -> None:
    blend = Blend(100 * MS)
    blend.join(ramp(0.0), AT_REST, 0)
    target = blend.join(ramp(0.2), AT_REST, 200 * MS)
    np.testing.assert_allclose(values(target, 200, 250, 300, 350), [0.2, 0.25 + 0.1, 0.3 + 0.2, 0.35 + 0.2], atol=1e-9)
    first = Blend(100 * MS).join(ramp(0.2), State(np.array([1.0]), np.zeros(1), np.zeros(1)), 0)
    np.testing.assert_allclose(values(first, 0, 50, 100), [1.0, (1.0 + 0.25) / 2, 0.3], atol=1e-9)


def test_blends_do_not_pile_up_and_a_forgotten_plan_counts_no_more() -> None:
    blend = Blend(100 * MS)
    for k in range(50):
        target = blend.join(ramp(0.01 * k, k * 50 * MS), AT_REST, k * 50 * MS)
    depth = 0
    while hasattr(target, "before"):
        depth, target = depth + 1, target.before
    assert depth <= 3
    blend.forget()
    assert values(blend.join(ramp(0.5), State(np.array([0.1]), np.zeros(1), np.zeros(1)), 0), 0) == [0.1]


def test_a_blend_has_the_velocity_of_its_positions() -> None:
    blend = Blend(100 * MS)
    blend.join(ramp(0.0), AT_REST, 0)
    target = blend.join(ramp(0.2), AT_REST, 100 * MS)
    times = np.arange(105, 195) * MS
    slope = np.diff(target(times).position[:, 0]) * 1e3
    np.testing.assert_allclose(slope, target(times).velocity[:-1, 0], atol=0.05)


def test_ensemble_is_acts_weighted_mean_of_what_has_a_row() -> None:
    """Plans at 0, 100 and 200 ms, nine rows each: at 450 ms the first one has ended and weighs nothing."""
    ensemble = Ensemble()
    for k in range(3):
        target = ensemble.join(ramp(0.1 * k, k * 100 * MS, slope=0.0), AT_REST, k * 100 * MS)
    weights = np.exp(-0.01 * np.arange(3))
    at_300 = (weights * [0.0, 0.1, 0.2]).sum() / weights.sum()
    at_450 = (weights[1:] * [0.1, 0.2]).sum() / weights[1:].sum()
    np.testing.assert_allclose(values(target, 300, 450, 2000), [at_300, at_450, 0.2], atol=1e-12)
    assert values(ensemble.join(ramp(0.7, slope=0.0), AT_REST, 700 * MS), 700) == [0.7], "all others have ended"


def test_a_plan_that_is_joined_twice_counts_once() -> None:
    """A command that was withdrawn is planned again."""
    ensemble, old, new = Ensemble(), ramp(0.0, slope=0.0), ramp(0.3, slope=0.0)
    ensemble.join(old, AT_REST, 0)
    ensemble.join(new, AT_REST, 100 * MS)
    assert values(ensemble.join(new, AT_REST, 120 * MS), 200)[0] == pytest.approx(0.3 / (1 + np.exp(0.01)))


@settings(max_examples=30, deadline=None)
@given(st.sampled_from(STRATEGIES), st.integers(2, 8))
def test_plans_that_agree_are_followed_whatever_the_strategy(name: str, plans: int) -> None:
    """The same motion planned again and again: no strategy changes it, once the first hand-over is over."""
    strategy = strategy_named(name, 100 * MS, *LIMITS)
    motion = lambda t_ns: 0.3 * np.sin(2e-9 * np.asarray(t_ns))[:, None]  # noqa: E731
    for k in range(plans):
        at = k * 150 * MS
        curve = RowCurve(motion(at + P * np.arange(12)), at, P, 100 * MS)
        state = State(*(part[0] for part in curve(np.array([at]))))
        target = strategy.join(curve, state, at)
    times = at + np.arange(105, 400, 5) * MS
    np.testing.assert_allclose(target(times).position, motion(times), atol=2e-3)


@pytest.mark.parametrize("name", STRATEGIES)
def test_every_strategy_follows_through_the_executor_and_breaks_no_limit(name: str) -> None:
    """Plans that disagree by up to 20 mrad, every 200 ms, answered 100 ms late."""
    rng = np.random.default_rng(0)
    d = Driven(embodiment="panda", lockstep=True, latency_ms=100.0, hand_over=name).arm_it()
    for k in range(12):
        t_s = (d.now_ns - START) / 1e9 + np.arange(12) * 0.05
        rows = wave(d, t_s) + rng.uniform(-0.02, 0.02, 7) * np.linspace(0, 1, 12)[:, None]
        assert d.offer(d.chunk(rows, k, in_reply_to_ns=d.now_ns)) is None
        d.run(200, tick_ms=50)
    truth = wave(d, np.arange(len(d.positions)) / 1e3)
    assert np.abs(np.array(d.positions) - truth)[500:].max() < 0.06
    assert d.violations == [] and d.mode == "RUNNING"


def test_hands_are_joined_by_one_blend_whatever_the_strategy() -> None:
    moved = []
    for name in STRATEGIES:
        d = Driven(embodiment="panda", hand_over=name).arm_it()
        for k in range(30):
            d.offer(d.chunk([d.home + 0.01 * k], k, source="teleop", session="hand"))
            d.run(20)
        moved.append(np.array(d.positions))
    for other in moved[1:]:
        np.testing.assert_array_equal(other, moved[0])


def test_strategies_differ_where_plans_differ() -> None:
    ends = set()
    for name in STRATEGIES:
        d = Driven(embodiment="panda", hand_over=name).arm_it()
        for k in range(2):
            d.offer(d.chunk(wave(d, (d.now_ns - START) / 1e9 + np.arange(12) * 0.05) + 0.02 * k, k))
            d.run(240)
        ends.add(np.array(d.positions).tobytes())
    assert len(ends) == len(STRATEGIES)


def test_an_unknown_strategy_is_an_error() -> None:
    with pytest.raises(ConfigError, match="did you mean 'ensemble'"):
        ExecutorConfig(hand_over="ensembel")


@pytest.mark.parametrize("slow_down_ms", [0.0, 100.0])
def test_past_its_last_row_a_late_policy_slows_down_instead_of_stopping_hard(slow_down_ms: float) -> None:
    """Eight rows of a steady motion and no other plan: with the slow-down the peak deceleration is a fraction."""
    d = Driven(embodiment="panda", slow_down_ms=slow_down_ms).arm_it()
    rows = d.home + 0.01 * np.arange(8)[:, None] * np.ones(7)
    assert d.offer(d.chunk(rows)) is None
    d.run(344)
    d.run(800)
    path = np.array(d.positions)[:, 0]
    deceleration = -np.diff(path, n=2)[250:].min() * 1e6
    assert d.mode == "HOLD" and "plan exhausted" in d.status.reason and d.violations == []
    beyond = path[-1] - rows[-1, 0]
    if slow_down_ms:
        assert deceleration < 4.0 and beyond == pytest.approx(0.2 * 0.05, rel=0.1), "speed times half of the time"
    else:
        assert deceleration > 10.0 and beyond == pytest.approx(0.0, abs=1e-4)


def test_in_lockstep_what_is_committed_covers_the_latency() -> None:
    d = Driven(embodiment="panda", lockstep=True, latency_ms=150.0).arm_it()
    d.offer(d.chunk(wave(d, np.arange(12) * 0.05), in_reply_to_ns=d.now_ns))
    assert d.tick().status.committed_until_ns == d.now_ns + 150 * MS


def test_committed_rows_join_where_a_row_is_off_and_catch_up_without_a_leap_where_the_reference_is_behind() -> None:
    committed = strategy_named("committed", 100 * MS, *LIMITS)
    rows = 0.02 * np.arange(9)[:, None]
    at, times = 2 * P, 2 * P + MS * np.arange(1, 300)
    off = rows.copy()
    off[:3] += 0.02
    here = State(rows[2], np.array([0.4]), np.zeros(1))
    joined = committed.join(RowCurve(off, 0, P), here, at)
    assert np.abs(joined(times[:200]).position[:, 0] - 0.4e-9 * times[:200]).max() < 1e-3, "as if no row had been off"
    behind = State(rows[2] - 0.1, np.array([0.4]), np.zeros(1))
    late = committed.join(RowCurve(rows, 0, P), behind, at)
    assert np.abs(late(times[:200]).acceleration).max() < 12.0 and np.abs(late(times[:200]).velocity).max() < 2.0
    assert late(np.array([4 * P])).position < rows[4] - 0.02, "not there by the next row"
