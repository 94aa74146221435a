from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from e0_policy.embodiment import load_embodiment
from e0_policy.types import Representation
from e0_ros.config import ConfigError
from e0_ros.core.admission import Refusal
from e0_ros.core.chunk_executor import ChunkExecutor
from e0_ros.core.executor_types import ExecutorConfig, Mode
from tests.core.driven import MS, START, Driven, follow, wave
from tests.faults.scale import scaled

FR3, PANDA = load_embodiment("fr3"), load_embodiment("panda")
REFUSED_WHOLE = "refused as a whole with its reason, and a hold"


def test_the_example_of_the_docstring() -> None:
    executor = ChunkExecutor(ExecutorConfig(embodiment="panda", lockstep=True))
    executor.observe_joints(0, PANDA.joint_names, PANDA.home, np.zeros(7))
    assert executor.arm(0) is None
    d = Driven(embodiment="panda")
    chunk = d.chunk([PANDA.home + 0.01, PANDA.home + 0.02], t0_ns=50 * MS)
    assert executor.offer(chunk, 50 * MS) is None
    tick = executor.tick(50 * MS)
    assert tick.gripper == 1.0 and tick.status.mode is Mode.RUNNING
    assert tick.status.reason == "follows policy (session a)" and tick.status.owner == "policy (session a)"
    before = tick.command.sample(100 * MS)
    executor.observe_joints(100 * MS, PANDA.joint_names, before.position, before.velocity)
    after = executor.tick(100 * MS)
    assert after.gripper is None
    for old, new in zip(before, after.command.sample(100 * MS), strict=True):
        np.testing.assert_allclose(old, new, atol=1e-9)
    for now in range(150 * MS, 500 * MS, 50 * MS):
        executor.observe_joints(now, PANDA.joint_names, after.command.sample(now).position, np.zeros(7))
        after = executor.tick(now)
    assert after.status.mode is Mode.HOLD and after.status.reason.startswith("plan exhausted")


@pytest.mark.parametrize("embodiment", ["fr3", "panda"])
def test_a_smooth_motion_is_followed_without_lag(embodiment: str) -> None:
    d = Driven(embodiment=embodiment).arm_it()
    follow(d)
    t_s = (np.arange(len(d.positions)) * MS) / 1e9
    error = np.abs(np.array(d.positions) - wave(d, t_s)).max(axis=1)
    assert error.max() < 2e-3, f"{error.max() * 1e3:.2f} mrad at {error.argmax()} ms"
    assert np.ptp(np.array(d.positions), axis=0).min() > 0.39
    assert d.violations == []


def test_a_first_row_that_is_off_is_no_step_to_follow() -> None:
    """A plan every 200 ms along one motion, the row of its own time 0.02 rad off in every joint, to either side."""
    d = Driven(embodiment="panda").arm_it()
    off = 0.02 * (-1.0) ** np.arange(7)
    for k in range(10):
        rows = wave(d, k * 0.2 + np.arange(12) * 0.05)
        rows[0] += off * (-1.0) ** k
        assert d.offer(d.chunk(rows, k)) is None
        d.run(200)
    error = np.abs(np.array(d.positions) - wave(d, np.arange(len(d.positions)) / 1e3)).max()
    assert error < 0.004, f"{error:.4f} rad off its path; 0.0078 where the first row is followed as it comes"
    assert d.violations == []


def test_the_last_row_is_reached_exactly_without_overshoot() -> None:
    d = Driven(embodiment="panda").arm_it()
    s = np.linspace(0, 1, 21)[:, None]
    assert d.offer(d.chunk(d.home + 0.4 * (3 * s**2 - 2 * s**3), source="scripted")) is None
    d.run(2000)
    moved = np.array(d.positions) - d.home
    np.testing.assert_allclose(moved[-1], 0.4, atol=1e-6)
    assert moved.max() < 0.4 + 1e-3 and d.violations == []


def test_a_step_is_approached_without_overshoot() -> None:
    d = Driven().arm_it()
    assert d.offer(d.chunk([d.home + 0.3], source="teleop")) is None
    for k in range(1, 10):
        d.run(100)
        assert d.offer(d.chunk([d.home + 0.3], sequence=k, source="teleop")) is None
    moved = np.array(d.positions) - d.home
    assert moved.max() < 0.3 + 1e-4 and moved[-1].min() > 0.299 and d.violations == []


def test_rows_whose_time_has_gone_are_past() -> None:
    d = Driven().arm_it()
    d.run(200)
    rows = np.vstack([d.home + 0.4] * 3 + [d.home] * 20)
    assert d.offer(d.chunk(rows, t0_ns=START)) is None, "row 4 is in force, rows before are past"
    d.run(400)
    assert np.abs(np.array(d.positions) - d.home).max() < 1e-9


def test_when_the_plan_ends_the_arm_brakes_and_holds() -> None:
    d = Driven().arm_it()
    t_s = np.arange(9) * 0.05
    assert d.offer(d.chunk(wave(d, t_s, 0.3, 0.6))) is None
    d.run(400)
    assert np.abs(np.diff(d.positions[-2:], axis=0)).max() * 1e3 > 0.1, "it must still be moving"
    d.run(600)
    assert d.mode == "HOLD" and "plan exhausted" in d.status.reason
    assert np.ptp(np.array(d.positions[-100:]), axis=0).max() == 0.0
    assert d.violations == []
    assert d.offer(d.chunk([np.array(d.positions[-1])], sequence=1)) is None
    assert d.mode == "RUNNING", "a hold goes on by itself with a new chunk"


def test_a_dead_executor_leaves_an_arm_that_stops(record_property) -> None:
    rng, deaths, worst_ms = np.random.default_rng(3), scaled(2, 100), 0
    for _ in range(deaths):
        d = Driven().arm_it()
        follow(d, seconds=0.8)
        d.run(4 * int(rng.integers(0, 50)))
        d.play(int(rng.integers(1, 5)))
        before = len(d.positions)
        d.play(800)
        moves = np.abs(np.diff(np.array(d.positions[before - 1 :]), axis=0)).max(axis=1) > 0
        worst_ms = max(worst_ms, int(moves.nonzero()[0].max(initial=-1)) + 1)
        assert np.ptp(np.array(d.positions[-100:]), axis=0).max() == 0.0
        assert d.violations == []
    record_property("figure", f"at rest at most {worst_ms} ms after its death, {deaths} of {deaths}, 0 breaches")
    assert 0 < worst_ms <= d.config.lead_ms + d.config.span_ms + 528, "horizon and the longest braking"


@pytest.mark.parametrize("lag_ms", [0.0, 60.0])
def test_a_command_branches_off_when_it_says_however_far_ahead_its_plan_is_followed(lag_ms: float) -> None:
    """By that time the node tells whether it is too late to be sent."""
    d = Driven(lead_ms=20.0, arm_lag_ms=lag_ms).arm_it()
    branched = 0
    for k in range(8):
        assert d.offer(d.chunk(d.positions[-1] + 0.1 * (-1) ** k * np.ones((10, 7)), k)) is None
        for _ in range(25):
            before, tick = d.executor._command, d.tick()
            if tick.command is not None:
                until = np.arange(tick.command.start_ns, tick.branch_ns + 1, MS)
                np.testing.assert_allclose(tick.command.positions(until), before.positions(until), atol=1e-12)
                assert tick.branch_ns - d.now_ns <= 24 * MS
                after = np.arange(tick.branch_ns, tick.branch_ns + 5 * MS, MS)
                branched += bool(np.abs(tick.command.positions(after) - before.positions(after)).max() > 1e-9)
            d.play(4)
    assert branched == 8 and d.violations == []


def test_a_command_that_was_not_sent_in_time_never_was() -> None:
    d = Driven(embodiment="panda").arm_it()
    rows = d.home + 0.3 * np.sin(np.linspace(0, 3, 60))[:, None]
    d.offer(d.chunk(rows, source="scripted"))
    random, withdrawn = np.random.default_rng(3), 0
    for _ in range(700):
        held_up = bool(random.random() < 0.4)
        tick = d.tick(held_up)
        withdrawn += held_up and tick.command is not None
        d.play(30 if held_up else 4)
    assert withdrawn > 50
    assert d.violations == []
    np.testing.assert_allclose(d.positions[-1], rows[-1], atol=1e-3)


@pytest.mark.parametrize("pause_ms", [50, 200, 1000])
def test_a_frozen_executor_never_catches_up(pause_ms: int, record_property) -> None:
    d = Driven().arm_it()
    assert d.offer(d.chunk(wave(d, np.arange(60) * 0.05))) is None
    d.run(400)
    d.play(pause_ms)
    before = len(d.ticks)
    d.run(600)
    assert d.violations == []
    sent = sum(t.command is not None for t in d.ticks[before:])
    record_property("figure", f"{pause_ms} ms: {sent} commands in the 0.6 s after, at 50 Hz")
    assert sent <= 31
    if pause_ms > 100:
        assert d.mode == "HOLD" and "late" in d.ticks[before].status.reason


@pytest.mark.parametrize("tick_ms", [(4,), (4, 5, 3, 9)])
def test_a_plan_joined_before_its_tick_is_the_same_plan(
    monkeypatch: pytest.MonkeyPatch, tick_ms: tuple[int, ...]
) -> None:
    """Ticks on time find the plan joined, where it would be joined; ticks off time join it themselves."""

    def drive(ahead: bool) -> tuple[list, int]:
        d, joins = Driven().arm_it(), []
        join = d.executor._plans.join
        monkeypatch.setattr(d.executor._plans, "join", lambda *at: joins.append(ticking) or join(*at))
        if not ahead:
            monkeypatch.setattr(d.executor, "_join_ahead", lambda: None)
        ticking = False
        for k in range(200):
            if k % 25 == 7:
                shaken = wave(d, (d.now_ns - START) / 1e9 + np.arange(20) * 0.05) + 0.01 * np.sin(k)
                assert d.offer(d.chunk(shaken, sequence=k)) is None
            ticking = True
            d.tick()
            ticking = False
            d.play(tick_ms[k % len(tick_ms)])
        assert d.violations == []
        return [t.command for t in d.ticks if t.command], sum(joins)

    (ahead, late_joins), (plain, joins) = drive(True), drive(False)
    assert len(ahead) == len(plain) and joins >= 4
    assert late_joins < joins if len(tick_ms) > 1 else late_joins == 0
    for a, b in zip(ahead, plain, strict=True):
        assert (a.times_ns == b.times_ns).all()
        assert all((x == y).all() for x, y in zip(a.state, b.state, strict=True))


def test_commands_come_at_their_rate_and_state_what_is_committed() -> None:
    d = Driven().arm_it()
    follow(d, seconds=0.8)
    sent = [t for t in d.ticks if t.command]
    assert 39 <= len(sent) <= 42
    for tick, later in pairwise(sent):
        at = tick.status.committed_until_ns
        for a, b in zip(tick.command.sample(at), later.command.sample(at), strict=True):
            np.testing.assert_allclose(a, b, atol=1e-9)


REFUSED = {
    "embodiment": ({"embodiment": "other"}, "embodiment 'other'"),
    "order of joints": ({"joint_names": FR3.joint_names[::-1]}, "joint names"),
    "no joint names": ({"joint_names": ()}, "joint names"),
    "pose": ({"representation": Representation.EE_POSE}, "needed are none with poses"),
    "deltas": ({"representation": Representation.EE_DELTA_STEP}, "EE_DELTA_STEP"),
}


@pytest.mark.parametrize(("fields", "reason"), REFUSED.values(), ids=REFUSED)
def test_a_wrong_chunk_is_refused_counted_and_holds(fields, reason: str, record_property) -> None:
    d = Driven().arm_it()
    follow(d, seconds=0.4)
    refusal = d.offer(d.chunk([d.home] * 10, sequence=9, **fields))
    assert isinstance(refusal, Refusal) and reason in refusal.reason
    d.tick()
    assert (d.mode, d.status.refused, d.status.last_refusal) == ("HOLD", 1, refusal.reason)
    assert reason in d.status.reason
    d.run(600)
    assert d.violations == [] and np.ptp(np.array(d.positions[-50:]), axis=0).max() == 0.0
    record_property("figure", REFUSED_WHOLE)


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        (np.append(FR3.home, 1.2), "gripper"),
        (np.append(FR3.home, -0.1), "gripper"),
        (np.append(FR3.home, [0.0, 0.0]), "9 columns"),
        (FR3.home[:6], "6 columns"),
        ([*(FR3.home + 0.6), 1.0], "jumps by 0.600"),
    ],
)
def test_wrong_rows_are_refused(rows, reason: str, record_property) -> None:
    d = Driven().arm_it()
    refusal = d.offer(d.chunk([rows]))
    assert refusal and reason in refusal.reason
    assert d.mode == "HOLD" and d.status.accepted == 0 and d.status.refused == 1
    record_property("figure", REFUSED_WHOLE)


def test_a_chunk_that_is_only_old_late_or_known_is_dropped_without_a_hold(record_property) -> None:
    d = Driven().arm_it()
    d.run(1000)
    assert d.offer(d.chunk([d.home] * 20, sequence=5)) is None
    for chunk, reason in (
        (d.chunk([d.home] * 20, sequence=5), "sequence 5"),
        (d.chunk([d.home] * 20, sequence=4), "sequence 4"),
        (d.chunk([d.home] * 20, sequence=6, t0_ns=d.now_ns - 501 * MS), "501 ms old"),
        (d.chunk([d.home] * 2, sequence=6, t0_ns=d.now_ns - 300 * MS), "late"),
        (d.chunk([d.home] * 20, sequence=6, t0_ns=d.now_ns + 1001 * MS), "in the future"),
        (d.chunk([d.home] * 20, sequence=6, in_reply_to_ns=START - MS), "1 ms before arming"),
    ):
        refusal = d.offer(chunk)
        assert refusal and reason in refusal.reason
        assert d.mode == "RUNNING"
    assert d.status.refused == 6 and d.status.accepted == 1
    record_property("figure", "6 of 6 old, late or known chunks dropped")


def test_targets_outside_the_position_limits_are_limited(record_property) -> None:
    d = Driven(max_jump_rad=7.0, max_tracking_error_rad=7.0).arm_it()
    assert d.offer(d.chunk([FR3.position_upper + 1] * 80, source="scripted")) is None
    d.run(4000)
    assert d.violations == [] and d.status.limited == 1
    assert (np.array(d.positions[-1]) <= FR3.position_upper).all()
    np.testing.assert_allclose(d.positions[-1], FR3.position_upper, atol=0.015)
    record_property("figure", "all joints 1 rad beyond their limits: 0 overshoot")


def test_simulated_latency_delays_a_chunk_exactly() -> None:
    d = Driven(lockstep=True, latency_ms=100.0).arm_it()
    for k in range(6):
        stamp = d.now_ns
        if k == 1:
            assert d.offer(d.chunk([d.home] * 20, in_reply_to_ns=stamp)) is None
        d.tick()
        d.play(50)
    assert [t.status.mode.name for t in d.ticks] == ["ARMED"] * 3 + ["RUNNING"] * 3


def test_the_gripper_is_commanded_on_change_when_its_row_is_in_force() -> None:
    d = Driven(lockstep=True).arm_it()
    rows = np.column_stack((np.tile(d.home, (6, 1)), [1, 1, 0.98, 0, 0, 0]))
    assert d.offer(d.chunk(rows)) is None
    d.run(300, tick_ms=50)
    assert [t.gripper for t in d.ticks] == [1.0, None, None, 0.0, None, None]


def test_rows_of_a_policy_beyond_the_open_loop_limit_are_not_executed() -> None:
    d = Driven(max_open_loop_ms=300.0).arm_it()
    assert d.offer(d.chunk([d.home] * 50)) is None
    d.run(600)
    assert d.mode == "HOLD"
    e = Driven(max_open_loop_ms=300.0).arm_it()
    assert e.offer(e.chunk([d.home] * 50, source="scripted")) is None
    e.run(600)
    assert e.mode == "RUNNING"


def test_a_span_too_short_for_the_message_rate_is_an_error() -> None:
    with pytest.raises(ConfigError, match="span_ms is 30"):
        ExecutorConfig(span_ms=30.0)


steps = st.tuples(
    st.sampled_from(
        ["chunk"] * 6 + ["edge"] * 3 + ["late", "old", "wrong", "teleop", "hold", "stop", "freeze", "deaf"]
    ),
    st.integers(0, 2**31),
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@example("fr3", False, 0, [("teleop", 0), ("hold", 0), ("old", 0)])
@given(st.sampled_from(["fr3", "panda"]), st.booleans(), st.integers(0, 7), st.lists(steps, min_size=3, max_size=14))
def test_whatever_comes_every_command_is_legal(
    record_property, embodiment: str, lockstep: bool, transport: int, script
) -> None:
    transport = 0 if lockstep else transport
    d = Driven(transport, embodiment=embodiment, lockstep=lockstep, max_jump_rad=7.0, max_tracking_error_rad=7.0)
    d.arm_it()
    executed: dict[str, list[int]] = {"a": [], "human": []}  # by session: each counts for itself
    sequence = 0
    for kind, seed in script:
        sequence = act(d, kind, np.random.default_rng(seed), sequence)
        first = len(d.ticks)
        d.run(100, tick_ms=50 if lockstep else 4)
        for chunk in (t.status.chunk for t in d.ticks[first:] if t.status.chunk):
            executed[chunk.session].append(chunk.sequence)
    d.play(700)
    assert d.violations == []
    record_property("figure", "drawn run of right and wrong chunks, stops and silences, 0 breaches")
    for sequences in executed.values():
        assert sequences == sorted(sequences), "an older chunk was executed after a newer one"
    assert np.ptp(np.array(d.positions[-20:]), axis=0).max() == 0.0
    for tick in d.ticks:
        if tick.command:
            assert (np.diff(tick.command.times_ns) > 0).all()
            assert not tick.command.state.velocity[-1].any() and not tick.command.state.acceleration[-1].any()


def act(d: Driven, kind: str, rng: np.random.Generator, sequence: int) -> int:
    """One event of a property test; returns the last sequence number used."""
    span = d.arm.position_upper - d.arm.position_lower
    rows = d.arm.position_lower + span * rng.uniform(-0.3, 1.3, (rng.integers(1, 12), d.arm.joints))
    period = int(rng.choice([5, 20, 50])) * MS
    if kind == "edge":
        rows = np.where(rng.random(rows.shape) < 0.5, d.arm.position_lower - 1, d.arm.position_upper + 1)
    t0 = d.now_ns + int(rng.integers(-100, 50)) * MS
    fields = {"period_ns": period, "t0_ns": t0}
    if kind in ("chunk", "edge"):
        d.offer(d.chunk(rows, sequence + 1, **fields))
        return sequence + 1
    if kind == "late":
        d.offer(d.chunk(rows, sequence + 1, period_ns=period, t0_ns=d.now_ns - 600 * MS))
    elif kind == "old":
        d.offer(d.chunk(rows, max(sequence - 1, 0), **fields))
    elif kind == "wrong":
        d.offer(d.chunk(rows * 1e300, sequence + 1, embodiment="other"))
    elif kind == "teleop":
        d.offer(d.chunk(rows * 1e200, sequence + 1, source="teleop", session="human", **fields))
        return sequence + 1
    elif kind == "freeze":
        d.play(int(rng.integers(1, 400)))
    elif kind == "hold":
        d.executor.hold()
        d.run(600)
        d.executor.arm(d.now_ns)
    elif kind == "stop":
        d.executor.stop()
        d.run(600)
        d.executor.reset_stop()
        d.executor.arm(d.now_ns)
    else:
        d.joints_alive = not d.joints_alive
    return sequence
