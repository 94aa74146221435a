from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from e0_ros.core.command import Command, State
from sim.controllers import JointTrajectoryController
from tests.core.driven import as_trajectory

MS = 1_000_000


def moving() -> Command:
    """0 to 100 ms: the jerk is +-1 rad/s^3 in four equal parts, so it goes forward and ends at rest."""
    h, jerk = 0.025, np.array([1.0, -1.0, -1.0, 1.0])
    q, v, a = [0.0], [0.0], [0.0]
    for j in jerk:
        q.append(q[-1] + h * (v[-1] + h * (a[-1] / 2 + h * j / 6)))
        v.append(v[-1] + h * (a[-1] + h * j / 2))
        a.append(a[-1] + h * j)
    state = State(*(np.array(x)[:, None] * [1.0, -2.0] for x in (q, v, a)))
    return Command(np.arange(5) * 25 * MS, state)


def test_jerk_is_constant_between_knots() -> None:
    np.testing.assert_allclose(moving().jerk[:, 0], [1, -1, -1, 1])
    times = np.arange(0, 100 * MS, MS)
    s = moving().sample(times)
    np.testing.assert_allclose(np.diff(s.position, axis=0) * 1e3, (s.velocity[:-1] + s.velocity[1:]) / 2, atol=1e-6)
    np.testing.assert_allclose(
        np.diff(s.velocity, axis=0) * 1e3, (s.acceleration[:-1] + s.acceleration[1:]) / 2, atol=1e-9
    )


def test_it_rests_before_and_after() -> None:
    command = moving()
    for time_ns, k in ((-(10**12), 0), (10**12, -1)):
        q, v, a = command.sample(time_ns)
        np.testing.assert_array_equal(q, command.state.position[k])
        assert not v.any() and not a.any()


@settings(max_examples=50, deadline=None)
@given(st.integers(-10, 150), st.integers(-10, 150))
def test_told_from_later_on_it_is_the_same_motion(start_ms: int, at_ms: int) -> None:
    command, later = moving(), moving().since(start_ms * MS)
    assert later.start_ns == start_ms * MS
    at_ns = max(at_ms, start_ms) * MS
    for a, b in zip(command.sample(at_ns), later.sample(at_ns), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-12)


def test_a_controller_with_quintic_splines_plays_exactly_this() -> None:
    command = moving()
    controller = JointTrajectoryController(("a", "b"), np.zeros(2))
    assert controller.accept(as_trajectory(command.since(7 * MS), ("a", "b")), 12 * MS, np.ones(2)) == ""
    times = np.arange(12 * MS, 130 * MS, 700_000)
    np.testing.assert_allclose(controller.sample(times).positions, command.sample(times).position, atol=1e-14)


def test_then_together_and_lasting() -> None:
    first, rest = moving(), Command.rest(np.array([5.0, 6.0]), 40 * MS)
    joined = first.then(rest)
    assert joined.times_ns.tolist() == [0, 25 * MS, 40 * MS, 240 * MS]
    other = Command.rest(np.array([5.0, 6.0]), 0).of(np.array([False, True]))
    both = Command.together([(np.array([1]), other), (np.array([0]), first.of([0]))])
    np.testing.assert_allclose(both.sample(60 * MS).position, [first.sample(60 * MS).position[0], 6.0])
    assert first.lasting(50 * MS) is first
    assert first.lasting(500 * MS).end_ns == 500 * MS
    assert not first.at_rest(60 * MS) and first.at_rest(100 * MS)


def test_samples_at_many_times_are_those_at_each() -> None:
    command = moving()
    times = np.array([-5, 0, 12, 25, 99, 101]) * MS
    many = command.sample(times)
    for i, t in enumerate(times):
        np.testing.assert_array_equal(many.position[i], command.sample(int(t)).position)


@pytest.mark.parametrize("start_ms", [0, 99, 100, 101])
def test_told_from_near_its_end_time_still_increases(start_ms: int) -> None:
    assert (np.diff(moving().since(start_ms * MS).times_ns) > 0).all()
