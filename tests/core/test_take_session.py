from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from e0_ros.core.episode import OUTCOMES
from e0_ros.core.take_session import (
    KEYS,
    DiscardLast,
    End,
    HandBack,
    Instruct,
    Quit,
    Refused,
    Start,
    TakeOver,
    TakeSession,
)


def running() -> TakeSession:
    session = TakeSession()
    session.started()
    return session


@pytest.mark.parametrize(
    ("key", "action"),
    [("s", End("success")), ("f", End("failure")), ("d", End("discard")), ("r", End("discard", again=True))],
)
def test_a_running_take_ends_with_a_label(key, action):
    assert running().key(key) == running().key(key.upper()) == action


@pytest.mark.parametrize("key", [" ", "i", "n", "q"])
def test_while_a_take_runs_nothing_else_is_done(key):
    refused = running().key(key)
    assert isinstance(refused, Refused) and "end the take first" in refused.reason


def test_a_human_takes_the_arm_over_and_hands_it_back_while_a_take_runs():
    assert running().key("t") == TakeOver() and running().key("b") == HandBack()
    assert isinstance(TakeSession().key("t"), Refused) and isinstance(TakeSession().key("b"), Refused)


def test_between_takes():
    session = TakeSession()
    assert session.key(" ") == Start()
    assert session.key("q") == Quit()
    assert isinstance(session.key("s"), Refused) and isinstance(session.key("f"), Refused)


def test_the_last_take_can_be_thrown_away_once_and_recorded_again():
    session = TakeSession()
    for key in ("d", "r"):
        assert isinstance(session.key(key), Refused)
        session.started()
        session.ended("bags/a")
        assert session.key(key) == DiscardLast(again=key == "r")
        session.ended("")
        assert isinstance(session.key(key), Refused)


def test_instructions_go_round_and_new_ones_are_the_next():
    session = TakeSession(["a", "b"])
    assert session.instruction == "a"
    assert [session.key("i"), session.key("i")] == [Instruct("b"), Instruct("a")]
    assert session.key("n") == Instruct("")
    session.add_instruction("c")
    assert session.instruction == "c" and session.key("i") == Instruct("a")
    assert isinstance(TakeSession(["a"]).key("i"), Refused) and TakeSession().instruction == ""


@given(st.lists(st.sampled_from([*KEYS, "x", "1"]), max_size=40))
def test_any_keys_start_and_end_in_turn_with_known_labels(keys):
    session, bags = TakeSession(["a", "b"]), 0
    for key in keys:
        action = session.key(key)
        if isinstance(action, Start):
            assert not session.recording
            session.started()
        elif isinstance(action, End):
            assert session.recording and action.outcome in OUTCOMES
            bags += 1
            session.ended("" if action.outcome == "discard" else str(bags))
            if action.again:
                session.started()
        elif isinstance(action, DiscardLast):
            assert session.last and not session.recording
            session.ended("")
            if action.again:
                session.started()
        elif isinstance(action, Refused):
            assert action.reason
    assert session.instruction in ("a", "b")
