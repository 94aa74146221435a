from __future__ import annotations

from e0_ros.core.message_clock import MessageClock

MS = 1_000_000


def test_the_example_of_the_docstring() -> None:
    clock = MessageClock(125.0)
    clock.begin(0)
    assert clock.due(0)
    clock.sent(0)
    assert not clock.due(8 * MS - 1) and clock.due(8 * MS)
    clock.hurry()
    clock.hurry()
    assert not clock.due(4 * MS - 1) and clock.due(4 * MS)


def test_a_message_that_is_a_little_late_shifts_no_other_and_after_a_stall_none_is_made_up_for() -> None:
    clock = MessageClock(125.0)
    clock.begin(0)
    clock.sent(3 * MS)
    assert clock.late_ns(10 * MS) == 2 * MS
    clock.sent(50 * MS)
    assert not clock.due(58 * MS - 1) and clock.due(58 * MS)


def test_to_hurry_what_is_due_already_changes_nothing() -> None:
    clock = MessageClock(100.0)
    clock.begin(0)
    clock.sent(0)
    clock.sent(13 * MS)
    assert clock.late_ns(20 * MS) == 0
    clock.hurry()
    assert clock.late_ns(20 * MS) == 2 * MS
    clock.begin(5 * MS)
    clock.hurry()
    assert clock.due(5 * MS)
