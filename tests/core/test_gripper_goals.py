"""Goals of the hand under every order of commands, results and silences; time is driven by hand."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from e0_ros.core.gripper_goals import Cancel, GripperConfig, GripperGoals, Kind, S, Send

WIDTH = 0.08


def ready(homing=False, **more):
    goals = GripperGoals(GripperConfig(homing=homing, **more), WIDTH)
    return goals, goals.ready(0)


def one(acts):
    (act,) = acts
    return act


def test_homing_comes_first_and_once_and_the_newest_command_after_it():
    goals, acts = ready(homing=True)
    assert one(acts).goal.kind is Kind.HOMING
    assert goals.command(0.0, 1) == goals.command(0.5, 2) == goals.command(0.0, 3) == ()
    assert one(goals.finished(1, True, "", 4)).goal.kind is Kind.GRASP
    goals.finished(2, True, "", 5)
    assert one(goals.command(1.0, 6)).goal.kind is Kind.MOVE


def test_a_command_before_the_hand_is_there_is_kept():
    goals = GripperGoals(GripperConfig(homing=False), WIDTH)
    assert goals.command(0.0, 0) == ()
    assert goals.status().phase == "waiting for the hand"
    assert one(goals.ready(1)).goal.kind is Kind.GRASP


def test_a_grasp_succeeds_at_every_width_and_a_move_has_the_width_between_the_fingers():
    goals, _ = ready()
    grasp = one(goals.command(0.0, 0)).goal
    assert grasp.width_m - grasp.inner_m < 0.0
    assert grasp.width_m + grasp.outer_m > WIDTH
    goals.finished(grasp.number, True, "", 1)
    move = one(goals.command(1.0, 2)).goal
    assert (move.kind, move.width_m) == (Kind.MOVE, WIDTH)


@pytest.mark.parametrize(
    ("fingers_m", "opening", "kind"),
    [(0.08, 0.5, Kind.GRASP), (0.02, 0.5, Kind.MOVE), (0.04, 0.5, Kind.MOVE), (0.0, 0.0, Kind.GRASP)],
)
def test_closing_grasps_and_opening_moves(fingers_m, opening, kind):
    goals, _ = ready()
    goals.measured(fingers_m)
    assert one(goals.command(opening, 0)).goal.kind is kind


def test_the_same_command_again_sends_nothing_while_it_runs_or_after_it_succeeded():
    goals, _ = ready()
    number = one(goals.command(0.0, 0)).goal.number
    assert goals.command(0.0, 1) == ()
    assert goals.finished(number, True, "", 2) == ()
    assert goals.command(0.0, 3) == ()
    assert goals.status().sent == 1


def test_after_a_failure_the_same_command_is_tried_again_but_never_by_itself():
    goals, _ = ready()
    number = one(goals.command(0.0, 0)).goal.number
    assert goals.finished(number, False, "hand is not homed", 1) == ()
    assert "hand is not homed" in goals.status().fault
    assert goals.poll(60 * S) == ()
    assert isinstance(one(goals.command(0.0, 2)), Send)


def test_a_newer_command_cancels_and_waits_for_the_end():
    goals, _ = ready()
    number = one(goals.command(0.0, 0)).goal.number
    assert one(goals.command(1.0, 1)) == Cancel(number)
    assert goals.command(0.7, 2) == goals.command(1.0, 3) == ()
    after = one(goals.finished(number, False, "preempted", 4))
    assert (after.goal.kind, after.goal.opening) == (Kind.MOVE, 1.0)
    assert (goals.status().superseded, goals.status().failed, goals.status().fault) == (1, 0, "")


def test_superseded_by_another_and_back_ends_where_it_was_wanted_last():
    goals, _ = ready()
    number = one(goals.command(0.0, 0)).goal.number
    goals.command(1.0, 1)
    goals.command(0.0, 2)
    assert one(goals.finished(number, False, "preempted", 3)).goal.kind is Kind.GRASP
    assert goals.status().failed == 0


def test_a_goal_that_succeeds_while_it_is_cancelled_is_not_sent_again():
    goals, _ = ready()
    number = one(goals.command(0.0, 0)).goal.number
    goals.command(1.0, 1)
    goals.command(0.0, 2)
    assert goals.finished(number, True, "", 3) == ()


def test_a_goal_that_hangs_is_cancelled_and_one_that_never_ends_is_a_fault():
    goals, _ = ready(patience_s=3.0, cancel_s=2.0)
    number = one(goals.command(1.0, 0)).goal.number
    assert goals.poll(3 * S) == ()
    assert one(goals.poll(3 * S + 1)) == Cancel(number)
    assert goals.poll(4 * S) == goals.poll(6 * S) == ()
    assert "is franka_gripper alive" in goals.status().fault
    assert goals.command(0.0, 7 * S) == ()
    assert one(goals.finished(number, False, "", 8 * S)).goal.kind is Kind.GRASP


def test_a_slow_hand_has_the_time_that_its_way_takes():
    goals, _ = ready(speed_m_s=0.02, patience_s=3.0)
    number = one(goals.command(1.0, 0)).goal.number
    assert goals.poll(5 * S - 1) == ()
    assert one(goals.poll(5 * S + 1)) == Cancel(number)


@pytest.mark.parametrize("superseded", [False, True])
def test_a_goal_that_never_ends_is_forgotten_and_the_hand_moves_again(superseded):
    """franka_gripper died and was restarted before anyone saw it gone."""
    goals, _ = ready(patience_s=3.0, cancel_s=2.0, forget_s=10.0)
    number = one(goals.command(0.0, 0)).goal.number
    assert one(goals.command(1.0, 3 * S + 1) if superseded else goals.poll(3 * S + 1)) == Cancel(number)
    assert goals.poll(13 * S) == () and "alive" in goals.status().fault
    acts = goals.poll(13 * S + 2)
    if not superseded:
        assert acts == () and "forgotten" in goals.status().fault, "what failed is not tried again by itself"
        acts = goals.command(0.0, 14 * S)
    again = one(acts).goal
    assert again.opening == (1.0 if superseded else 0.0)
    assert goals.finished(number, True, "", 15 * S) == () and goals.status().phase != "idle", "its end is late"
    goals.finished(again.number, True, "", 16 * S)
    assert (goals.status().fault, goals.status().phase) == ("", "idle")


def test_a_goal_ends_with_the_server_that_has_it():
    goals, _ = ready()
    number = one(goals.command(0.0, 0)).goal.number
    goals.lost(1)
    assert goals.status().phase == "waiting for the hand" and "went away" in goals.status().fault
    assert goals.command(1.0, 2) == goals.poll(60 * S) == ()
    assert one(goals.ready(61 * S)).goal.kind is Kind.MOVE, "the newest wins, homing was done"
    assert goals.finished(number, True, "", 62 * S) == () and goals.status().phase == "move"


def test_homing_that_a_server_took_with_it_begins_anew_and_homing_that_was_done_does_not():
    goals, acts = ready(homing=True)
    assert one(acts).goal.kind is Kind.HOMING
    goals.lost(1)
    again = one(goals.ready(2)).goal
    assert again.kind is Kind.HOMING
    goals.finished(again.number, True, "", 3)
    goals.lost(4)
    assert goals.ready(5) == ()


@pytest.mark.parametrize("opening", [math.nan, math.inf, -0.1, 1.1])
def test_what_is_no_opening_moves_nothing_and_is_told(opening):
    goals, _ = ready()
    assert goals.command(opening, 0) == ()
    assert "allowed are 0 to 1" in goals.status().fault


def test_commanded_and_achieved_are_both_told():
    goals, _ = ready()
    number = one(goals.command(0.0, 0)).goal.number
    goals.measured(0.031)
    goals.measured(math.nan)
    goals.finished(number, True, "", 1)
    status = goals.status()
    assert (status.commanded, status.commanded_width_m, status.achieved_width_m) == (0.0, 0.0, 0.031)
    assert status.holding
    goals.measured(0.0005)
    assert not goals.status().holding


EVENTS = st.lists(
    st.one_of(
        st.tuples(st.just("command"), st.sampled_from([0.0, 0.3, 0.6, 1.0, math.nan])),
        st.tuples(st.just("finished"), st.booleans()),
        st.tuples(st.just("stray"), st.booleans()),
        st.tuples(st.just("poll"), st.floats(0.0, 10.0)),
        st.tuples(st.just("measured"), st.floats(0.0, WIDTH)),
    ),
    max_size=60,
)


@settings(max_examples=200, deadline=None)
@given(events=EVENTS, homing=st.booleans())
def test_one_goal_in_flight_and_the_last_command_is_what_the_hand_ends_at(events, homing):
    goals, acts = ready(homing=homing)
    now, flight, cancelled, wanted, sent = 0, None, {}, None, []
    queue = [("ready", acts)]
    for name, value in events:
        now += S // 100
        if name == "command":
            wanted = value if value == value else wanted
            acts = goals.command(value, now)
        elif name == "finished" and flight is not None:
            number, flight = flight.number, None
            acts = goals.finished(number, value, "", now)
        elif name == "stray":
            acts = goals.finished(999, value, "", now)
        elif name == "poll":
            now += round(value * S)
            acts = goals.poll(now)
            if flight is not None and now - cancelled.get(flight.number, now) > 10 * S:
                flight = None  # forgotten
        else:
            goals.measured(value if isinstance(value, float) else 0.0)
            acts = ()
        queue.append((name, acts))
        for act in [a for _, more in queue for a in more]:
            if isinstance(act, Send):
                assert flight is None
                flight = act.goal
                sent.append(act.goal)
            else:
                assert act.number == flight.number
                assert act.number not in cancelled
                cancelled[act.number] = now
        queue.clear()
    for _ in range(4):
        if flight is not None:
            number, flight = flight.number, None
            for act in goals.finished(number, True, "", now):
                flight = act.goal
                sent.append(act.goal)
    assert flight is None
    assert [g.kind for g in sent].count(Kind.HOMING) == int(homing and bool(sent))
    if wanted is not None:
        assert sent[-1].opening == wanted
