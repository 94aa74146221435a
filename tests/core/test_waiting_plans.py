"""Plans that wait for their time: each answer is its own plan's, and what was refused is never followed."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.core.driven import MS, Driven


def test_a_plan_that_waits_and_comes_too_late_is_not_the_next_ones_refusal() -> None:
    d = Driven(lockstep=True, latency_ms=200.0).arm_it()
    assert d.offer(d.chunk([d.home] * 3, sequence=1, in_reply_to_ns=d.now_ns)) is None
    d.run(200, tick_ms=50)
    second = d.chunk([d.home] * 20, sequence=2, in_reply_to_ns=d.now_ns)
    assert d.offer(second) is None
    again = d.offer(second)
    assert again and "sequence 2 is not above" in again.reason
    d.run(50, tick_ms=50)
    assert d.status.chunk is None and "late" in d.status.last_refusal and d.status.refused == 2
    d.run(200, tick_ms=50)
    assert d.status.chunk and d.status.chunk.sequence == 2


def test_a_refused_plan_of_a_human_takes_nothing_from_the_policy() -> None:
    d = Driven(lead_ms=40.0).arm_it()
    assert d.offer(d.chunk([d.home] * 20, sequence=1)) is None
    assert d.offer(d.chunk([d.home] * 20, sequence=2, t0_ns=d.now_ns + 200 * MS)) is None
    hand = d.offer(d.chunk([d.home], source="teleop", session="hand", period_ns=10 * MS))
    assert hand and "late" in hand.reason
    d.run(240)
    assert d.status.chunk and d.status.chunk.sequence == 2


@settings(max_examples=40, deadline=None)
@given(
    st.booleans(),
    st.sampled_from([0.0, 50.0, 200.0]),
    st.lists(st.tuples(st.integers(-4, 12), st.integers(1, 6), st.booleans(), st.integers(0, 4)), max_size=12),
)
def test_an_answer_is_its_own_plans_and_an_older_plan_never_follows_a_newer_one(
    lockstep: bool, latency_ms: float, script: list[tuple[int, int, bool, int]]
) -> None:
    """Each: t0 in steps of 25 ms from now, rows, whether they are out of reach, ticks until the next one."""
    d = Driven(lockstep=lockstep, latency_ms=latency_ms).arm_it()
    refused, followed = set(), []
    for sequence, (steps, rows, far, ticks) in enumerate(script):
        fields = {"t0_ns": d.now_ns + steps * 25 * MS, "in_reply_to_ns": d.now_ns}
        chunk = d.chunk([d.home + 0.6 * far] * rows, sequence, **fields)
        if d.offer(chunk):
            refused.add(sequence)
        else:
            again = d.offer(chunk)
            assert again and "is not above the last accepted one" in again.reason
        first = len(d.ticks)
        d.run(50 * ticks, tick_ms=50 if lockstep else 10)
        followed += [t.status.chunk.sequence for t in d.ticks[first:] if t.status.chunk]
    assert followed == sorted(followed) and not refused & set(followed)
    assert d.violations == []
