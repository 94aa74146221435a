from __future__ import annotations

from e0_policy.embodiment import load_embodiment
from e0_policy.types import ActionChunk
from e0_ros.core.admission import Admission, AdmissionConfig, Refusal
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
