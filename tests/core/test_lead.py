"""Commands that arrive late: what the lead covers, at every delay that it promises."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from e0_ros.core.executor_types import Mode
from e0_ros.core.lead import Lead
from tests.core.driven import MS, Driven, follow, wave


def test_the_lead_grows_at_once_with_a_delay_and_shrinks_slowly() -> None:
    lead = Lead(20 * MS, 8 * MS, 400 * MS)
    lead.observe(MS // 2, 0)
    assert (lead.plan_ns, lead.brake_ns) == (20 * MS, 8 * MS)
    lead.observe(60 * MS, MS)
    assert lead.plan_ns == lead.brake_ns == 96 * MS and not lead.trouble
    for second in range(1, 200):
        lead.observe(MS, second * 1000 * MS)
        assert second > 3 or lead.plan_ns > 80 * MS
    assert (lead.plan_ns, lead.brake_ns) == (20 * MS, 8 * MS)


def test_arming_starts_from_the_delays_of_the_last_second() -> None:
    """Nodes that start hold each other up: a hand could not lead for a minute after that, its plans being short."""
    lead = Lead(20 * MS, 8 * MS, 400 * MS)
    lead.observe(250 * MS, 1000 * MS)
    lead.observe(10 * MS, 1900 * MS)
    lead.begin()
    assert lead.plan_ns == 381 * MS, "too recent to be forgotten"
    for ms in range(2000, 4000, 100):
        lead.observe(12 * MS, ms * MS)
    assert lead.plan_ns > 300 * MS
    lead.begin()
    assert lead.plan_ns == 24 * MS
    lead.observe(MS, 60_000 * MS)
    lead.begin()
    assert lead.plan_ns == 20 * MS


def test_an_arm_is_armed_with_the_delays_of_now() -> None:
    takes_ms = [200.0]
    d = Driven(delay_ms=lambda: takes_ms[-1]).run(100)
    takes_ms.append(2.0)
    assert d.run(3000).executor.transport_ns > 250 * MS
    d.arm_it()
    assert d.executor.transport_ns == 3 * MS


def test_a_clock_that_is_behind_shortens_no_lead_and_a_long_delay_is_trouble() -> None:
    lead = Lead(20 * MS, 8 * MS, 400 * MS)
    lead.observe(-50 * MS, MS)
    assert lead.brake_ns == 8 * MS
    lead.observe(10**12, 2 * MS)
    assert "800 ms; the longest lead is 400 ms" in lead.trouble and lead.plan_ns == 400 * MS


def restless(d: Driven, rng: np.random.Generator, sequence: int) -> None:
    """A new plan somewhere else, often; a hold or a stop now and then."""
    d.offer(d.chunk(d.home + rng.uniform(-1, 1, (rng.integers(1, 9), 7)), sequence))
    d.run(int(rng.choice([20, 60, 200])))
    if rng.random() < 0.15:
        d.executor.hold()
    elif rng.random() < 0.1:
        d.executor.stop()
    if d.status.mode in (Mode.HOLD, Mode.STOPPED):
        d.run(1200)
        d.executor.reset_stop()
        d.executor.arm(d.now_ns)


WIDE = {"max_jump_rad": 7.0, "max_tracking_error_rad": 7.0}


@pytest.mark.parametrize("worst_ms", [5, 30, 100, 200])
def test_commands_late_by_up_to_200_ms_are_legal(worst_ms: int) -> None:
    moved_rad = []
    for seed in range(2):
        rng = np.random.default_rng(seed)
        d = Driven(delay_ms=lambda rng=rng: rng.uniform(0, worst_ms), **WIDE)
        for _ in range(20):
            d.measure()
        d.arm_it()
        for sequence in range(8):
            restless(d, rng, sequence)
        d.play(1500)
        assert d.violations == []
        moved_rad.append(np.ptp(np.array(d.positions), axis=0).max())
    assert max(moved_rad) > 0.3, "it has to move for this to mean anything"


@settings(max_examples=2, deadline=None)
@given(st.integers(0, 2**31))
def test_a_machine_that_becomes_busier_and_busier_gives_no_illegal_command(seed: int) -> None:
    rng, worst_ms = np.random.default_rng(seed), [1.0]
    d = Driven(delay_ms=lambda: rng.uniform(0, worst_ms[0]), **WIDE).arm_it()
    for sequence in range(20):
        worst_ms[0] = min(200.0, worst_ms[0] * 1.35)
        restless(d, rng, sequence)
    d.play(1500)
    assert d.violations == []


@pytest.mark.parametrize("stall_ms", [20, 50, 80])
def test_a_plan_that_goes_on_bears_a_stall_out_of_the_blue(stall_ms: int) -> None:
    """No delay was ever measured; messages of up to 80 ms are late all at once, and change nothing."""
    until = [0]
    d = Driven(delay_ms=lambda: max(1, (until[0] - d.now_ns) / MS) if until[0] else 1)
    d.arm_it()
    assert d.offer(d.chunk(wave(d, np.arange(60) * 0.05))) is None
    d.run(300)
    d.measured = False
    for start in range(8):
        d.run(37 + start)
        until[0] = d.now_ns + stall_ms * MS
        d.run(100)
    assert d.violations == []
    assert d.mode == "RUNNING"


def test_a_stop_starts_as_early_as_the_delay_allows() -> None:
    for delay_ms, start_ms in ((1, 8), (40, 66)):
        d = Driven(delay_ms=lambda delay_ms=delay_ms: delay_ms).arm_it()
        follow(d, seconds=0.8)
        d.executor.stop()
        assert (d.tick().status.committed_until_ns - d.now_ns) / MS == start_ms
        d.run(900)
        assert d.violations == []


def test_messages_that_no_lead_covers_are_a_hold() -> None:
    d = Driven().arm_it()
    follow(d, seconds=0.4)
    d.executor.observe_delay(300 * MS, d.now_ns)
    d.run(20)
    assert d.mode == "HOLD" and "messages take up to 300 ms" in d.status.reason
