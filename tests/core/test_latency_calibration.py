from itertools import pairwise

import numpy as np
import pytest

from e0_policy.embodiment import load_embodiment
from e0_ros.core.arm_session import wave
from e0_ros.core.latency_calibration import MotionError, arm_latency, image_latency
from e0_ros.core.reference import RowCurve
from sim.fr3_plant import Fr3Plant

MS = 1_000_000
START = 1_700_000_000 * 10**9
ARM = load_embodiment("fr3")


def positions(t_s):
    """Where the arm is: what `wave` commands, interpolated."""
    move = wave(ARM.home, ARM.position_lower, ARM.position_upper)
    known = np.arange(len(move.rows)) * move.period_ns / 1e9
    return np.stack([np.interp(t_s, known, column) for column in move.rows.T], axis=1)


def joints(rate_hz=1000.0, rng=None, noise_rad=0.0):
    t = np.arange(0.0, 12.0, 1 / rate_hz)
    q = positions(t)
    return START + (t * 1e9).astype(np.int64), q + (rng.normal(0, noise_rad, q.shape) if rng else 0.0)


def drawn(t_s, rng, size=96, noise=3.0):
    """A picture of a textured arm before a textured wall, at a time: what a camera sees, with noise."""
    q = positions(np.array([t_s]))[0]
    wall = np.random.default_rng(1).integers(60, 120, (size, size)).astype(float)
    arm = np.random.default_rng(2).integers(100, 255, (40, 24)).astype(float)
    x, y = 36 + 120 * (q[0] - ARM.home[0]), 28 + 120 * (q[3] - ARM.home[3])
    i, j, fx, fy = int(y), int(x), x - int(x), y - int(y)
    padded = np.pad(arm, 1, mode="edge")
    shifted = ((1 - fy) * (1 - fx) * padded[1:-1, 1:-1] + (1 - fy) * fx * padded[1:-1, :-2]
               + fy * (1 - fx) * padded[:-2, 1:-1] + fy * fx * padded[:-2, :-2])  # fmt: skip
    wall[i : i + 40, j : j + 24] = shifted
    return wall + rng.normal(0, noise, wall.shape)


@pytest.mark.parametrize("latency_ms", [0.0, 37.0, 124.0, -21.0])
def test_the_latency_of_drawn_images_is_found_to_a_few_milliseconds(latency_ms) -> None:
    rng = np.random.default_rng(3)
    captured = np.arange(0.0, 11.9, 1 / 30.0) + rng.normal(0, 0.001, 357)
    pictures = [drawn(t, rng) for t in captured]
    changes = np.array([np.abs(b - a).mean() for a, b in pairwise(pictures)])
    stamps = START + ((captured + latency_ms / 1e3) * 1e9).astype(np.int64)
    found = image_latency(stamps, changes, *joints(rng=rng, noise_rad=2e-5))
    assert found.ms == pytest.approx(latency_ms, abs=4.0) and found.agreement > 0.8 and found.spread_ms < 6.0


@pytest.mark.parametrize("lag_ms", [0.0, 12.0, 63.0])
def test_the_lag_of_the_arm_is_found(lag_ms) -> None:
    rng = np.random.default_rng(4)
    times, q = joints(rng=rng, noise_rad=1e-4)
    told = np.arange(0.0, 11.8, 0.02)
    reference = positions(told + lag_ms / 1e3) + 0.004  # an arm that sags a little
    found = arm_latency(times, q, START + (told * 1e9).astype(np.int64), reference)
    assert found.ms == pytest.approx(lag_ms, abs=1.0) and found.agreement > 0.99


def test_what_does_not_show_a_motion_is_no_measurement() -> None:
    rng, (times, q) = np.random.default_rng(5), joints()
    stamps = START + np.arange(0, 11_800, 33) * MS
    with pytest.raises(MotionError, match="camera sees too little"):
        image_latency(stamps, rng.uniform(1, 2, len(stamps) - 1), times, q)
    with pytest.raises(MotionError, match=r"no joint moves by 0.05 rad"):
        image_latency(stamps, rng.uniform(1, 2, len(stamps) - 1), times, np.tile(ARM.home, (len(times), 1)))
    with pytest.raises(MotionError, match="record at least 10 s"):
        image_latency(stamps[:20], np.ones(19), times, q)
    told = START + np.arange(0, 11_800, 20) * MS
    with pytest.raises(MotionError, match="outside of -150 to 350 ms"):
        arm_latency(times, q, told, positions((told - START) / 1e9 + 0.6))
    with pytest.raises(MotionError, match="after 320 ms, the executor makes up for 300 at most"):
        arm_latency(times, q, told, positions((told - START) / 1e9 + 0.32))


def test_the_wave_stays_within_the_limits_and_ends_where_it_began() -> None:
    from tests.core.driven import Driven

    move = wave(ARM.position_upper, ARM.position_lower, ARM.position_upper)
    assert (move.rows <= ARM.position_upper).all() and (move.rows >= ARM.position_lower).all()
    d = Driven().arm_it()
    move = wave(d.home, ARM.position_lower, ARM.position_upper)
    assert d.offer(d.chunk(move.rows, source="home", period_ns=move.period_ns)) is None
    d.run(move.duration_ns // MS + 200)
    q = np.array(d.positions)
    assert not d.violations and 0.18 < np.ptp(q[:, 0]) < 0.22 and np.abs(q[-1] - d.home).max() < 1e-3


def test_the_lag_of_a_first_order_plant_is_its_time_constant() -> None:
    plant = Fr3Plant(width_px=16, height_px=16, lag_s=0.04)
    move = wave(plant.joint_state()[0], ARM.position_lower, ARM.position_upper)
    reference = RowCurve(move.rows, 0, move.period_ns)(np.arange(12_000) * MS).position
    reached = []
    for row in reference:
        plant.step(row, np.zeros(7), 1.0)
        reached.append(plant.joint_state()[0])
    times = START + np.arange(12_000) * MS
    found = arm_latency(times, np.array(reached), times[::20], reference[::20])
    assert found.ms == pytest.approx(39.0, abs=1.5) and found.agreement > 0.99
