from __future__ import annotations

from e0_ros.core.message_clock import MessageClock

MS = 1_000_000


def started() -> MessageClock:
    clock = MessageClock(50.0, 4 * MS)
    clock.begin(0)
    assert clock.due(0)
    clock.sent(0)
    return clock


def test_the_example_of_the_docstring() -> None:
    clock = started()
    assert not clock.due(20 * MS - 1) and clock.due(20 * MS)
    clock.hurry()
    assert not clock.due(4 * MS - 1) and clock.due(4 * MS)


def test_a_message_that_is_a_little_late_shifts_no_other_and_after_a_stall_none_is_made_up_for() -> None:
    clock = started()
    clock.sent(23 * MS)
    assert clock.late_ns(40 * MS) == 0
    clock.sent(150 * MS)
    assert not clock.due(170 * MS - 1) and clock.due(170 * MS)


def test_what_was_hurried_is_said_once_and_the_even_rate_begins_anew() -> None:
    clock = started()
    clock.hurry()
    clock.sent(10 * MS)
    assert not clock.due(30 * MS - 1) and clock.due(30 * MS)
    clock.hurry()
    clock.begin(12 * MS)
    clock.sent(12 * MS)
    assert not clock.due(31 * MS)
