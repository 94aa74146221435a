"""Arming, arbitration, holding and stopping."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest

from e0_policy.embodiment import load_embodiment
from e0_ros.core.chunk_executor import ChunkExecutor
from e0_ros.core.executor_types import ExecutorConfig, Mode
from tests.core.driven import MS, START, Driven, follow, wave
from tests.faults.scale import scaled

FR3, PANDA = load_embodiment("fr3"), load_embodiment("panda")


def test_one_owner_and_a_human_wins() -> None:
    d = Driven().arm_it()
    assert d.offer(d.chunk([d.home] * 20)) is None
    second = d.offer(d.chunk([d.home + 0.1] * 20, session="b"))
    assert second and "policy (session a) owns the arm" in second.reason
    assert d.mode == "RUNNING", "another's chunk must not stop the owner"
    wrong = d.offer(d.chunk([d.home] * 20, session="b", embodiment="other"))
    assert wrong and d.mode == "RUNNING"
    assert d.offer(d.chunk([d.home], source="teleop", session="human")) is None
    back = d.offer(d.chunk([d.home] * 20, sequence=1))
    assert back and "teleop" in back.reason
    d.run(1300)
    still = d.offer(d.chunk([d.home] * 20, sequence=2))
    assert still and "arm again to hand it back" in still.reason, "no silence hands a human's arm to a machine"
    assert d.offer(d.chunk([d.home], source="teleop", session="other")) is None, "the lease of a silent owner ends"
    d.run(1300)
    d.arm_it()
    assert d.offer(d.chunk([d.home] * 20, sequence=3)) is None


def test_arming_again_frees_the_arm_but_forgets_no_sequence() -> None:
    d = Driven().arm_it()
    assert d.offer(d.chunk([d.home] * 4, sequence=3)) is None
    d.run(400)
    d.arm_it()
    assert d.mode == "ARMED" and d.status.chunk is None
    assert d.offer(d.chunk([d.home] * 4, sequence=3)) is not None
    assert d.offer(d.chunk([d.home] * 4, source="scripted", session="b")) is None


def test_lost_joint_states_stop_the_arm_within_70_ms(record_property) -> None:
    """From the last joint state on, whenever between two ticks and two messages that is."""
    rng, worst_ms = np.random.default_rng(7), 0.0
    moments = [*product(range(5), (0, 1, 3)), *rng.integers(0, (100, 4), (scaled(0, 85), 2)).tolist()]
    for ticks, phase_ms in moments:
        d = Driven().arm_it()
        follow(d, seconds=0.4)
        d.run(4 * ticks)
        if phase_ms:
            d.play(phase_ms)
        d.joints_alive, lost_ns = False, d.now_ns
        d.play(4 - phase_ms)
        d.run(100)
        held = next(t for t in d.ticks if t.status.mode is Mode.HOLD)
        assert "joint state is" in held.status.reason and held.command
        worst_ms = max(worst_ms, (held.status.committed_until_ns - lost_ns) / MS)
        refusal = d.offer(d.chunk([d.home] * 20, sequence=50))
        assert refusal and "joint state" in refusal.reason
        d.run(500)
        assert d.violations == []
    record_property("figure", f"braking at most {worst_ms:.0f} ms after the last one, {len(moments)} of {len(moments)}")
    assert worst_ms <= 70


def test_a_joint_state_that_may_be_old_is_compared_with_what_was_commanded_then() -> None:
    d = Driven(joint_max_age_ms=400.0).arm_it()
    d.offer(d.chunk(d.home + np.linspace(0.0, 1.0, 20)[:, None] ** 2 * np.ones(7)))
    d.run(700)
    d.joints_alive = False
    d.run(500)
    held = next(t for t in d.ticks if t.status.mode is Mode.HOLD)
    assert "joint state is 40" in held.status.reason
    assert d.violations == []


def test_an_arm_far_from_its_reference_holds() -> None:
    d = Driven().arm_it()
    assert d.offer(d.chunk([d.home] * 20)) is None
    d.run(100)
    d.executor.observe_joints(d.now_ns + 1, FR3.joint_names, d.home + 0.31, np.zeros(7))
    d.tick()
    assert d.mode == "HOLD" and "0.310 rad from its reference" in d.status.reason


@pytest.mark.parametrize("moving", [True, False])
def test_stop_starts_at_once_and_is_latched(moving: bool) -> None:
    d = Driven().arm_it()
    if moving:
        follow(d, seconds=0.8)
    d.executor.stop()
    tick = d.tick()
    assert tick.status.mode is Mode.STOPPED and tick.status.reason
    if moving:
        assert tick.command and tick.status.committed_until_ns - d.now_ns <= 10 * MS
    d.run(600)
    assert np.ptp(np.array(d.positions[-50:]), axis=0).max() == 0.0 and d.violations == []
    assert d.offer(d.chunk([d.home] * 20, sequence=50)) and d.executor.arm(d.now_ns)
    d.executor.disarm()
    assert d.mode == "STOPPED"
    assert d.executor.reset_stop() is None and d.mode == "DISARMED"
    assert d.executor.arm(d.now_ns) is None


def test_a_stop_from_full_speed_meets_the_physical_bound() -> None:
    """v/a + a/j at the embodiment's limits: 264 ms for joints 1 to 4, 420 ms for 6, 528 ms for 5 and 7."""
    for joint, bound_ms in ((0, 264), (5, 420), (6, 528)):
        home = FR3.home.copy()
        home[joint] = [-1.9, 0, 0, 0, 0, 1.6, -2.2][joint]
        d = Driven(home=home, max_jump_rad=7.0, max_tracking_error_rad=7.0).arm_it()
        target = home.copy()
        target[joint] = [1.9, 0, 0, 0, 0, 3.9, 2.6][joint]
        assert d.offer(d.chunk([target] * 60, source="scripted")) is None
        d.run(700 if joint else 900)
        d.executor.stop()
        d.tick()
        asked = d.executor._command.sample(d.now_ns + 8 * MS).velocity[joint]
        stopped_ms = (d.executor._command.end_ns - d.now_ns) / MS - 8
        assert stopped_ms <= bound_ms and stopped_ms >= asked / 10 * 1e3
        d.run(600)
        assert d.violations == []


def test_a_hold_by_the_user_lasts_until_arm() -> None:
    d = Driven().arm_it()
    follow(d, seconds=0.8)
    d.executor.hold()
    d.run(600)
    assert d.mode == "HOLD" and d.status.reason == "held on request"
    assert d.offer(d.chunk([d.positions[-1]] * 20, sequence=50))
    assert d.mode == "HOLD"
    d.arm_it()
    assert d.offer(d.chunk([d.positions[-1]] * 20, sequence=50)) is None
    d.run(100)
    assert d.violations == []


def test_arming_needs_fresh_joints_at_rest_inside_the_limits() -> None:
    executor = ChunkExecutor(ExecutorConfig())
    assert "no joint state" in executor.arm(START).reason
    executor.observe_joints(START, FR3.joint_names[:6], FR3.home[:6], np.zeros(6))
    assert "no joint fr3_joint7" in executor.arm(START).reason
    executor.observe_joints(START, FR3.joint_names, FR3.home * np.nan, np.zeros(7))
    assert "must be finite" in executor.arm(START).reason
    executor.observe_joints(START, FR3.joint_names, FR3.home, np.full(7, 0.06))
    assert "moves at 0.060" in executor.arm(START).reason
    executor.observe_joints(START + 51 * MS, FR3.joint_names, FR3.home, np.zeros(7))
    assert "51 ms in the future" in executor.arm(START).reason
    executor = ChunkExecutor(ExecutorConfig())
    executor.observe_joints(START, FR3.joint_names, FR3.home, np.zeros(7))
    assert "80 ms old" in executor.arm(START + 80 * MS).reason
    executor.observe_joints(START + 80 * MS, FR3.joint_names, FR3.position_upper + 0.01, np.zeros(7))
    assert "fr3_joint1 is at" in executor.arm(START + 80 * MS).reason
    shuffled = FR3.joint_names[::-1]
    executor.observe_joints(START + 90 * MS, shuffled, FR3.home[::-1], np.zeros(7))
    assert executor.arm(START + 90 * MS) is None
    np.testing.assert_array_equal(executor.status(START + 90 * MS).reference.position, FR3.home)


def test_a_joint_state_that_comes_after_arming_moves_the_anchor() -> None:
    d = Driven(lockstep=True).arm_it()
    d.executor.observe_joints(START + 10 * MS, FR3.joint_names, FR3.home + 0.1, np.zeros(7))
    tick = d.executor.tick(START + 10 * MS)
    np.testing.assert_array_equal(tick.status.reference.position, FR3.home + 0.1)


def test_disarming_in_motion_brakes_and_then_sends_nothing() -> None:
    d = Driven().arm_it()
    follow(d, seconds=0.8)
    d.executor.disarm()
    before = len(d.ticks)
    d.run(600)
    assert [t.command is not None for t in d.ticks[before : before + 3]] == [True, False, False]
    assert not any(t.command for t in d.ticks[before + 1 :])
    assert np.ptp(np.array(d.positions[-50:]), axis=0).max() == 0.0 and d.violations == []


def test_a_clock_that_jumps_back_disarms() -> None:
    d = Driven().arm_it()
    follow(d, seconds=0.4)
    tick = d.executor.tick(d.now_ns - 10_004 * MS)
    assert tick.command is None and tick.status.mode is Mode.DISARMED and "jumped back by 10.000" in tick.status.reason


def test_impedance_output_keeps_its_reference_when_armed_again() -> None:
    d = Driven(output="impedance").arm_it()
    d.run(8)
    d.executor.disarm()
    d.executor.observe_joints(d.now_ns + 1, FR3.joint_names, d.home - 0.01, np.zeros(7))
    d.arm_it()
    np.testing.assert_array_equal(d.tick().status.reference.position, d.home)


def test_a_source_that_falls_silent_loses_its_plan_and_the_arm_comes_to_rest() -> None:
    d = Driven(source_silence_ms=500.0).arm_it()
    assert d.offer(d.chunk(wave(d, np.arange(60) * 0.05))) is None
    d.run(480)
    assert d.mode == "RUNNING"
    d.run(40)
    assert d.mode == "HOLD" and "policy is silent for 504 ms; allowed is 500 ms" in d.status.reason
    d.run(600)
    assert np.ptp(np.array(d.positions[-100:]), axis=0).max() == 0.0 and d.violations == []


def test_word_from_the_owner_keeps_its_plan_and_word_from_others_does_not() -> None:
    for session, mode in (("a", "RUNNING"), ("b", "HOLD")):
        d = Driven(source_silence_ms=500.0).arm_it()
        assert d.offer(d.chunk(wave(d, np.arange(60) * 0.05))) is None
        for _ in range(10):
            d.run(100)
            d.executor.keep("policy", session, d.now_ns, d.now_ns)
        assert d.mode == mode


def test_word_that_was_long_on_its_way_keeps_no_plan() -> None:
    """All of it in reply to what was seen at the start, delayed or doubled by the network."""
    d = Driven(source_silence_ms=500.0, max_chunk_age_ms=500.0).arm_it()
    assert d.offer(d.chunk(wave(d, np.arange(60) * 0.05))) is None
    for _ in range(20):
        d.run(48)
        d.executor.keep("policy", "a", d.now_ns, START)
    assert d.mode == "RUNNING", "half a second after what it saw it still counts"
    for _ in range(2):
        d.run(48)
        d.executor.keep("policy", "a", d.now_ns, START)
    assert d.mode == "HOLD" and "policy is silent for 504 ms" in d.status.reason


@pytest.mark.parametrize("word", ["given up", "stopped for its kind"])
def test_a_plan_that_waits_for_its_time_ends_with_its_sources_word(word: str) -> None:
    d = Driven(lead_ms=20.0).arm_it()
    assert d.offer(d.chunk([d.home + 0.1] * 10, t0_ns=d.now_ns + 400 * MS)) is None
    d.executor.give_up("policy", "another", "not mine")
    d.executor.give_up_for(("teleop",), "not these")
    d.run(100)
    if word == "given up":
        d.executor.give_up("policy", "a", "no more")
    else:
        d.executor.give_up_for(("policy", "replay"), "the speed is 0")
    d.run(800)
    assert d.mode == "ARMED" and np.ptp(d.positions, axis=0).max() == 0.0
    assert d.offer(d.chunk([d.home + 0.1] * 10, sequence=1)) is None
    d.run(100)
    assert d.mode == "RUNNING"


def test_reasons_have_a_length() -> None:
    d = Driven().arm_it()
    assert d.offer(d.chunk([d.home] * 10)) is None
    d.run(40)
    names = tuple(1000 * "x" for _ in range(1000))
    refusal = d.offer(d.chunk([d.home] * 10, sequence=1, joint_names=names))
    assert refusal.fault and len(refusal.reason) == len(d.status.last_refusal) == 500 and d.mode == "HOLD"
    assert refusal.reason.endswith("x ...") and len(d.status.reason) == 500
    d.arm_it()
    assert d.offer(d.chunk([d.home] * 10, sequence=2)) is None
    d.run(40)
    d.executor.give_up("policy", "a", 10_000 * "y")
    assert len(d.status.reason) == 500


def test_what_the_gripper_was_told_is_known_after_arming_again_but_not_after_the_scene_was_put_back() -> None:
    d = Driven().arm_it()
    rows = np.column_stack((np.tile(d.home, (4, 1)), np.zeros(4)))
    assert math.isnan(d.status.gripper_opening)
    assert d.offer(d.chunk(rows)) is None
    d.run(400)
    assert d.mode == "HOLD" and d.status.gripper_opening == 0.0
    d.arm_it()
    assert d.status.gripper_opening == 0.0
    assert d.offer(d.chunk(rows, sequence=1)) is None
    d.run(40)
    assert [t.gripper for t in d.ticks[-10:]].count(0.0) == 1, "and it is told anew"
    d.executor.hold()
    d.run(40)
    assert d.executor.arm(d.now_ns, not_before_ns=d.now_ns - 1) is None
    assert math.isnan(d.status.gripper_opening)


def test_in_lockstep_nobody_is_silent() -> None:
    d = Driven(source_silence_ms=20.0, lockstep=True).arm_it()
    assert d.offer(d.chunk([d.home] * 60)) is None
    d.run(1000, tick_ms=50)
    assert d.mode == "RUNNING"


@pytest.mark.parametrize("end", ["hold", "disarm"])
def test_arming_again_waits_until_the_braking_has_ended(end: str) -> None:
    d = Driven(lead_ms=20.0).arm_it()
    follow(d, seconds=0.8)
    getattr(d.executor, end)()
    refusals = []
    while refusal := d.executor.arm(d.now_ns):
        refusals.append(refusal.reason)
        d.run(4)
    d.run(200)
    assert any("still moves" in reason for reason in refusals)
    assert not d.violations


def test_arming_needs_joints_that_were_measured_after_the_braking() -> None:
    """Those from before the motion were at rest too, elsewhere."""
    d = Driven(joint_max_age_ms=1000.0).arm_it()
    assert d.offer(d.chunk(wave(d, np.arange(20) * 0.05))) is None
    d.joints_alive = False
    d.run(200)
    d.executor.disarm()
    d.run(400)
    assert "was measured before the reference came to rest" in d.executor.arm(d.now_ns).reason
    d.joints_alive = True
    d.run(4)
    d.arm_it().run(100)
    assert np.ptp(d.positions, axis=0).max() > 0.02 and d.violations == []
