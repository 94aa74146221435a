from __future__ import annotations

import numpy as np
import pytest

from e0_policy.embodiment import load_embodiment
from e0_policy.policy import Plan, PolicyOutput
from e0_policy.types import ActionChunk, NoChunk, Observation, Stale
from e0_ros.core.plan_keeper import InForce
from e0_ros.core.policy_session import PolicySession, is_error

ARM = load_embodiment("fr3")
PERIOD, SECOND = 50_000_000, 1_000_000_000


class Fake:
    embodiment, checkpoint, execution_horizon = "fr3", "fake", 2

    def __init__(self) -> None:
        self.plans: list[Plan | None] = []
        self.fault: Exception | None = None
        self.silent = False

    def reset(self) -> None:
        self.plans.clear()

    def infer(self, observation: Observation, plan: Plan | None) -> PolicyOutput | None:
        self.plans.append(plan)
        if self.fault:
            raise self.fault
        return None if self.silent else PolicyOutput(np.zeros((4, 8)), PERIOD)


class Clock:
    """Every look takes 3 ms."""

    def __init__(self) -> None:
        self.now_ns = 0

    def __call__(self) -> int:
        self.now_ns += 3_000_000
        return self.now_ns


def session(lockstep: bool = True, fake: Fake | None = None) -> PolicySession:
    return PolicySession(fake or Fake(), "policy", "s", ARM, lockstep, 200_000_000, Clock())


def seen(stamp_ns: int, embodiment: str = "fr3") -> Observation:
    return Observation(stamp_ns, {}, ARM.home, 1.0, embodiment=embodiment, joint_names=ARM.joint_names)


def none_in_force() -> InForce | None:
    return None


def unasked() -> InForce | None:
    raise AssertionError("the executor's word is asked for although no plan is due")


def test_lockstep_answers_every_observation_and_asks_the_executor_only_when_a_plan_is_due() -> None:
    s = session()
    first = s.answer(seen(SECOND), 0, none_in_force)
    assert isinstance(first, ActionChunk) and first.t0_ns == SECOND and first.latency_ns == 3_000_000
    assert not s.due(SECOND + PERIOD)
    kept = s.answer(seen(SECOND + PERIOD), 0, unasked)
    assert isinstance(kept, NoChunk) and kept.keep and kept.in_reply_to_ns == SECOND + PERIOD
    word = InForce(SECOND + PERIOD, "policy", "s", first.sequence, SECOND + 2 * PERIOD, SECOND)
    assert s.due(SECOND + 2 * PERIOD)
    assert isinstance(s.answer(seen(SECOND + 2 * PERIOD), 0, lambda: word), ActionChunk)
    plan = s.policy.plans[-1]  # type: ignore[attr-defined]
    assert plan is not None and (plan.t0_ns, plan.committed_until_ns) == (SECOND, SECOND + 2 * PERIOD)


def test_live_too_a_plan_is_kept_while_it_runs_and_an_old_observation_gets_none() -> None:
    s = session(lockstep=False)
    assert isinstance(s.answer(seen(SECOND), SECOND, none_in_force), ActionChunk)
    kept = s.answer(seen(SECOND + PERIOD), SECOND + PERIOD, unasked)
    assert isinstance(kept, NoChunk) and kept.keep and s.counts["kept"] == 1
    late = SECOND + 2 * PERIOD
    assert str(s.answer(seen(late), late + 250_000_000, unasked)).startswith("observation too old: 250 ms")
    assert isinstance(session().answer(seen(SECOND), 10 * SECOND, none_in_force), ActionChunk), "lock-step has no age"


def test_a_fault_of_the_policy_is_told_from_everything_else() -> None:
    fake = Fake()
    s = session(fake=fake)
    fake.fault = ZeroDivisionError("bad weights")
    answer = s.answer(seen(SECOND), 0, none_in_force)
    assert answer == "error: ZeroDivisionError: bad weights" and is_error(str(answer))
    assert s.counts["errors"] == 1 and "bad weights" in s.error
    stale = s.answer(Stale(SECOND, "wrist", "frozen", 1), 0, unasked)
    assert stale == "stale observation: wrist: frozen" and not is_error(str(stale))
    assert is_error(str(s.answer(seen(SECOND, "panda"), 0, unasked)))
    fake.fault, fake.silent = None, True
    assert s.answer(seen(SECOND), 0, none_in_force) == "nothing to plan"
    assert s.error == ""


def test_a_reset_forgets_the_plans_and_numbering_goes_on() -> None:
    s = session()
    first = s.answer(seen(SECOND), 0, none_in_force)
    assert isinstance(first, ActionChunk)
    s.reset()
    again = s.answer(seen(SECOND + PERIOD), 0, lambda: InForce(SECOND, "policy", "s", first.sequence, 0, SECOND))
    assert isinstance(again, ActionChunk) and again.sequence > first.sequence
    assert s.policy.plans == [None]  # type: ignore[attr-defined]
    assert s.none(SECOND, "x").sequence > again.sequence


def test_a_policy_of_another_arm_is_refused() -> None:
    with pytest.raises(ValueError, match="rows are for 'fr3'; this node drives 'panda'"):
        PolicySession(Fake(), "policy", "s", load_embodiment("panda"), True, 0, Clock())


def test_live_the_rows_that_run_while_the_policy_thinks_are_committed() -> None:
    """It took 3 ms before, looks at an observation that is 20 ms old, and the executor is committed a period ahead."""
    s, word = session(lockstep=False), InForce(SECOND, "policy", "s", 1, SECOND + PERIOD, SECOND)
    assert isinstance(s.answer(seen(SECOND), SECOND, none_in_force), ActionChunk)
    at = SECOND + 3 * PERIOD
    assert isinstance(s.answer(seen(at), at + 20_000_000, lambda: word), ActionChunk)
    plan = s.policy.plans[-1]  # type: ignore[attr-defined]
    assert plan is not None and plan.committed_until_ns == at + 23_000_000 + PERIOD


def test_committed_rows_that_a_policy_does_not_keep_are_counted() -> None:
    class Short(Fake):
        def infer(self, observation: Observation, plan: Plan | None) -> PolicyOutput:
            return PolicyOutput(np.zeros((4, 8)), PERIOD, rows_not_kept=3)

    s = session(fake=Short())
    for k in range(2):
        s.answer(seen(SECOND + 2 * k * PERIOD), 0, none_in_force)
    assert (s.counts["plans"], s.counts["committed rows not kept"]) == (2, 6)


def test_a_plan_in_doubt_is_due_to_be_replaced_sooner() -> None:
    class Doubting(Fake):
        execution_horizon = 4

        def infer(self, observation: Observation, plan: Plan | None) -> PolicyOutput:
            return PolicyOutput(np.zeros((6, 8)), PERIOD, uncertainty=np.array(self.nats, np.float32))

    for nats, rows in (([0.1] * 6, 4), ([0.1, 0.2, 0.9, 0.1, 0.1, 0.1], 2), ([2.0] * 6, 1), ([0, 0, 0, 0, 9, 9], 4)):
        fake = Doubting()
        fake.nats = nats  # type: ignore[attr-defined]
        s = PolicySession(fake, "policy", "s", ARM, True, 0, Clock(), doubt_nats=0.5)
        assert isinstance(s.answer(seen(SECOND), 0, none_in_force), ActionChunk)
        due = [s.due(SECOND + k * PERIOD) for k in range(6)]
        assert due == [k >= rows for k in range(6)], nats


def test_a_policy_that_prepares_is_let_when_told_and_its_fault_is_told() -> None:
    class Preparing(Fake):
        prepared, broken = 0, False

        def prepare(self) -> None:
            self.prepared += 1
            if self.broken:
                raise MemoryError("full")

    fake = Preparing()
    s = session(fake=fake)
    s.answer(seen(SECOND), 0, none_in_force)
    assert fake.prepared == 0, "whoever publishes says when"
    s.prepare()
    assert fake.prepared == 1 and s.error == ""
    fake.broken = True
    s.prepare()
    assert s.error == "MemoryError: full" and s.counts["errors"] == 1
    session().prepare()


def test_a_policy_that_looks_back_sees_every_observation_and_others_only_what_they_plan_from() -> None:
    class Watcher(Fake):
        def __init__(self) -> None:
            super().__init__()
            self.stamps: list[int] = []

        def observe(self, observation: Observation) -> None:
            self.stamps.append(observation.stamp_ns)

    fake = Watcher()
    run, plain = session(fake=fake), session()
    times = [SECOND + i * PERIOD for i in range(4)]
    for stamp_ns in times:
        assert run.looks(stamp_ns) and plain.looks(stamp_ns) == plain.due(stamp_ns)
        run.answer(seen(stamp_ns), stamp_ns, none_in_force)
        plain.answer(seen(stamp_ns), stamp_ns, none_in_force)
    run.answer(Stale(times[-1] + PERIOD, "base", "late", 0), times[-1] + PERIOD, none_in_force)
    assert fake.stamps == times and len(fake.plans) == 2
    assert not plain.looks(times[-1] + 1)
