from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from e0_ros.core.losses import LossCounter, describe_losses


@given(st.lists(st.tuples(st.sampled_from(["/a", "/b"]), st.sampled_from([b"p", b"q"]), st.booleans())))
def test_counts_every_drop_between_two_arrivals(stream: list[tuple[str, bytes, bool]]) -> None:
    losses, sent = LossCounter(), Counter[tuple[str, bytes]]()
    for topic, publisher, dropped in stream:
        sent[topic, publisher] += 1
        if not dropped:
            losses.received(topic, publisher, sent[topic, publisher])
    assert losses.by_topic == _reference(stream)


def _reference(stream: list[tuple[str, bytes, bool]]) -> dict[str, int]:
    total: dict[str, int] = {}
    for key in {(t, p) for t, p, _ in stream}:
        arrived = [i for i, d in enumerate(d for t, p, d in stream if (t, p) == key) if not d]
        if arrived and (missing := arrived[-1] - arrived[0] + 1 - len(arrived)):
            total[key[0]] = total.get(key[0], 0) + missing
    return total


def test_a_restarted_publisher_is_a_new_baseline() -> None:
    losses = LossCounter()
    assert [losses.received("/a", b"p", n) for n in (5, 6, 1, 2, 4)] == [0, 0, 0, 0, 1]
    assert losses.received("/a", b"new", 100) == 0
    assert losses.total == 1


def test_start_keeps_baselines_and_forgets_counts() -> None:
    losses = LossCounter()
    losses.received("/a", b"p", 1)
    losses.received("/a", b"p", 3)
    losses.start()
    assert losses.total == 0
    losses.received("/a", b"p", 6)
    losses.dropped("/b")
    assert losses.by_topic == {"/a": 2, "/b": 1}


def test_without_publishers_numbers_losses_are_unknown_not_zero() -> None:
    losses = LossCounter()
    for number in (None, 0):
        assert losses.received("/a", b"", number) == 0
    losses.received("/b", b"p", 1)
    losses.received("/b", b"p", 4)
    assert losses.known() == {"/a": None, "/b": 2}
    assert describe_losses(losses.total, losses.unnumbered.total()) == "at least 2"
    assert describe_losses(0, losses.unnumbered.total()) == "unknown"
    losses.start()
    assert (losses.known(), describe_losses(losses.total, losses.unnumbered.total())) == ({}, "0")


def test_what_came_before_both_sides_had_found_each_other_is_no_baseline() -> None:
    losses = LossCounter()
    losses.received("/a", b"p", 2)
    losses.forget()
    assert losses.received("/a", b"p", 5) == 0 and losses.received("/a", b"p", 7) == 1
