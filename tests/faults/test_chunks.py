"""Rows of the fault matrix on chunks, sources and clocks: the executor's core, an ideal arm and the judge, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from e0_policy.embodiment import load_embodiment
from e0_policy.types import Representation
from e0_ros.core.admission import Refusal
from e0_ros.core.executor_types import Mode
from tests.core.driven import MS, START, Driven, follow, wave
from tests.faults.relay import Link, drive
from tests.faults.scale import scaled

FR3 = load_embodiment("fr3")
SILENCE_NS, EXHAUSTED_NS = 500 * MS, 100 * MS


def test_a_policy_that_dies_at_any_moment_is_a_hold_within_20_ms_of_its_last_word(record_property) -> None:
    rng, worst_ns, deaths = np.random.default_rng(1), 0, scaled(8, 100)
    for _ in range(deaths):
        d = Driven(source_silence_ms=500.0).arm_it()
        d.play(int(rng.integers(1, 20)))
        for sequence in range(int(rng.integers(2, 6))):
            t_s = (d.now_ns - START) / 1e9 + np.arange(rng.integers(4, 20)) * 0.05
            last, heard_ns = d.chunk(wave(d, t_s), sequence), d.now_ns
            assert d.offer(last) is None
            d.run(int(rng.integers(10, 140)))
        expired_ns = min(heard_ns + SILENCE_NS, last.end_ns + last.period_ns + EXHAUSTED_NS)
        d.run(1200)
        held_ns = next(t.status.committed_until_ns for t in d.ticks if t.status.mode is Mode.HOLD)
        worst_ns = max(worst_ns, held_ns - expired_ns)
        assert expired_ns <= held_ns and d.violations == []
        assert np.ptp(np.array(d.positions[-20:]), axis=0).max() == 0.0
    record_property("figure", f"braking at most {worst_ns / MS:.0f} ms after expiry, {deaths} of {deaths}")
    assert worst_ns <= 20 * MS


def test_a_source_whose_plan_goes_on_is_a_hold_within_520_ms_of_its_last_word(record_property) -> None:
    """Whatever silenced it: it died, its observations end, its inference never does."""
    rng, worst_ns, deaths = np.random.default_rng(5), 0, scaled(2, 100)
    for _ in range(deaths):
        d = Driven(source_silence_ms=500.0).arm_it()
        for sequence in range(int(rng.integers(1, 4))):
            d.play(int(rng.integers(1, 5)))
            t_s = (d.now_ns - START) / 1e9 + np.arange(40) * 0.05
            assert d.offer(d.chunk(wave(d, t_s), sequence)) is None
            heard_ns = d.now_ns
            d.run(4 * int(rng.integers(1, 100)))
        d.run(heard_ns // MS + 1100 - d.now_ns // MS)
        held = next(t.status for t in d.ticks if t.status.mode is Mode.HOLD)
        assert held.reason.startswith("policy is silent") and held.committed_until_ns >= heard_ns + SILENCE_NS
        worst_ns = max(worst_ns, held.committed_until_ns - heard_ns)
        assert d.violations == [] and np.ptp(np.array(d.positions[-20:]), axis=0).max() == 0.0
    record_property("figure", f"braking at most {worst_ns / MS:.0f} ms after its last word, {deaths} of {deaths}")
    assert worst_ns <= 520 * MS


def test_a_policy_that_was_frozen_moves_nothing_with_what_it_had_seen_before(record_property) -> None:
    rng, freezes, offered = np.random.default_rng(2), scaled(1, 100), 0
    for _ in range(freezes):
        d = Driven(source_silence_ms=500.0).arm_it()
        d.play(int(rng.integers(1, 50)))
        seen_ns = [d.now_ns + k * 50 * MS for k in range(100)]
        assert d.offer(d.chunk(wave(d, (d.now_ns - START) / 1e9 + np.arange(60) * 0.05))) is None
        d.run(4 * int(rng.integers(1150, 1250)))
        held = d.positions[-1]
        for sequence, stamp_ns in enumerate(seen_ns, start=1):
            refusal = d.offer(d.chunk([d.home] * 60, sequence, t0_ns=stamp_ns, in_reply_to_ns=stamp_ns))
            assert (refusal is None) == (stamp_ns >= d.now_ns - 500 * MS)
            if refusal is None:
                break
            offered += 1
            d.run(4)
            np.testing.assert_array_equal(d.positions[-1], held)
        assert d.mode == "RUNNING", "what it saw since is good again"
        assert d.violations == []
    record_property("figure", f"0 of {offered} stale plans followed after {freezes} freezes")


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_lost_chunks_cost_motion_and_never_a_limit(record_property, share: float) -> None:
    d, chunks = Driven(source_silence_ms=500.0).arm_it(), scaled(250, 33_334)
    link = Link(int(10 * share), drop=share)
    run = drive(d, link, chunks, rows=3, period_ms=20)
    record_property("figure", f"{share:.0%} lost of {chunks}: {len(d.violations)} breaches")
    assert d.violations == [] and len(run.followed) > 0.05 * (1 - share) * chunks
    assert abs(link.lost / chunks - share) < 0.1
    if share == 0.9:
        assert run.held > 0, "then the plans end"


@pytest.mark.parametrize("heard", [50, 60])
def test_short_plans_told_anew_faster_than_a_blend_are_caught_up_with_after_a_gap(record_property, heard: int) -> None:
    """40 ms of a motion, told every 40 ms, after 0.2 s of silence at speed: once the reference ran away by 1 rad."""
    d = Driven().arm_it()
    for k in range(heard + 70):
        if k < heard or (k > heard + 10 and k % 2):
            t_s = (d.now_ns - START) / 1e9 + np.arange(3) * 0.02
            assert d.offer(d.chunk(wave(d, t_s), k, period_ns=20 * MS)) is None
        d.run(20)
    q = np.array(d.positions)
    error = np.abs(q[-1] - wave(d, [(len(q) - 1) / 1e3])[0]).max()
    outside = np.abs(q - np.clip(q, d.home, d.home + 0.4)).max()
    record_property(
        "figure", f"{1e3 * outside:.0f} mrad outside of what was planned, {1e3 * error:.0f} mrad off at last"
    )
    assert d.mode == "RUNNING" and d.violations == []
    assert outside < 0.05 and error < 0.02


def test_doubled_chunks_change_no_bit(record_property) -> None:
    chunks, paths = scaled(200, 5_000), []
    for double in (0.0, 1.0):
        d = Driven().arm_it()
        run = drive(d, Link(5, double=double), chunks, keep_path=True)
        assert d.status.accepted == chunks and d.status.refused == double * chunks
        paths.append(np.array(run.positions))
    np.testing.assert_array_equal(*paths)
    assert np.ptp(paths[0]) > 0.3
    record_property("figure", f"{chunks} doubled: the same bits")


def test_a_chunk_that_was_overtaken_is_never_followed(record_property) -> None:
    d, chunks = Driven().arm_it(), scaled(300, 10_000)
    run = drive(d, Link(6, worst_ms=200.0, double=0.3), chunks)
    assert run.followed == sorted(set(run.followed)) and len(run.followed) > chunks / 10
    assert d.status.refused > chunks / 3 and d.violations == []
    record_property("figure", f"0 older followed of {chunks} out of order, {d.status.refused} refused")


@pytest.mark.parametrize("delay_ms", [0, 100, 300, 450])
def test_rows_that_have_passed_on_the_way_are_skipped(record_property, delay_ms: int) -> None:
    d, late = Driven().arm_it(), []
    for k in range(scaled(25, 200)):
        now_s = (d.now_ns - START) / 1e9
        late.append(d.chunk(wave(d, now_s + np.arange(25) * 0.05), k))
        d.run(100)
        while late and late[0].t0_ns + delay_ms * MS <= d.now_ns:
            assert d.offer(late.pop(0)) is None
    t_s = np.arange(len(d.positions)) / 1e3
    error = np.abs(np.array(d.positions) - wave(d, t_s)).max(axis=1)[1500:]
    record_property("figure", f"{delay_ms} ms late: {1e3 * error.max():.1f} mrad off the path")
    assert error.max() < 5e-3 and d.violations == []


def test_with_delays_up_to_3_s_no_old_plan_is_followed(record_property) -> None:
    d, chunks = Driven(source_silence_ms=500.0).arm_it(), scaled(300, 10_000)
    run = drive(d, Link(7, worst_ms=3000.0), chunks, rows=40)
    assert d.violations == [] and len(run.followed) > chunks / 30
    assert run.oldest_ns <= 504 * MS and run.followed == sorted(run.followed)
    record_property("figure", f"oldest followed {run.oldest_ns / MS:.0f} ms of {chunks}")


def test_a_jump_is_refused_and_a_sign_that_flips_every_tick_is_limited(record_property) -> None:
    d = Driven().arm_it()
    refusal = d.offer(d.chunk([d.home + 2.0] * 4))
    assert refusal and "jumps by 2.000 rad" in refusal.reason and d.mode == "HOLD"
    d = Driven(max_jump_rad=7.0, max_tracking_error_rad=7.0).arm_it()
    for k in range(scaled(250, 5_000)):
        assert d.offer(d.chunk([d.home + (-1.0) ** k] * 10, k, period_ns=10 * MS)) is None
        d.run(4 * (1 + k % 7))
    v = np.diff(np.array(d.positions), axis=0) * 1e3
    a, j = np.diff(v, axis=0) * 1e3, np.diff(v, n=2, axis=0) * 1e6
    figure = f"acceleration {np.abs(a).max():.2f} rad/s2, jerk {np.abs(j).max():.0f} rad/s3"
    record_property("figure", figure)
    assert np.abs(a).max() <= 10 and np.abs(j).max() <= 5000 and d.violations == [], figure
    assert np.abs(v).max() > 0.05


WRONG_UNITS = {
    "degrees": {"rows": np.degrees(FR3.home) + np.zeros((4, 1))},
    "another arm": {"rows": [FR3.home] * 4, "embodiment": "panda"},
    "the joints of another arm": {"rows": [FR3.home] * 4, "joint_names": load_embodiment("panda").joint_names},
    "deltas taken for positions": {"rows": np.full((4, 7), 0.01)},
    "deltas": {"rows": [FR3.home] * 4, "representation": Representation.EE_DELTA_STEP},
    "poses": {"rows": [FR3.home] * 4, "representation": Representation.EE_POSE},
}


@pytest.mark.parametrize("kind", WRONG_UNITS)
def test_another_unit_frame_or_arm_is_refused_as_a_whole(kind: str, record_property) -> None:
    d = Driven().arm_it()
    refusal = d.offer(d.chunk(**WRONG_UNITS[kind]))
    assert isinstance(refusal, Refusal) and refusal.fault and d.mode == "HOLD" and refusal.reason in d.status.reason
    d.run(300)
    np.testing.assert_array_equal(d.positions[-1], d.home)
    record_property("figure", f"{kind}: refused")


@pytest.mark.parametrize("jump_s", [-10.0, 10.0])
def test_a_clock_that_jumps_disarms_and_nothing_more_is_sent(record_property, jump_s: float) -> None:
    d = Driven().arm_it()
    follow(d, seconds=0.8)
    d.tick()
    ticks = [d.executor.tick(d.now_ns + int(jump_s * 1e9) + k * 4 * MS) for k in range(100)]
    assert all(t.command is None for t in ticks) and ticks[0].status.mode is Mode.DISARMED
    assert "the clock jumped" in ticks[0].status.reason and f"{abs(jump_s):.3f} s" in ticks[0].status.reason
    record_property("figure", f"{jump_s:+.0f} s: 0 commands")
    d.play(600)
    assert d.violations == [] and np.ptp(np.array(d.positions[-20:]), axis=0).max() == 0.0


def test_a_clock_that_stands_still_moves_nothing_on(record_property) -> None:
    d = Driven().arm_it()
    follow(d, seconds=0.8)
    first = d.executor.tick(d.now_ns)
    again = [d.executor.tick(d.now_ns) for _ in range(50)]
    assert sum(t.command is not None for t in again) == 0
    assert all(t.status.committed_until_ns == first.status.committed_until_ns for t in again)
    record_property("figure", "paused: 0 commands")


@pytest.mark.parametrize("step_s", [-0.5, 0.5])
def test_a_stepped_wall_clock_is_a_hold_or_worse_never_a_motion(step_s: float, record_property) -> None:
    d = Driven().arm_it()
    follow(d, seconds=0.8)
    now_ns = d.now_ns + int(step_s * 1e9)
    d.executor.observe_joints(now_ns, FR3.joint_names, d.positions[-1], np.zeros(7))
    tick = d.executor.tick(now_ns)
    record_property("figure", f"{step_s:+.1f} s: {tick.status.mode.name}, 0 motion")
    assert tick.status.mode in (Mode.HOLD, Mode.DISARMED) and tick.status.reason
    if tick.command:
        assert tick.command.at_rest(now_ns), "at most word to stay where the last command ended"


def test_of_two_policies_one_drives_and_the_other_is_told_so(record_property) -> None:
    d, steps, other = Driven().arm_it(), scaled(100, 2_000), set()
    for k in range(steps):
        t_s = (d.now_ns - START) / 1e9 + np.arange(10) * 0.05
        assert d.offer(d.chunk(wave(d, t_s), k, session="first")) is None
        refusal = d.offer(d.chunk([d.home - 0.2] * 10, k, session="second"))
        assert refusal and refusal.reason == "policy (session first) owns the arm" and not refusal.fault
        d.run(20)
        other |= {t.status.owner for t in d.ticks} - {"policy (session first)"}
        del d.positions[:-2], d.ticks[:]
    assert not other and d.violations == [] and d.status.refused == steps
    record_property("figure", f"0 of {steps} interleaved, each refused with the owner's name")


def hand_back(d: Driven, k: int) -> None:
    """A human keeps the arm until it is armed again, at rest."""
    assert d.offer(d.chunk([d.home] * 2, k, session="a")).reason.startswith("teleop (session human) has taken the arm")
    d.executor.hold()
    d.run(400)
    assert d.executor.arm(d.now_ns) is None


def test_the_human_takes_the_arm_within_a_tick_each_time_and_without_a_step(record_property) -> None:
    d, switches = Driven(lease_ms=0.0, exhausted_ms=1000.0).arm_it(), scaled(40, 1_000)
    rng = np.random.default_rng(9)
    for k in range(switches):
        human = k % 2 == 1
        if k and not human:
            hand_back(d, k)
        source = {"source": "teleop", "session": "human"} if human else {"session": "a"}
        target = d.positions[-1] + rng.uniform(-0.2, 0.2, 7) if human else d.home
        refusal = d.offer(d.chunk([target] * 2, k, **source))
        assert refusal is None, refusal
        owner = d.tick().status.owner
        assert owner.startswith("teleop" if human else "policy")
        d.play(4)
        d.run(4 * int(rng.integers(1, 30)) if not human else 60)
        del d.positions[:-2], d.ticks[:]
    assert d.violations == []
    record_property("figure", f"{switches} switches, each at the next tick, 0 breaches")


def test_an_arm_that_no_longer_follows_is_not_moved_until_it_is_armed_again(record_property) -> None:
    d = Driven().arm_it()
    t_s = np.arange(60) * 0.05
    assert d.offer(d.chunk(wave(d, t_s, 0.5), 0)) is None
    d.run(300)
    stuck, d.joints_alive, after = d.positions[-1], False, 0
    for k in range(1, 200):
        d.executor.observe_joints(d.now_ns, FR3.joint_names, stuck, np.zeros(7))
        d.offer(d.chunk(wave(d, (d.now_ns - START) / 1e9 + t_s, 0.5), k))
        d.run(8)
        after += d.mode == "RUNNING"
        if d.mode == "HOLD":
            break
    assert "from its reference" in d.status.reason
    d.play(600)
    for k in range(200, 240):  # the robot is back, where its reference came to rest
        d.executor.observe_joints(d.now_ns, FR3.joint_names, d.positions[-1], np.zeros(7))
        refusal = d.offer(d.chunk([d.positions[-1]] * 10, k))
        assert refusal and "arm first" in refusal.reason
        d.run(8)
        assert d.mode == "HOLD"
    record_property("figure", "0 commands on before it is armed again")
    d.joints_alive = True
    d.measure()
    d.arm_it()
    assert d.offer(d.chunk([d.positions[-1]] * 10, 300)) is None and d.violations == []
