from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from e0_policy.embodiment import load_embodiment
from e0_policy.types import FloatArray
from sim import judge as j
from sim.judge import Judge, Violation
from sim.judge_workspace import SPEED

MS = 1_000_000
FR3, PANDA = load_embodiment("fr3"), load_embodiment("panda")


def judged(positions: FloatArray, start: FloatArray | None = None, batch: int = 7, arm=FR3) -> list[Violation]:
    judge = Judge(arm, positions[0] if start is None else start)
    times = np.arange(len(positions), dtype=np.int64) * MS
    found = []
    for i in range(0, len(times), batch):
        found += judge.check(times[i : i + batch], positions[i : i + batch])
    assert (judge.samples, judge.violations) == (len(times), len(found))
    return found


def errors(found: list[Violation]) -> set[str]:
    return {v.error for v in found}


def minimum_jerk(start: FloatArray, end: FloatArray, duration_s: float) -> FloatArray:
    """Sampled each millisecond. Peaks: speed 1.875 d/T, acceleration 5.774 d/T^2, jerk 60 d/T^3."""
    s = np.clip(np.arange(0, duration_s + 0.05, 1e-3) / duration_s, 0, 1)[:, None]
    return start + (end - start) * (10 * s**3 - 15 * s**4 + 6 * s**5)


def home_plus(joint: int, value: float, arm=FR3) -> FloatArray:
    q = arm.home.copy()
    q[joint] += value
    return q


def along(joint: int, offsets: FloatArray) -> FloatArray:
    return np.stack([home_plus(joint, x) for x in offsets])


@pytest.mark.parametrize("arm", [FR3, PANDA], ids=lambda arm: arm.name)
def test_a_minimum_jerk_move_within_limits_passes(arm) -> None:
    assert judged(minimum_jerk(arm.home, home_plus(0, 0.5, arm), 0.8), arm=arm) == []


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 6), st.floats(0.01, 0.3), st.integers(1, 50))
def test_the_fastest_legal_minimum_jerk_move_passes_and_a_faster_one_fails(joint: int, d: float, batch: int) -> None:
    """0.9 rad/s keeps every joint inside the envelope so near to its home."""
    t = max((60 * d / 5000) ** (1 / 3), (5.774 * d / 10) ** (1 / 2), 1.875 * d / 0.9) * 1.001
    assert judged(minimum_jerk(FR3.home, home_plus(joint, d), t), batch=batch) == []
    t = max((60 * d / 5000) ** (1 / 3), (5.774 * d / 10) ** (1 / 2)) * 0.95
    assert errors(judged(minimum_jerk(FR3.home, home_plus(joint, d), t), batch=batch)) & {j.ACCELERATION, j.JERK}


def test_a_jerk_of_the_limit_passes_and_a_hundredth_more_is_found() -> None:
    for jerk, expected in ((5000.0, set()), (5050.0, {j.JERK})):
        acceleration = np.array([0, jerk * 1e-3, jerk * 1e-3, 0, 0, -jerk * 1e-3, -jerk * 1e-3, 0, 0])
        path = np.cumsum(np.cumsum(acceleration) * 1e-3) * 1e-3
        assert errors(judged(along(3, path))) == expected


def test_acceleration_is_velocity_discontinuity() -> None:
    acceleration = np.concatenate([np.linspace(0, 10.5, 20), np.linspace(10.5, 0, 20)])
    path = np.cumsum(np.cumsum(acceleration) * 1e-3) * 1e-3
    found = judged(along(1, path))
    assert errors(found) == {"joint_motion_generator_velocity_discontinuity"}
    assert {v.joint for v in found} == {"fr3_joint2"}
    assert max(v.value for v in found) == pytest.approx(10.5, rel=1e-6)
    assert found[0].limit == 10.0


def test_velocity_envelope_is_nearer_than_the_flat_limit() -> None:
    """0.1 rad from its upper limit joint 1 may move at 0.83 rad/s, not at 2.62; away from it at full speed."""
    start = FR3.position_upper[0] - 0.1 - 0.9 * 0.05
    end = FR3.position_upper[0] - 0.1
    q = np.tile(FR3.home, (51, 1))
    q[:, 0] = np.linspace(start, end, 51)
    judge = Judge(FR3, q[0])
    judge.check(np.arange(4) * MS, q[:4])
    found = judge.check(np.arange(4, 51) * MS, q[4:])
    assert errors(found) == {j.VELOCITY}
    assert found[-1].time_ns == 50 * MS
    assert found[-1].limit == pytest.approx(0.834, abs=0.01)
    away = Judge(FR3, q[-1])
    away.check(np.arange(4) * MS, q[::-1][:4])
    assert away.check(np.arange(4, 51) * MS, q[::-1][4:]) == []


def test_a_panda_has_no_envelope() -> None:
    q = np.tile(PANDA.home, (20, 1))
    q[:, 0] = PANDA.position_upper[0] - 0.002 * np.arange(20)[::-1] - 1e-4
    judge = Judge(PANDA, q[0])
    judge.check(np.arange(4) * MS, q[:4])
    assert judge.check(np.arange(4, 20) * MS, q[4:]) == []


def test_riding_the_envelope_up_to_the_limit_passes() -> None:
    """The fastest legal approach: dq = v_up(q), braking by gain / 2 (joint 2: 2.585 rad/s^2)."""
    q, path = FR3.envelope_upper[1] - 0.4, []
    while q < FR3.position_upper[1] - 0.005 and len(path) < 20000:
        path.append(q)
        for _ in range(100):
            gap = FR3.envelope_upper[1] - q
            q += 1e-5 * (1 - 1e-9) * max(0.0, -FR3.envelope_offset[1] + np.sqrt(FR3.envelope_gain[1] * gap))
    rows = np.tile(FR3.home, (len(path), 1))
    rows[:, 1] = path
    judge = Judge(FR3, rows[0])
    times = np.arange(len(path)) * MS
    judge.check(times[:4], rows[:4])
    assert judge.check(times[4:], rows[4:]) == []


def test_position_limits() -> None:
    q = np.tile(FR3.home, (3, 1))
    q[1, 5] = FR3.position_lower[5] - 1e-4
    found = [v for v in judged(q) if v.error == j.POSITION]
    assert [(v.time_ns, v.joint, v.limit) for v in found] == [(MS, "fr3_joint6", 0.5445)]


def test_a_step_is_found_in_every_derivative() -> None:
    found = judged(along(0, np.array([0, 0, 0.01, 0.01, 0.01, 0.01])))
    assert errors(found) == {j.VELOCITY, j.ACCELERATION, j.JERK, SPEED}


def test_the_smallest_illegal_first_step_from_rest() -> None:
    """From rest the first step of 1 ms may be 5000 * 1e-9 = 5e-6 rad."""
    assert judged(along(0, np.array([0, 4.9e-6]))) == []
    assert errors(judged(along(0, np.array([0, 5.1e-6])))) == {j.JERK}


def test_a_held_100_hz_stream_is_found() -> None:
    path = minimum_jerk(FR3.home, home_plus(0, 0.1), 1.0)
    assert judged(path) == []
    held = path[np.arange(len(path)) // 10 * 10]
    assert {j.ACCELERATION, j.JERK} <= errors(judged(held))


def test_a_linear_100_hz_stream_breaks_the_jerk_only() -> None:
    path = minimum_jerk(FR3.home, home_plus(0, 0.1), 1.0)
    knots = np.arange(0, len(path), 10)
    linear = np.stack([np.interp(np.arange(len(path)), knots, path[knots, i]) for i in range(7)], axis=1)
    assert errors(judged(linear)) == {j.JERK}


def test_one_nan_is_one_violation() -> None:
    q = np.tile(FR3.home, (6, 1))
    q[2, 4], q[3, 1] = np.nan, np.inf
    assert [(v.time_ns, v.joint, v.error) for v in judged(q)] == [
        (2 * MS, "fr3_joint5", j.NOT_FINITE),
        (3 * MS, "fr3_joint2", j.NOT_FINITE),
    ]


def test_time_must_advance_by_one_period() -> None:
    judge = Judge(FR3, FR3.home)
    q = np.tile(FR3.home, (3, 1))
    assert judge.check(np.array([0, 1, 2]) * MS, q) == []
    found = judge.check(np.array([3, 3, 5]) * MS, q)
    assert [(v.time_ns, v.error, v.value) for v in found] == [(3 * MS, j.TIME, 0.0), (5 * MS, j.TIME, 2.0 * MS)]
    judge.restart(FR3.home)
    assert judge.check(np.array([100]) * MS, q[:1]) == []
    assert judge.check(np.array([], np.int64), q[:0]) == []


def test_names() -> None:
    judge = Judge(FR3, FR3.home)
    assert judge.names(FR3.joint_names[::-1], 5) == []
    found = judge.names(PANDA.joint_names, 5)
    assert errors(found) == {j.NAMES}
    assert "panda_joint1" in str(found[0])
    assert judge.violations == 1


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 60), st.integers(0, 2**32 - 1))
def test_batches_do_not_matter(batch: int, seed: int) -> None:
    steps = np.random.default_rng(seed).normal(0, 5e-6, (120, 7))
    path = FR3.home + np.cumsum(steps, axis=0)
    key = [(v.time_ns, v.joint, v.error, v.value) for v in judged(path, batch=120)]
    again = [(v.time_ns, v.joint, v.error, v.value) for v in judged(path, batch=batch)]
    assert sorted(key) == sorted(again)
    assert key


def test_without_derivatives_only_positions_count() -> None:
    judge = Judge(FR3, FR3.home, derivatives=False)
    q = along(0, np.array([0, 0.5, 9.0]))
    assert [(v.time_ns, v.error) for v in judge.check(np.arange(3) * MS, q)] == [(2 * MS, j.POSITION)]
