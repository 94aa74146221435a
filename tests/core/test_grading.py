from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from e0_ros.core.grading import KINDS, Flag, GradeConfig, grade, nearest_ns
from e0_ros.core.pairing import GRIPPER, JOINTS, SyncConfig
from e0_ros.core.take import Samples, Take

told = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
"""Every example has its figure."""
MS = 1_000_000
START = 5_000_000_000
STREAMS = SyncConfig(camera_rate_hz=20.0, joint_rate_hz=100.0, gripper_rate_hz=20.0, tolerance_ms=15.0)
LOCKSTEP = replace(STREAMS, lockstep=True, camera_rate_hz=30.0, joint_rate_hz=1000.0, frozen_pixels_ms=0.0)
EVERY = {"base": 50, "wrist": 50, JOINTS: 10, GRIPPER: 50}


def samples(stamps: np.ndarray, name: str, moved_rad: float = 0.5) -> Samples:
    none = np.empty(0, np.int64)
    if name == JOINTS:
        ramp = np.linspace(0.0, moved_rad, len(stamps))
        return Samples(stamps, stamps, none, stamps, np.column_stack([ramp, np.zeros_like(ramp)]))
    prints = np.arange(len(stamps)) if name in ("base", "wrist") else none
    return Samples(stamps, stamps, prints, none, np.empty((0, 0)))


def take(seconds: float = 4.0, jitter_ms: float = 0.0, seed: int = 0) -> Take:
    """A good take: every stream at its rate, pixels that change, an arm that moves."""
    rng, streams = np.random.default_rng(seed), {}
    for name, period in EVERY.items():
        stamps = START + np.arange(period * MS, int(seconds * 1e9) + 1, period * MS)
        shift = rng.uniform(-jitter_ms, jitter_ms, len(stamps)) * MS
        streams[name] = samples(np.unique(stamps + shift.astype(np.int64)), name)
    return Take(streams, START, START + int(seconds * 1e9))


def changed(good: Take, name: str, **values: object) -> Take:
    return replace(good, streams={**good.streams, name: replace(good.streams[name], **values)})


def without(good: Take, name: str, drop: np.ndarray) -> Take:
    s = good.streams[name]
    keep = ~drop
    kept = replace(s, stamps_ns=s.stamps_ns[keep], received_ns=s.received_ns[keep])
    if len(s.fingerprints):
        kept = replace(kept, fingerprints=s.fingerprints[keep])
    return replace(good, streams={**good.streams, name: kept})


def found(flags: list[Flag]) -> set[tuple[str, str]]:
    return {(flag.kind, flag.stream) for flag in flags}


@told
@given(seconds=st.floats(1.0, 8.0), jitter=st.floats(0.0, 3.0), seed=st.integers(0, 99))
def test_a_good_take_has_no_flag(record_property, seconds, jitter, seed):
    assert grade(take(seconds, jitter, seed), STREAMS) == []
    record_property("figure", "good take, 0 reports")


def test_a_good_lockstep_take_has_no_flag_whatever_the_configured_rates():
    assert grade(take(), LOCKSTEP) == []


@told
@given(name=st.sampled_from(sorted(EVERY)), at=st.floats(0.1, 0.8), length=st.floats(1.2, 4.0))
def test_a_hole_is_a_gap_of_that_stream_with_its_place_and_length(record_property, name, at, length):
    good, s = take(), take().streams[name]
    bound = 3 * EVERY[name] + 40
    first = START + int(at * 4e9)
    hole = (s.stamps_ns > first) & (s.stamps_ns < first + length * bound * MS)
    bad = without(good, name, hole)
    real = np.diff(np.concatenate([[START], bad.streams[name].stamps_ns, [bad.end_ns]])).max() / MS
    gaps = [flag for flag in grade(bad, STREAMS) if flag.kind == "gap"]
    assert [flag.stream for flag in gaps] == ([name] if real > bound else [])
    for flag in gaps:
        assert flag.value == pytest.approx(real) and flag.bound == pytest.approx(bound)
        assert abs(flag.at_s - at * 4) * 1e3 <= EVERY[name] + 1
    found_it = "gap, reported with its stream, place and length" if gaps else "hole within the bound, 0 reports"
    record_property("figure", found_it)


@pytest.mark.parametrize("name", sorted(EVERY))
@pytest.mark.parametrize("part", ["begin", "end"])
def test_a_stream_that_starts_late_or_ends_early_has_a_gap(name, part):
    s = take().streams[name].stamps_ns
    hole = s < START + 1_000 * MS if part == "begin" else s > START + 3_000 * MS
    assert ("gap", name) in found(grade(without(take(), name, hole), STREAMS))


@given(name=st.sampled_from(sorted(EVERY)), index=st.integers(0, 30))
def test_in_lockstep_a_single_missing_sample_is_a_gap(name, index):
    drop = np.zeros(len(take().streams[name].stamps_ns), bool)
    drop[10 + index] = True
    assert ("gap", name) in found(grade(without(take(), name, drop), LOCKSTEP))


@given(name=st.sampled_from(sorted(EVERY)), share=st.floats(0.4, 1.2))
def test_a_rate_below_its_bound_is_flagged_with_the_rate(name, share):
    stamps = START + np.arange(1, int(4e9 / (EVERY[name] * MS) * share)) * int(EVERY[name] * MS / share)
    bad = replace(take(), streams={**take().streams, name: samples(stamps, name)})
    rates = [flag for flag in grade(bad, STREAMS) if flag.kind == "rate"]
    real = 1e3 / EVERY[name] * share
    if abs(share - 0.9) > 1e-3:
        assert [flag.stream for flag in rates] == ([name] if share < 0.9 else [])
    for flag in rates:
        assert flag.value == pytest.approx(real, rel=1e-3)


@given(view=st.sampled_from(["base", "wrist"]), begin=st.integers(0, 40), frames=st.integers(2, 40))
def test_pixels_that_stand_still_are_frozen_beyond_the_bound(view, begin, frames):
    prints = take().streams[view].fingerprints.copy()
    prints[begin : begin + frames] = 7_777
    bad = changed(take(), view, fingerprints=prints)
    still_s = (min(frames, 80 - begin) - 1) * 0.05
    flags = grade(bad, STREAMS)
    assert found(flags) == ({("frozen", view)} if still_s >= 1.0 else set())
    for flag in flags:
        assert flag.value == pytest.approx(still_s * 1e3) and flag.at_s == pytest.approx(0.05 + begin * 0.05)


def test_a_still_scene_in_a_simulator_is_frozen_only_if_the_arm_moves():
    prints = np.zeros(80, np.int64)
    bad = changed(take(), "base", fingerprints=prints)
    assert found(grade(bad, LOCKSTEP)) == {("frozen", "base")}
    joints = bad.streams[JOINTS]
    waiting = np.where(joints.value_stamps_ns < START + 3_900 * MS, 0.0, 0.05)[:, None] * np.ones((1, 2))
    assert grade(changed(bad, JOINTS, values=waiting), LOCKSTEP) == []


@given(shift=st.floats(0.0, 24.0))
def test_views_that_lie_apart_are_skewed(shift):
    stamps = take().streams["wrist"].stamps_ns + int(shift * MS)
    bad = replace(take(), streams={**take().streams, "wrist": samples(stamps, "wrist")})
    flags = [flag for flag in grade(bad, STREAMS) if flag.kind == "skew"]
    assert [flag.stream for flag in flags] == (["wrist"] if int(shift * MS) > 15 * MS else [])
    for flag in flags:
        assert flag.value == pytest.approx(shift, abs=1e-3) and flag.bound == 15.0


@given(phase=st.floats(0.0, 50.0))
def test_views_that_run_free_of_each_other_are_not_skewed_and_one_that_lacks_images_is(phase):
    free, stamps = replace(STREAMS, tolerance_ms=0.0), take().streams["wrist"].stamps_ns + int(phase * MS)
    good = replace(take(), streams={**take().streams, "wrist": samples(stamps, "wrist")})
    assert "skew" not in {flag.kind for flag in grade(good, free)}
    drop = np.zeros(len(stamps), bool)
    drop[30:32] = True
    (flag,) = [flag for flag in grade(without(good, "wrist", drop), free) if flag.kind == "skew"]
    assert flag.bound == 30.0 and flag.value > 30.0


def test_losses_and_a_fault_are_flagged():
    flags = grade(replace(take(), lost={"/a": 3, "/b": 0}, fault="no space"), STREAMS)
    assert [(f.kind, f.stream, f.value) for f in flags] == [("fault", "", 0.0), ("loss", "/a", 3)]
    assert "no space" in str(flags[0]) and "3 messages" in str(flags[1])


@told
@given(name=st.sampled_from(sorted(EVERY)), back=st.integers(60, 3000), at=st.integers(5, 30))
def test_stamps_that_go_back_are_a_clock_step(record_property, name, back, at):
    stamps = take().streams[name].stamps_ns.copy()
    stamps[at:] -= back * MS
    assert ("clock", name) in found(grade(changed(take(), name, stamps_ns=stamps), STREAMS))
    record_property("figure", "step of stamps, reported")


@given(jump=st.integers(400, 5000))
def test_a_jump_of_all_streams_together_is_a_clock_step_and_of_one_is_not(jump):
    bad, one = take(), take()
    for name, s in bad.streams.items():
        stamps = s.stamps_ns + np.where(s.stamps_ns > START + 2_000 * MS, jump * MS, 0)
        moved = replace(s, stamps_ns=stamps, received_ns=stamps)
        bad = replace(bad, streams={**bad.streams, name: moved}, end_ns=START + (4_000 + jump) * MS)
    assert ("clock", "") in found(grade(bad, STREAMS))
    one = replace(one, streams={**one.streams, "base": bad.streams["base"]})
    assert ("clock", "") not in found(grade(one, STREAMS))


def test_gaps_of_all_streams_at_different_times_are_no_clock_step():
    bad = take()
    for i, name in enumerate(sorted(EVERY)):
        hole = np.abs(bad.streams[name].stamps_ns - START - (500 + 800 * i) * MS) < 200 * MS
        bad = without(bad, name, hole)
    assert {stream for kind, stream in found(grade(bad, STREAMS)) if kind == "gap"} == EVERY.keys()
    assert ("clock", "") not in found(grade(bad, STREAMS))


def test_in_lockstep_the_first_control_step_comes_a_step_after_the_start_and_the_end_at_once():
    s = take().streams[JOINTS]
    assert grade(without(take(), JOINTS, s.stamps_ns < START + 50 * MS), LOCKSTEP) == []
    assert found(grade(without(take(), JOINTS, s.stamps_ns > START + 3_950 * MS), LOCKSTEP)) == {("gap", JOINTS)}


@pytest.mark.parametrize("away_ms", [-900, 900])
def test_stamps_far_from_their_receipt_are_of_another_clock(away_ms):
    received = take().streams["wrist"].stamps_ns + away_ms * MS
    assert found(grade(changed(take(), "wrist", received_ns=received), STREAMS)) == {("clock", "wrist")}


def test_an_arm_that_stands_is_static():
    joints = take().streams[JOINTS]
    still = changed(take(), JOINTS, values=joints.values * 0.03)
    assert found(grade(still, STREAMS)) == {("static", JOINTS)}
    assert grade(still, STREAMS, GradeConfig(still_rad=0.01)) == []


@pytest.mark.parametrize("name", sorted(EVERY))
def test_a_stream_that_never_came_is_missing_and_the_rest_is_still_judged(name):
    streams = {key: s for key, s in take().streams.items() if key != name}
    assert ("missing", name) in found(grade(replace(take(), streams=streams), STREAMS))
    assert found(grade(Take({}, START, START), STREAMS)) == {("missing", key) for key in EVERY}


@settings(max_examples=200)
@given(
    st.lists(st.integers(0, 10**10), max_size=12),
    st.lists(st.integers(0, 10**10), max_size=12),
    st.integers(0, 10**10),
    st.booleans(),
)
def test_any_stamps_get_a_verdict_of_known_kinds(base, joints, end, lockstep):
    streams = {"base": samples(np.array(base, np.int64), "base"), JOINTS: samples(np.array(joints, np.int64), JOINTS)}
    for flag in grade(Take(streams, 0, end), LOCKSTEP if lockstep else STREAMS):
        assert flag.kind in KINDS and str(flag) and np.isfinite([flag.value, flag.bound, flag.at_s]).all()


@given(st.lists(st.integers(0, 10**6), max_size=20), st.lists(st.integers(0, 10**6), min_size=1, max_size=20))
def test_nearest_is_the_least_distance(stamps, others):
    wanted = [min(abs(a - b) for b in others) for a in stamps]
    assert nearest_ns(np.array(stamps, np.int64), np.unique(np.array(others, np.int64))).tolist() == wanted
