"""From the hand to the controller's set-point with time driven by hand: how far behind, and never against a limit."""

from __future__ import annotations

import numpy as np
import pytest

from e0_ros.core.executor_types import Mode
from e0_ros.core.gello import Idle
from e0_ros.graph import TELEOP_PACE
from tests.core.driven import MS, Driven
from tests.core.led import READ_MS, Led, wave

HOME = Driven(embodiment="fr3").home


def test_the_arm_is_a_tenth_of_a_second_behind_the_hand_at_most_and_keeps_every_limit():
    bench = Led(wave(HOME)).run(6000)
    d = bench.driven
    assert d.mode == "RUNNING"
    assert not d.violations
    assert bench.core.engagements == 1
    q, t = np.array(d.positions)[2500:], np.arange(len(d.positions))[2500:] * 1e-3
    lags = np.arange(0.0, 0.2, 0.005)
    errors = [max(np.abs(q[i] - bench.hand(t[i] - lag)).max() for i in range(0, len(q), 10)) for lag in lags]
    lag_ms, off = 1e3 * lags[int(np.argmin(errors))], min(errors)
    takeover_ms, *others_ms = bench.lags_ms.values()
    oldest_ms = max(others_ms)
    print(f"set-point {lag_ms:.0f} ms behind the hand, {off:.4f} rad off; sample to command at most {oldest_ms:.0f} ms")
    assert lag_ms <= 100
    assert off < 0.02
    assert oldest_ms <= READ_MS + 2, "at once, or 4 ms after the command before"
    assert takeover_ms <= 20


def test_readings_that_come_too_often_are_not_all_commanded():
    """A hand at 1 kHz: a command every 4 ms, and no more."""
    d = Driven(embodiment="fr3", **TELEOP_PACE).arm_it()
    sent = []
    for k in range(200):
        d.offer(d.chunk([d.home + 1e-4 * k] * 5, sequence=k, source="teleop", session="hand", period_ns=15 * MS))
        if d.executor.due(d.now_ns) and d.tick().command:
            sent.append(d.now_ns)
        d.play(1)
    assert 45 <= len(sent) <= 51 and min(np.diff(sent)) >= 4 * MS
    assert not d.violations


def test_silence_holds_with_its_reason_within_a_tenth_of_a_second_and_alignment_comes_first():
    bench = Led(wave(HOME, amplitude_rad=1.0)).run(2600)
    bench.silent = True
    bench.run(100)
    d = bench.driven
    assert d.executor.mode is Mode.HOLD
    assert d.status.reason.startswith("teleop: the leader is silent for 5")
    bench.run(200)
    bench.silent = False
    bench.run(60)
    assert isinstance(bench.outcome, Idle)
    assert "not aligned" in bench.outcome.reason
    held = d.positions[-1]
    bench.hand = lambda t: held
    bench.run(800)
    assert d.mode == "RUNNING"
    assert not d.violations


def test_a_node_that_dies_is_a_hold_within_a_tenth_of_a_second():
    bench = Led(wave(HOME)).run(2600)
    d = bench.driven
    d.run(100)
    assert d.executor.mode is Mode.HOLD
    assert "plan exhausted" in d.status.reason
    d.run(1000)
    assert not d.violations


@pytest.mark.parametrize("size", [0.2, 0.45, 3.0])
def test_a_jump_is_not_followed(size):
    bench = Led(wave(HOME, amplitude_rad=0.0)).run(1500)
    d, still = bench.driven, bench.hand
    before = d.positions[-1]
    bench.hand = lambda t: still(t) + np.eye(7)[2] * size
    bench.run(400)
    assert d.executor.mode is Mode.HOLD
    assert "fr3_joint3 jumped by" in d.status.reason
    np.testing.assert_allclose(d.positions[-1], before, atol=0.005)
    bench.hand = still
    bench.run(800)
    assert d.mode == "RUNNING"
    assert not d.violations


def test_a_hand_faster_than_the_arm_breaks_no_limit():
    bench = Led(wave(HOME, amplitude_rad=1.2, hz=1.2)).run(5000)
    assert not bench.driven.violations


def test_a_trigger_that_is_let_go_drops_nothing_after_arming_again():
    """As a recovery arms, with what the hand holds: the trigger takes the gripper where it is, or not at all."""
    bench = Led(wave(HOME, amplitude_rad=0.0))
    bench.squeeze = 1.0
    d = bench.run(1500).driven
    assert d.mode == "RUNNING" and d.status.gripper_opening == 0.0
    d.executor.abandon("the arm: reflex")
    bench.squeeze = 0.0
    bench.run(700)
    d.arm_it()
    bench.run(1500)
    assert d.mode == "RUNNING"
    assert {t.gripper for t in d.ticks if t.gripper is not None} == {0.0}
    bench.squeeze = 1.0
    bench.run(100)
    bench.squeeze = 0.0
    bench.run(100)
    assert d.status.gripper_opening == 1.0


def test_takes_over_from_a_policy_in_motion_on_request_and_arming_hands_the_arm_back():
    bench = Led(lambda _: HOME + 0.3, engage="request")
    d = bench.driven
    plan = HOME + 0.6 * np.linspace(0.0, 1.0, 41)[:, None] ** 2
    assert d.offer(d.chunk(plan)) is None
    bench.run(1000)
    assert d.status.chunk.source == "policy"
    assert isinstance(bench.outcome, Idle)
    assert "not aligned: fr3_joint" in bench.core.engage(d.now_ns)
    bench.run(300)
    assert d.executor.mode is Mode.HOLD
    assert d.status.reason.startswith("teleop: has taken over; not aligned: fr3_joint")
    stood = d.positions[-1]
    assert d.offer(d.chunk(plan, sequence=1)) is not None
    bench.hand = lambda _: stood
    bench.run(600)
    assert d.mode == "RUNNING"
    assert d.status.chunk.source == "teleop"

    bench.core.release()
    d.executor.give_up("teleop", "gello-1", "released on request")
    bench.run(400)
    assert "arm again" in d.offer(d.chunk(stood + 0 * plan, sequence=2)).reason
    assert d.executor.arm(d.now_ns) is None
    assert d.offer(d.chunk(stood + 0 * plan, sequence=3)) is None
    bench.run(200)
    assert d.status.chunk.source == "policy"
    np.testing.assert_allclose(d.positions[-1], stood, atol=0.01)
    assert not d.violations
