from __future__ import annotations

from sim.pacing import Pacer


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
