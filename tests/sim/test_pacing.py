from __future__ import annotations

from sim.pacing import SLEW_NS, Pacer


def test_time_runs_with_the_steady_clock() -> None:
    pacer = Pacer(50)
    pacer.anchor(1_000, 10)
    assert pacer.due_ns(15) == 1_005


def test_what_is_too_late_is_given_up_and_counted() -> None:
    pacer = Pacer(50)
    pacer.anchor(1_000, 0)
    assert pacer.give_up(1_000, 50) == 0
    assert pacer.give_up(1_000, 51) == 51
    assert pacer.give_up(1_051, 51) == 0
    assert pacer.overrun_ns == 51
    pacer.anchor(2_000, 51)
    assert pacer.overrun_ns == 0


def test_drift_is_followed_and_a_stepped_wall_clock_makes_no_jump() -> None:
    pacer = Pacer(50)
    pacer.anchor(1_000_000, 0)
    pacer.follow(1_000_030, 10)
    assert pacer.due_ns(10) == 1_000_030
    pacer.follow(9_000_000_000, 10)
    assert pacer.due_ns(10) == 1_000_030 + SLEW_NS
    pacer.follow(0, 10)
    assert pacer.due_ns(10) == 1_000_030


def test_only_whole_steps_are_given_up_as_only_they_are_skipped() -> None:
    pacer = Pacer(50, step_ns=20)
    pacer.anchor(1_000, 0)
    assert pacer.give_up(1_000, 59) == 40 == pacer.overrun_ns
    assert pacer.give_up(1_040, 59) == 0
