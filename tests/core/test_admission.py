from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from e0_policy.embodiment import load_embodiment
from e0_policy.types import ActionChunk
from e0_ros.core.admission import RANK, Admission, AdmissionConfig, Refusal
from tests.core.driven import MS, Driven

ARM = load_embodiment("fr3")


BENCH = Driven()


def chunk(source: str = "policy", session: str = "a", sequence: int = 0, t0_ns: int = 0) -> ActionChunk:
    return BENCH.chunk([ARM.home] * 10, sequence, t0_ns, source=source, session=session)


def test_an_owner_keeps_the_arm_until_its_plan_ended_and_it_was_silent() -> None:
    admission = Admission(ARM, AdmissionConfig(lease_ms=300.0))
    admission.accept(chunk(), 0)
    other = chunk(session="b", t0_ns=400 * MS)
    for now_ms, plan_end_ms, free in ((200, 100, False), (350, 500, False), (301, 301, True)):
        verdict = admission.admit(other, now_ms * MS, plan_end_ms * MS)
        assert isinstance(verdict, Refusal) is not free
    assert admission.owns("policy", "a") and not admission.owns("policy", "b")


def test_teleop_takes_over_but_not_from_another_teleop() -> None:
    admission = Admission(ARM, AdmissionConfig())
    admission.accept(chunk(), 0)
    human = chunk("teleop", "human")
    assert admission.admit(human, 0, 0) is human
    admission.accept(human, 0)
    assert isinstance(admission.admit(chunk("teleop", "second"), 0, 0), Refusal)
    assert isinstance(admission.admit(chunk(sequence=1), 0, 0), Refusal)


def test_memory_of_sessions_is_bounded() -> None:
    admission = Admission(ARM, AdmissionConfig())
    for k in range(1000):
        admission.accept(chunk(session=f"s{k}"), 0)
    assert len(admission._sequences) <= 64
    assert admission.accepted == 1000


@pytest.mark.parametrize("owner", RANK)
@pytest.mark.parametrize("other", RANK)
def test_a_human_beats_a_policy_and_a_policy_beats_a_replay(owner: str, other: str) -> None:
    admission = Admission(ARM, AdmissionConfig())
    admission.accept(chunk(owner), 0)
    taken = not isinstance(admission.admit(chunk(other, "b"), 0, 500 * MS), Refusal)
    assert taken is (RANK[other] > RANK[owner])
    assert admission.owner == f"{owner} (session a)"


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(sorted(RANK)), st.sampled_from("ab"), st.integers(0, 900)), max_size=40))
def test_the_arm_changes_hands_only_upwards_or_after_the_lease(events) -> None:
    admission, now_ms, heard_ms, owner = Admission(ARM, AdmissionConfig(lease_ms=500.0)), 0, 0, None
    for sequence, (source, session, passed_ms) in enumerate(events):
        now_ms += passed_ms
        offered = chunk(source, session, sequence, now_ms * MS)
        if isinstance(admission.admit(offered, now_ms * MS, heard_ms * MS), Refusal):
            assert owner and owner != (source, session) and RANK[source] <= RANK[owner[0]]
            continue
        machine = RANK[source] < RANK["teleop"]
        assert not (owner and RANK[owner[0]] >= RANK["teleop"] and machine), "only arming takes the arm from a human"
        if owner not in (None, (source, session)):
            assert RANK[source] > RANK[owner[0]] or now_ms - heard_ms > 500
        admission.accept(offered, now_ms * MS)
        owner, heard_ms = (source, session), now_ms
        assert admission.owns(*owner)
