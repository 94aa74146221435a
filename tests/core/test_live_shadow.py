import numpy as np
import pytest

from e0_policy.embodiment import load_embodiment
from e0_policy.types import ActionChunk, Representation
from e0_ros.core.live_shadow import LiveShadow, said

MS = 1_000_000
ARM = load_embodiment("fr3")
S = 10**9


def done(t_ns):
    """What the human does: a swing that differs by joint."""
    t = (t_ns - S) / 1e9
    return np.append(0.3 * np.sin(2.0 * t + np.arange(7)), 0.5 + 0.4 * np.sin(t))


def plan(t0_ns, knows=True, off=0.0, rows=12, **fields):
    times = t0_ns + 50 * MS * np.arange(rows)
    made = np.array([done(t) if knows else done(t0_ns) for t in times]) + np.append(np.full(7, off), 0.0)
    return ActionChunk(made, t0_ns, 50 * MS, "policy", "s", 1, **fields)


def watched(plans, seconds=3.0, missing=range(0)) -> LiveShadow:
    shadow, plans = LiveShadow(ARM), list(plans)
    for i in range(int(seconds * 30)):
        t = S + i * 33 * MS
        while plans and plans[0].t0_ns <= t:
            shadow.plan(plans.pop(0))
        if i not in missing:
            shadow.done(t, done(t))
    return shadow


def test_who_plans_what_the_human_then_does_is_right_and_who_is_off_is_off_by_that() -> None:
    starts = [S + k * 400 * MS for k in range(7)]
    right = watched(plan(t) for t in starts).errors()
    assert right is not None and right.plans[0] == 6, "the last plan is not over yet"
    assert right.mean_rad.max() < 2e-3 < 0.02 < right.still_rad[-1] and right.opening.max() < 1e-3
    off = watched(plan(t, off=0.1) for t in starts).errors()
    np.testing.assert_allclose(off.mean_rad, 0.1, atol=2e-3)
    stays = watched(plan(t, knows=False) for t in starts).errors()
    np.testing.assert_allclose(stays.mean_rad, stays.still_rad, atol=2e-3)
    figures = said(off)
    assert figures["shadow plans"] == 6 and figures["shadow ahead [ms]"] == 500.0
    assert figures["shadow error [rad]"] == pytest.approx(0.1, abs=2e-3)


def test_a_state_beside_a_gap_is_known_all_the_same() -> None:
    """The first inference takes long: the state that the first plan was made from has none near."""
    found = watched([plan(S), plan(S + 990 * MS)], missing=range(1, 12)).errors()
    assert found is not None and found.plans[-1] == 2 and np.isfinite(found.still_rad[-1])


def test_nothing_is_claimed_where_nothing_is_known() -> None:
    assert LiveShadow(ARM).errors() is None
    assert watched([plan(S + 2900 * MS)]).errors() is None, "not over yet"
    other = np.tile([0.5, 0.0, 0.4, 0.0, 0.0, 0.0, 1.0, 1.0], (12, 1))
    pose = ActionChunk(other, S, 50 * MS, "policy", "s", 1, representation=Representation.EE_POSE)
    assert watched([pose]).errors() is None
    gap = watched([plan(S + 400 * MS)], missing=range(20, 45)).errors()
    assert np.isfinite(gap.mean_rad[0]) and np.isnan(gap.mean_rad[-1]) and gap.plans[-1] == 0


def test_states_from_before_the_oldest_plan_are_forgotten_and_change_nothing() -> None:
    shadow, starts = LiveShadow(ARM), [S + k * 400 * MS for k in range(200)]
    plans = [plan(t, off=0.1) for t in starts]
    for t in range(S, S + 81_000 * MS, 50 * MS):
        while plans and plans[0].t0_ns <= t:
            shadow.plan(plans.pop(0))
        shadow.done(t, done(t))
    assert 60 * 8 <= len(shadow._states) <= 61 * 8 + 20, "of 60 plans, and what has come since the last"
    found = shadow.errors()
    assert found is not None and found.plans[0] == 60
    np.testing.assert_allclose(found.mean_rad, 0.1, atol=2e-3)


def test_a_clock_that_goes_back_begins_anew() -> None:
    shadow = watched([plan(S + 400 * MS)])
    assert shadow.errors() is not None
    shadow.done(S, done(S))
    assert shadow.errors() is None


def test_memory_is_bounded() -> None:
    shadow = watched((plan(S + k * 10 * MS) for k in range(2000)), seconds=30.0)
    assert len(shadow.shadow().stamps_ns) <= 60


@pytest.mark.parametrize("joints", [0, 6, 8])
def test_a_state_of_another_arm_is_left_out_and_ends_nothing(joints: int) -> None:
    """An observation without joints, or of another arm, once ended the node: its states would not make one array."""
    shadow = watched([plan(S)])
    before = shadow.errors()
    shadow.done(0, np.zeros(joints + 1))
    shadow.done(S + 10_000 * MS, np.zeros(joints + 1))
    after = shadow.errors()
    assert before is not None and after is not None
    np.testing.assert_array_equal(after.mean_rad, before.mean_rad)
