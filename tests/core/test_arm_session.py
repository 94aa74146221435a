import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from e0_policy.embodiment import load_embodiment
from e0_policy.kinematics import tcp_position_m
from e0_policy.types import MAX_ROWS
from e0_ros.config import ConfigError
from e0_ros.core.arm_session import (
    ArmSession,
    ArmSessionConfig,
    Step,
    approach,
    checked_pose,
    get_ready,
    recovery,
    to_pose,
)
from e0_ros.distribution import KNOWN, distribution
from tests.core.driven import Driven

S = 1_000_000_000
ARM = load_embodiment("fr3")
REST = np.array(ArmSessionConfig().rest_rad)
ONLY_HUMBLE = [Step.DEACTIVATE]
AFTER_AN_ERROR = [Step.CLEAR, Step.HARDWARE, Step.SETTINGS, Step.DISARM, Step.ACTIVATE, Step.FIT]
AFTER_AN_ERROR += [Step.ARM, Step.HOME, Step.ARM]


def test_the_order_of_each_distribution() -> None:
    for name, first in (("humble", ONLY_HUMBLE), ("jazzy", []), ("kilted", [])):
        assert list(recovery(KNOWN[name].deactivate_first, rearm=True)) == first + AFTER_AN_ERROR
    assert recovery(False, rearm=False)[-1] is Step.DISARM
    assert Step.SETTINGS not in (*recovery(True, True, settings=False), *get_ready(settings=False))
    assert get_ready().index(Step.DEACTIVATE) < get_ready().index(Step.SETTINGS) < get_ready().index(Step.ACTIVATE)
    for steps in (get_ready(), get_ready(False), recovery(True, True)):
        assert steps[steps.index(Step.ACTIVATE) - 1] is Step.DISARM, "a target of now, before a controller goes there"
    assert distribution("", {"ROS_DISTRO": "humble"}).deactivate_first
    assert not distribution("jazzy", {"ROS_DISTRO": "humble"}).deactivate_first
    assert distribution("", {}).name == distribution("rolling", {}).name == "kilted"


def test_steps_follow_one_another_and_the_first_that_fails_ends_all() -> None:
    session = ArmSession(to_pose(Step.REST))
    assert session.step is None
    assert session.begin(0) is Step.HOLD and session.progress == "1 of 4: stop where it is"
    assert [session.ended(True, "", S) for _ in range(4)] == [Step.ARM, Step.REST, Step.DISARM, None]
    assert session.outcome == "" and session.progress == "done"
    session = ArmSession(recovery(True, True))
    session.begin(0)
    session.ended(True, "", 0)
    assert session.ended(False, "the arm did not recover", 0) is None and session.step is None
    assert session.outcome == "could not clear the errors: the arm did not recover"
    assert session.ended(True, "", 0) is None


def test_a_step_without_an_answer_ends_all_with_what_it_waited_for() -> None:
    session = ArmSession((Step.ARM, Step.HOME), step_s=5.0)
    session.begin(0)
    session.waits_for = "joint state is 90 ms old"
    assert not session.late(5 * S) and session.late(5 * S + 1) and not session.late(99 * S)
    assert session.outcome == "could not arm in 5 s: joint state is 90 ms old"
    session = ArmSession((Step.HOME,), step_s=5.0)
    session.begin(0)
    assert not session.late(30 * S, allowed_ns=40 * S) and session.late(41 * S, allowed_ns=40 * S)
    assert "no answer" in session.outcome


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(-2.0, 2.0), min_size=7, max_size=7), st.floats(0.02, 1.0))
def test_an_approach_begins_and_ends_at_rest_and_keeps_its_speed(offsets, speed) -> None:
    goal = ARM.home + np.array(offsets)
    move = approach(ARM.home, goal, speed)
    assert 2 <= len(move.rows) <= MAX_ROWS and move.duration_ns >= 0.99 * S
    np.testing.assert_allclose(move.rows[[0, -1]], [ARM.home, goal], atol=1e-12)
    fastest = np.abs(np.diff(move.rows, axis=0)).max() / (move.period_ns / 1e9)
    assert fastest <= speed * 1.001
    assert np.abs(move.rows[1] - move.rows[0]).max() < 0.02 * max(np.abs(offsets).max(), 1e-9) + 1e-9


def test_the_executor_follows_an_approach_and_no_policy_interrupts_it() -> None:
    d = Driven().arm_it()
    goal = d.home + np.array([0.3, -0.2, 0.1, 0.2, -0.3, 0.2, 0.4])
    move = approach(d.home, goal, 0.5)
    home = d.chunk(move.rows, sequence=1, source="home", session="home-1", period_ns=move.period_ns)
    assert d.offer(d.chunk([d.home, d.home], sequence=1)) is None
    d.run(40)
    assert d.offer(home) is None
    assert "home (session home-1) has taken the arm" in str(d.offer(d.chunk([d.home], sequence=2)))
    assert "home" in str(d.offer(d.chunk([d.home], sequence=3, source="teleop", session="g")))
    d.run(move.duration_ns // 1_000_000 + 300)
    np.testing.assert_allclose(d.positions[-1], goal, atol=0.005)
    assert not d.violations and d.mode == "HOLD"


def test_the_poses_are_inside_the_limits_and_above_the_table() -> None:
    for pose in (REST, ARM.home):
        checked = checked_pose("rest_rad", tuple(pose), ARM.position_lower, ARM.position_upper)
        x, y, z = tcp_position_m(checked)
        assert x > 0.2 and abs(y) < 0.05 and z > 0.3
    with pytest.raises(ConfigError, match="home_rad has 3 joints"):
        checked_pose("home_rad", (0.0, 0.0, 0.0), ARM.position_lower, ARM.position_upper)
    with pytest.raises(ConfigError, match=r"rest_rad: joint 4 is 0.5 rad"):
        checked_pose("rest_rad", (*REST[:3], 0.5, *REST[4:]), ARM.position_lower, ARM.position_upper)
