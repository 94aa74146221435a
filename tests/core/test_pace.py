import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from e0_policy.types import ActionChunk
from e0_ros.core.pace import PACED, SLOWEST, Pace, PaceConfig
from tests.core.driven import MS, START, Driven, follow

S = 1_000_000_000


def chunk(t0_ns=S, source="policy", rows=10, **fields) -> ActionChunk:
    return ActionChunk(np.arange(rows * 8.0).reshape(rows, 8), t0_ns, 50 * MS, source, "a", 1, **fields)


@pytest.mark.parametrize("source", ["teleop", "home"])
def test_what_a_human_does_is_neither_slowed_nor_withheld(source) -> None:
    for config in (PaceConfig(speed=0.1), PaceConfig(speed=0.0), PaceConfig(step_through=True)):
        hand = chunk(source=source)
        assert Pace(config).plan(hand, S) is hand


@given(st.floats(SLOWEST, 0.999))
def test_a_slowed_plan_is_the_same_rows_later_and_known_by_its_t0(speed) -> None:
    for source in PACED:
        sent = chunk(source=source)
        slow = Pace(PaceConfig(speed=speed)).plan(sent, S)
        assert slow is not None and (slow.rows == sent.rows).all() and slow.t0_ns == sent.t0_ns + 1
        assert abs(slow.end_ns - slow.t0_ns - (sent.end_ns - sent.t0_ns) / speed) < 10
    assert Pace(PaceConfig()).plan(sent, S) is sent


def test_speed_zero_withholds_and_nonsense_changes_nothing() -> None:
    pace = Pace(PaceConfig())
    for wrong in (math.nan, math.inf, -0.1, 1.01):
        assert "allowed is 0 to 1" in pace.set_speed(wrong) and pace.speed == 1.0
    assert pace.set_speed(0.0) == "" and pace.plan(chunk(), S) is None and pace.waits == "the speed is 0"
    assert pace.set_speed(0.001) == "" and pace.speed == SLOWEST and pace.waits == ""


class Stepped:
    """An executor that is armed, and a pace that releases its plans; `plan` has one wait, `step` releases it."""

    def __init__(self) -> None:
        self.driven, self.pace = Driven().arm_it(), Pace(PaceConfig(step_through=True))

    def plan(self, sequence: int, rows: int = 10, away_rad: float = 0.0, **fields) -> None:
        d = self.driven
        chunk = d.chunk([d.home + away_rad] * rows, sequence, **fields)
        assert self.pace.plan(chunk, d.now_ns) is None and self.pace.waits == "step-through: /e0/step releases a plan"

    def step(self) -> str:
        refusal = self.pace.step(self.driven.now_ns, self.driven.executor)
        return refusal.reason if refusal else ""


def test_each_step_is_one_plan_from_its_first_row_on() -> None:
    s = Stepped()
    d = s.driven
    assert s.step() == "no plan waits"
    s.plan(1)
    s.plan(2, in_reply_to_ns=d.now_ns + 5)
    d.run(100)
    assert d.mode == "ARMED" and s.step() == ""
    followed = d.status.chunk
    assert followed and (followed.sequence, followed.t0_ns, followed.in_reply_to_ns) == (2, d.now_ns, START + 5)
    s.plan(3)
    d.run(52)
    assert s.step() == "the last step goes on for 0.4 s" and d.mode == "RUNNING"
    d.run(400)
    assert s.step() == "" and s.step() == "the last step goes on for 0.5 s"
    d.run(500)
    assert s.step() == "no plan waits"


def test_a_step_that_is_refused_or_has_ended_keeps_no_other_one_back() -> None:
    s = Stepped()
    d = s.driven
    s.plan(1, rows=40, away_rad=0.6)
    assert "jumps by 0.600 rad" in s.step() and d.mode == "HOLD"
    assert s.pace.waits == "step-through: /e0/step releases a plan", "the plan that was refused may still be had"
    s.plan(2, rows=40)
    assert s.step() == "" and d.mode == "RUNNING"
    d.run(100)
    d.executor.give_up("policy", "a", "tired")
    s.plan(3, rows=40)
    assert d.mode == "HOLD" and s.step() == "" and d.mode == "RUNNING"


def test_an_old_plan_and_one_of_before_arming_are_not_released() -> None:
    s = Stepped()
    s.plan(1)
    s.driven.run(3000)
    assert s.step() == "the newest plan is of 3.0 s ago"
    s.plan(2)
    s.pace.forget()
    assert s.step() == "no plan waits"
    off = Pace(PaceConfig()).step(S, s.driven.executor)
    assert off and "step_through is off" in off.reason


def test_at_half_the_speed_the_arm_makes_half_the_way_within_its_limits() -> None:
    ways = []
    for speed in (1.0, 0.5):
        d, pace = Driven().arm_it(), Pace(PaceConfig(speed=speed))
        rows = d.home + np.linspace(0.0, 0.4, 41)[:, None] * np.ones(7)
        paced = pace.plan(d.chunk(rows), d.now_ns)
        assert paced is not None and d.offer(paced) is None
        d.run(1000)
        assert not d.violations and d.mode == "RUNNING"
        ways.append(float(d.positions[-1][0] - d.home[0]))
    assert ways[1] == pytest.approx(ways[0] / 2, abs=0.01) and ways[0] == pytest.approx(0.2, abs=0.02)


def test_an_arm_that_stopped_by_itself_gets_no_command_until_it_is_armed_where_it_is() -> None:
    d = Driven().arm_it()
    follow(d, 1.0)
    assert d.mode == "RUNNING"
    d.executor.abandon("the arm: reflex: joint_reflex")
    assert (d.mode, d.status.reason) == ("DISARMED", "the arm: reflex: joint_reflex")
    before = len(d.ticks)
    d.run(1000)
    assert all(tick.command is None for tick in d.ticks[before:])
    assert "arm first" in str(d.offer(d.chunk([d.home], sequence=99)))
    assert d.executor.arm(d.now_ns) is None
    np.testing.assert_array_equal(d.status.reference.position, d.positions[-1])
    d.run(100)
    assert not d.violations and d.mode == "ARMED"


def test_a_stop_stays_latched_when_the_arm_stops_by_itself() -> None:
    d = Driven().arm_it()
    follow(d, 0.8)
    d.executor.stop()
    d.executor.abandon("the arm: reflex")
    assert d.mode == "STOPPED" and "stopped" in str(d.executor.arm(START))
