"""Row 33 of the fault matrix: a leader arm that is lost, jumps or loses count of its turns in mid-motion."""

from __future__ import annotations

import numpy as np
import pytest

from e0_ros.core.executor_types import Mode
from tests.core.driven import MS, Driven
from tests.core.led import Led, wave
from tests.faults.scale import scaled

HOME = Driven(embodiment="fr3").home


def moving(rng: np.random.Generator) -> Led:
    """A leader in the middle of a motion, at a random moment of its own readings and of the executor's ticks."""
    amplitude_rad, hz = rng.uniform(0.1, 0.4), rng.uniform(0.2, 0.6)
    led = Led(wave(HOME, amplitude_rad, hz, from_s=0.4)).run(int(rng.integers(900, 1500)))
    assert led.driven.mode == "RUNNING"
    return led


def held_ms(led: Led, since_ns: int) -> float:
    """From an instant to the first braking set-point [ms]."""
    held = next(t.status for t in led.driven.ticks if t.status.at_ns >= since_ns and t.status.mode is Mode.HOLD)
    return (held.committed_until_ns - since_ns) / MS


@pytest.mark.parametrize("lost", ["silent", "dead"])
def test_a_leader_that_is_lost_at_any_moment_is_a_hold_within_100_ms(lost: str, record_property) -> None:
    rng, cases, worst_ms = np.random.default_rng(33), scaled(2, 100), 0.0
    for _ in range(cases):
        led = moving(rng)
        lost_ns = led.driven.now_ns
        setattr(led, lost, True)
        led.run(500)
        worst_ms = max(worst_ms, held_ms(led, lost_ns))
        assert led.driven.violations == []
        assert np.ptp(np.array(led.driven.positions[-20:]), axis=0).max() == 0.0, "at rest"
        setattr(led, lost, False)
        led.run(50)
        assert led.driven.mode == "HOLD", "it must be aligned for a while first"
    record_property("figure", f"{lost}: braking at most {worst_ms:.0f} ms after, {cases} of {cases}")
    assert worst_ms <= 100.0


def test_a_servo_that_jumps_at_any_moment_is_a_hold_within_100_ms_and_is_not_followed(record_property) -> None:
    rng, cases, worst_ms, worst_rad = np.random.default_rng(34), scaled(2, 100), 0.0, 0.0
    for _ in range(cases):
        led, jump = moving(rng), np.zeros(7)
        jump[rng.integers(7)] = rng.choice((-1.0, 1.0)) * rng.uniform(0.2, np.pi)
        before, jumped_ns, at = led.hand, led.driven.now_ns, len(led.driven.positions)
        led.hand = lambda t_s, before=before, jump=jump: before(t_s) + jump
        led.run(500)
        worst_ms = max(worst_ms, held_ms(led, jumped_ns))
        way = np.abs(np.array(led.driven.positions[at:]) - led.driven.positions[at]).max(axis=0)
        others = way[jump == 0].max()
        worst_rad = max(worst_rad, float((way[jump != 0] - others).max()))
        assert led.driven.violations == [] and "jumped by" in led.driven.status.reason
    record_property(
        "figure", f"jump: braking at most {worst_ms:.0f} ms after, {1e3 * worst_rad:.0f} mrad of it followed"
    )
    assert worst_ms <= 100.0 and worst_rad < 0.01


def test_a_servo_that_loses_count_of_its_turns_in_motion_changes_nothing(record_property) -> None:
    rng, cases = np.random.default_rng(35), scaled(1, 30)
    for _ in range(cases):
        state, paths = rng.bit_generator.state, []
        for turns in (np.zeros(7), rng.integers(-40, 41, 7)):
            rng.bit_generator.state = state
            led = moving(rng)
            led.turns = turns
            led.run(400)
            assert led.driven.mode == "RUNNING" and led.driven.violations == []
            paths.append(np.array(led.driven.positions))
        np.testing.assert_allclose(*paths, atol=1e-9)
        rng.random()
    record_property("figure", f"{cases} losses of up to 40 turns in motion: the same path, no hold needed")
