"""Alignment, engaging, dropouts and jumps, with time driven by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from e0_policy.embodiment import load_embodiment
from e0_policy.resources import config_dir
from e0_ros.config import ConfigError
from e0_ros.core.executor_types import Mode
from e0_ros.core.gello import Follower, GelloConfig, GelloTeleop, Idle, Lead, Phase
from e0_ros.core.gello_geometry import load_calibration

MS = 1_000_000
ARM = load_embodiment("fr3")
HOME = ARM.home
LEADER = load_calibration(config_dir() / "gello.yaml")


def raw(q, opening=1.0, turns=0):
    """Servo angles of a leader at these joints."""
    angles = np.array(LEADER.signs) * q + np.array(LEADER.offsets_rad) + turns * 2 * math.pi
    trigger = LEADER.gripper_closed_rad + opening * (LEADER.gripper_open_rad - LEADER.gripper_closed_rad)
    return np.append(angles, trigger)


class Bench:
    """A leader, an executor that follows at once, and the time."""

    def __init__(self, **settings) -> None:
        self.core = GelloTeleop(GelloConfig(**settings), LEADER, "me")
        self.now_ns, self.q, self.opening = 10**9, HOME.copy(), 1.0
        self.follower = Follower(Mode.ARMED, "", "", HOME)
        self.leader_on = self.executor_on = True
        self.turns = 0

    def step(self, move=0.0, ms=10):
        self.now_ns += ms * MS
        self.q = self.q + move
        if self.executor_on:
            self.core.observe_executor(self.now_ns, self.follower)
        if self.leader_on:
            self.core.observe_leader(self.now_ns - MS, raw(self.q, self.opening, self.turns))
        outcome = self.core.tick(self.now_ns)
        if isinstance(outcome, Lead):
            self.follower = Follower(Mode.RUNNING, "", "me", outcome.rows[0, :7], outcome.rows[0, 7])
        elif outcome.released:
            self.follower = replace(self.follower, mode=Mode.HOLD, reason=outcome.reason)
        return outcome

    def engaged(self):
        for _ in range(60):
            outcome = self.step()
            if isinstance(outcome, Lead):
                return self
        raise AssertionError(outcome)


def test_engages_only_after_it_was_aligned_for_a_while_and_starts_where_the_arm_is():
    bench = Bench()
    bench.q = HOME + 0.08
    outcomes = [bench.step() for _ in range(40)]
    first = next(i for i, o in enumerate(outcomes) if isinstance(o, Lead))
    assert 29 <= first <= 32
    assert outcomes[first - 1] == Idle("aligned; hold still")
    np.testing.assert_allclose(outcomes[first].rows[0, :7], HOME, atol=1e-9)
    assert outcomes[first].t0_ns == 10**9 + (first + 1) * 10 * MS - MS
    steps = np.diff([o.rows[0, :7] for o in outcomes[first:]], axis=0)
    assert np.abs(steps).max() < 0.003
    for _ in range(120):
        last = bench.step()
    np.testing.assert_allclose(last.rows[0, :7], HOME + 0.08, atol=1e-3)


def test_says_which_joint_is_off_and_by_how_much():
    bench = Bench()
    bench.q = HOME + np.array([0, 0.05, 0, -0.31, 0, 0.2, 0])
    assert bench.step() == Idle(
        "not aligned: fr3_joint4 is 0.31 rad below the arm, fr3_joint6 is 0.20 rad above the arm (allowed 0.1 rad)"
    )


def test_moving_away_while_it_waits_starts_the_wait_again():
    bench = Bench()
    for _ in range(20):
        bench.step()
    assert isinstance(bench.step(0.12), Idle)
    outcomes = [bench.step(-0.12), *(bench.step() for _ in range(27))]
    assert all(isinstance(o, Idle) for o in outcomes)
    assert isinstance(bench.engaged().step(), Lead)


def test_follows_a_moving_leader_with_its_speed():
    bench = Bench().engaged()
    for _ in range(110):
        bench.step()
    leads = [bench.step(0.005) for _ in range(60)]
    last = leads[-1]
    assert np.abs(last.rows[0, :7] - bench.q).max() < 0.01
    np.testing.assert_allclose(np.diff(last.rows[:4, :7], axis=0) / (last.period_ns * 1e-9), 0.5, rtol=0.02)
    np.testing.assert_allclose(last.rows[4, :7] - last.rows[3, :7], 0.5 * 0.5 * last.period_ns * 1e-9, rtol=0.02)


def test_a_dropout_ends_the_leading_with_the_bus_fault_and_alignment_comes_first():
    bench = Bench().engaged()
    for _ in range(30):
        bench.step()
    bench.leader_on = False
    bench.core.leader_fault("servo 3 gave no position")
    outcomes = [bench.step() for _ in range(30)]
    released = [o for o in outcomes if isinstance(o, Idle) and o.released]
    assert len(released) == 1
    assert "silent for 59 ms" in released[0].reason or "silent for 51 ms" in released[0].reason
    assert "servo 3 gave no position" in released[0].reason
    assert not [o for o in outcomes[6:] if isinstance(o, Lead)]
    bench.leader_on, bench.q = True, bench.q + 0.3
    assert "not aligned" in bench.step().reason
    assert all(isinstance(bench.step(), Idle) for _ in range(40))


@pytest.mark.parametrize("joint", range(7))
def test_a_jump_ends_the_leading_and_is_never_sent(joint):
    bench = Bench().engaged()
    jump = np.zeros(7)
    jump[joint] = 0.4
    outcome = bench.step(jump)
    assert outcome == Idle(f"the leader's {ARM.joint_names[joint]} jumped by 0.40 rad in 10 ms", released=True)
    assert "not aligned" in bench.step().reason


@settings(deadline=None, max_examples=10)
@given(st.integers(-40, 40), st.integers(-40, 40))
def test_whole_turns_of_the_servos_change_nothing(before, after):
    bench, plain = Bench(), Bench()
    bench.turns = before
    bench.engaged()
    plain.engaged()
    bench.turns = after  # a servo that loses count in the middle
    for _ in range(5):
        a, b = bench.step(0.004), plain.step(0.004)
        np.testing.assert_allclose(a.rows, b.rows, atol=1e-9)


@pytest.mark.parametrize("mode", [Mode.DISARMED, Mode.STOPPED])
def test_an_executor_that_is_not_armed_is_not_led(mode):
    bench = Bench()
    bench.follower = Follower(mode, "not armed yet", "", HOME)
    assert bench.step() == Idle(f"the executor is {mode.name.lower()}: not armed yet")
    bench = Bench().engaged()
    bench.follower = replace(bench.follower, mode=mode, reason="by hand")
    assert bench.step().released


def test_a_hold_of_the_executor_ends_the_leading_with_its_reason():
    bench = Bench().engaged()
    bench.step()
    bench.follower = replace(bench.follower, mode=Mode.HOLD, reason="joint state is 70 ms old")
    assert bench.step() == Idle("the executor follows no more: joint state is 70 ms old", released=True)


@pytest.mark.parametrize(
    ("refused_at", "why"), [(1, "armed on request"), (60, "it refuses what it is sent: late by 20 ms")]
)
def test_an_executor_that_refuses_what_it_is_sent_is_heard(refused_at, why):
    """What it refused before it was led is not told."""
    bench, outcomes = Bench(), []
    for k in range(100):
        refusal = "late by 20 ms" if k == refused_at else ""
        bench.follower = Follower(Mode.ARMED, "armed on request", "", HOME, refusal=refusal)
        outcomes.append(bench.step())
    released = [o.reason for o in outcomes if isinstance(o, Idle) and o.released]
    assert released[0] == f"the executor does not follow: {why}"


def test_an_executor_that_does_not_follow_or_is_silent_ends_the_leading():
    bench = Bench().engaged()
    bench.follower = Follower(Mode.HOLD, "refused chunk: wrong arm", "", HOME)
    bench.core = GelloTeleop(GelloConfig(), LEADER, "me")
    outcomes = []
    for _ in range(100):
        outcomes.append(bench.step())
        bench.follower = Follower(Mode.HOLD, "refused chunk: wrong arm", "", HOME)
    released = [o.reason for o in outcomes if isinstance(o, Idle) and o.released]
    assert released == ["the executor does not follow: refused chunk: wrong arm"]
    bench = Bench().engaged()
    bench.executor_on = False
    assert "executor is silent" in next(o for o in (bench.step() for _ in range(40)) if isinstance(o, Idle)).reason


def test_only_while_the_deadman_switch_is_pressed():
    bench = Bench(deadman=True)
    for _ in range(50):
        assert bench.step() == Idle("the deadman switch is not pressed")
    bench.core.deadman(True)
    bench.engaged()
    bench.core.deadman(False)
    assert bench.step() == Idle("the deadman switch is not pressed", released=True)


def test_on_request_only():
    bench = Bench(engage="request")
    for _ in range(50):
        assert isinstance(bench.step(), Idle)
    assert bench.core.engage(bench.now_ns) == ""
    bench.engaged()
    assert bench.core.engage(bench.now_ns) == ""
    bench.core.release()
    assert bench.core.phase is Phase.RELEASED
    assert all(isinstance(bench.step(), Idle) for _ in range(50))


def test_a_takeover_ends_with_the_take():
    bench = Bench(engage="request")
    bench.core.engage(bench.now_ns)
    bench.engaged()
    bench.follower = replace(bench.follower, mode=Mode.DISARMED, reason="disarmed on request")
    assert bench.step().released
    bench.follower = Follower(Mode.RUNNING, "", "policy", HOME)
    assert all(isinstance(bench.step(), Idle) for _ in range(50)), "the next take is the policy's"
    bench.core.engage(bench.now_ns)
    assert isinstance(bench.step(), Lead)


def test_the_trigger_takes_the_gripper_over_where_it_is():
    bench = Bench()
    bench.follower = replace(bench.follower, opening=0.0)
    bench.engaged()
    assert bench.step().rows[0, 7] == 0.0
    bench.opening = 0.05
    bench.step()
    bench.opening = 0.8
    assert bench.step().rows[0, 7] == pytest.approx(0.8)


@pytest.mark.parametrize("opening", [math.inf, -1e308])
def test_no_word_of_the_executor_leads_the_gripper_beyond_its_ends(opening):
    bench = Bench()
    bench.follower = replace(bench.follower, opening=opening)
    bench.engaged()
    bench.follower = replace(bench.follower, opening=opening)
    assert bench.step().rows[0, 7] == (opening > 0)


def test_a_leader_of_another_arm_is_refused():
    with pytest.raises(ConfigError, match="has 6 joints, fr3 7"):
        leader = replace(LEADER, joint_ids=(1, 2, 3, 4, 5, 6), signs=(1.0,) * 6, offsets_rad=(0.0,) * 6)
        GelloTeleop(GelloConfig(), leader, "me")


EVENTS = st.sampled_from(["move", "jump", "leader", "executor", "hold", "arm", "disarm", "deadman", "wait", "turn"])


@settings(deadline=None, max_examples=40)
@given(st.lists(st.tuples(EVENTS, st.integers(0, 6), st.floats(-1, 1)), max_size=40))
def test_it_leads_only_with_everything_in_place_and_never_beyond_what_the_hand_did(events):
    bench = Bench(deadman=True, align_ms=20.0, engage_ms=50.0)
    pressed, last_leader_ns, last_executor_ns, before, heard = False, 0, 0, None, bench.follower
    for kind, joint, size in events:
        move = np.zeros(7)
        if kind == "move":
            move[joint] = 0.05 * size
        elif kind == "jump":
            move[joint] = math.copysign(0.2 + abs(size), size)
        elif kind == "leader":
            bench.leader_on = not bench.leader_on
        elif kind == "executor":
            bench.executor_on = not bench.executor_on
        elif kind in ("hold", "arm", "disarm"):
            mode = {"hold": Mode.HOLD, "arm": Mode.ARMED, "disarm": Mode.DISARMED}[kind]
            bench.follower = Follower(mode, kind, "", np.clip(bench.q, ARM.position_lower, ARM.position_upper))
        elif kind == "deadman":
            pressed = not pressed
            bench.core.deadman(pressed)
        elif kind == "turn":
            bench.turns += 1 if size > 0 else -1
        for _ in range(3):
            heard = bench.follower if bench.executor_on else heard
            outcome = bench.step(move)
            move = 0.0
            last_leader_ns = bench.now_ns - MS if bench.leader_on else last_leader_ns
            last_executor_ns = bench.now_ns if bench.executor_on else last_executor_ns
            if isinstance(outcome, Idle):
                before = None
                continue
            assert pressed and heard.mode in (Mode.ARMED, Mode.RUNNING, Mode.HOLD)
            assert bench.now_ns - last_leader_ns <= 50 * MS
            assert bench.now_ns - last_executor_ns <= 300 * MS
            assert np.isfinite(outcome.rows).all()
            q = outcome.rows[:, :7]
            assert (q >= ARM.position_lower).all() and (q <= ARM.position_upper).all()
            if before is None:
                assert np.abs(q[0] - heard.reference).max() < 1e-6
            else:
                assert np.abs(q[0] - before).max() < 0.05 + 10 * 0.06 + 0.02
            before = q[0]
