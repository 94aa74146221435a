from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from e0_ros.core.command import State
from e0_ros.core.reference import HandOver, RowCurve

MS = 1_000_000
P = 50 * MS


def grid(curve, start_ms: int, end_ms: int) -> State:
    return curve(np.arange(start_ms, end_ms) * MS)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(-3, 3), min_size=1, max_size=9))
def test_it_passes_every_row_at_its_time_and_rests_outside(values: list[float]) -> None:
    rows = np.array(values)[:, None]
    curve = RowCurve(rows, 1000 * MS, P)
    np.testing.assert_allclose(curve(1000 * MS + P * np.arange(len(rows))).position, rows, atol=1e-12)
    for far in (0, 10**12):
        q, v, a = curve(np.array([far]))
        np.testing.assert_array_equal(q[0], rows[0] if far == 0 else rows[-1])
        assert not v.any() and not a.any()


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(-3, 3), min_size=3, max_size=9))
def test_it_is_c2_between_the_first_and_the_last_row(values: list[float]) -> None:
    rows = np.array(values)[:, None]
    curve = RowCurve(rows, 0, P)
    knots = P * np.arange(1, len(rows))
    before, after = curve(knots - 1), curve(knots + 1)
    for part, rate in zip(range(3), (100, 1e4, 1e6), strict=True):
        np.testing.assert_allclose(before[part], after[part], atol=3e-9 * 50**3 * rate)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from([0.0, 0.1, 0.2, 0.5]), min_size=2, max_size=9))
def test_it_hardly_leaves_the_range_of_its_rows(values: list[float]) -> None:
    rows = np.cumsum(np.array(values))[:, None]
    q = grid(RowCurve(rows, 0, P), 0, 500).position
    assert q.max() <= rows.max() + 0.02 * max(values) and q.min() >= rows.min() - 0.02 * max(values)


def test_a_smooth_motion_is_met_between_the_rows() -> None:
    t = np.arange(0, 2, 0.05)
    rows = 0.4 * np.sin(np.pi * t)[:, None]
    q, v, a = grid(RowCurve(rows, 0, P), 0, 1900)
    s = np.arange(0, 1.9, 0.001)
    np.testing.assert_allclose(q[:, 0], 0.4 * np.sin(np.pi * s), atol=1e-3)
    np.testing.assert_allclose(v[:, 0], 0.4 * np.pi * np.cos(np.pi * s), atol=0.06)
    assert np.abs(a).max() < 2 * 0.4 * np.pi**2


def test_a_ramp_that_ends_is_not_overshot() -> None:
    rows = np.concatenate((np.linspace(0, 0.5, 11), np.full(5, 0.5)))[:, None]
    q = grid(RowCurve(rows, 0, P), 0, 900).position
    assert q.max() <= 0.5 + 1e-12


states = st.floats(-0.5, 0.5)


@settings(max_examples=60, deadline=None)
@given(states, states, st.floats(-5, 5), st.integers(0, 300))
def test_a_hand_over_starts_in_the_given_state_and_ends_on_the_curve(q: float, v: float, a: float, at: int) -> None:
    curve = RowCurve(np.linspace(0, 1, 30)[:, None], 0, P)
    state = State(np.array([q]), np.array([v]), np.array([a]))
    over = HandOver(curve, state, at * MS, 100 * MS, np.array([2.0]), np.array([10.0]))
    for part, want in zip(over(np.array([at * MS])), state, strict=True):
        np.testing.assert_allclose(part[0], want, atol=1e-9)
    for a_part, b_part in zip(over(np.array([(at + 1700) * MS])), curve(np.array([(at + 1700) * MS])), strict=True):
        np.testing.assert_array_equal(a_part, b_part)
    times = np.arange(at, at + 1800) * MS
    q_over = over(times).position[:, 0]
    np.testing.assert_allclose(np.diff(q_over) * 1e3, over(times).velocity[:-1, 0], atol=0.2)


def test_hand_over_is_by_time_and_takes_as_long_as_it_needs() -> None:
    curve = RowCurve(np.zeros((2, 1)), 0, P)
    limits = np.array([2.0]), np.array([10.0])
    for gap, needed_ms in ((0.001, 100), (0.4, 480)):
        over = HandOver(curve, State(np.array([gap]), np.zeros(1), np.zeros(1)), 0, 100 * MS, *limits)
        assert over(np.array([100 * MS])).position[0] == 0 if needed_ms == 100 else True
        peak = np.abs(grid(over, 0, 1700).acceleration).max()
        assert peak <= 10.0 or needed_ms == 100
        assert (np.diff(grid(over, 0, 1700).position[:, 0]) <= 1e-12).all(), "no overshoot"


def test_a_row_whose_time_has_come_is_no_target_any_more() -> None:
    """A plan that thinks the arm 0.02 rad off where it is told to be: without joining, the velocity of that step."""
    rows = 0.01 * np.arange(8)[:, None] * np.ones(3)
    here = rows[2].copy()
    wrong = rows.copy()
    wrong[:3] += [0.02, -0.02, 0.0]
    curve = RowCurve(wrong, 0, P).joined(here, 2 * P)
    np.testing.assert_allclose(curve(np.array([2 * P])).position[0], here, atol=1e-12)
    np.testing.assert_allclose(curve(np.array([2 * P])).velocity[0], 0.2, atol=1e-9)
    still_to_come = np.arange(3, 8) * P
    np.testing.assert_allclose(curve(still_to_come).position, rows[3:], atol=1e-12)


@given(at=st.integers(0, 6 * P))
def test_a_plan_that_goes_on_is_joined_without_a_change(at: int) -> None:
    rows = np.sin(np.arange(8)[:, None] * [0.1, 0.2])
    curve, times = RowCurve(rows, 0, P), np.arange(at, 8 * P, 3_000_000)
    joined = curve.joined(curve(np.array([at])).position[0], at)
    np.testing.assert_allclose(joined(times).position, curve(times).position, atol=1e-12)


@pytest.mark.parametrize("at_ns", [-1, 7 * P, 10**9])
def test_a_curve_that_has_not_begun_or_is_at_its_end_stays(at_ns: int) -> None:
    curve = RowCurve(np.linspace(0.0, 1.0, 8)[:, None], 0, P)
    assert curve.joined(np.array([5.0]), at_ns) is curve
