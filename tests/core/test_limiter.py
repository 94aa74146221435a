from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from e0_policy.embodiment import load_embodiment
from e0_ros.core import limiter
from e0_ros.core.command import Command, State
from e0_ros.core.limiter import Limits, brake, envelope, legal, plan
from e0_ros.core.reference import RowCurve
from sim.judge import Judge
from sim.judge_workspace import Bounds

MS = 1_000_000
ARMS = {name: load_embodiment(name) for name in ("fr3", "panda")}
LIMITS = {name: Limits.of(arm, 0.95, 0.97, 0.5) for name, arm in ARMS.items()}
ANYWHERE = Bounds(np.full(3, -9.0), np.full(3, 9.0), np.array(-9.0), np.array(9.0))
names = st.sampled_from(sorted(ARMS))


def judged(name: str, command: Command) -> list:
    """The judge sees the command from rest at its first knot; so the first knot must be at rest."""
    times = np.arange(command.start_ns, command.end_ns + 20 * MS, MS)
    positions = command.sample(times).position
    return Judge(ARMS[name], positions[0], bounds=ANYWHERE).check(times, positions)


def chase(name: str, targets, every_ms: int = 20) -> Command:
    """Plan after plan towards constant positions, one per message; the whole motion as one command."""
    limits, arm = LIMITS[name], ARMS[name]
    command = whole = Command.rest(arm.home, 0)
    for k, target in enumerate(targets):
        commit = k * every_ms * MS

        def hold(times, target=target) -> State:
            still = np.zeros((len(times), arm.joints))
            return State(np.tile(target, (len(times), 1)), still, still)

        command = plan(limits, command, hold, commit, 100 * MS)
        whole = whole.then(command)
    return whole


@settings(max_examples=30, deadline=None)
@given(names, st.integers(0, 2**31), st.sampled_from(["bang", "anywhere", "far", "huge", "sign"]))
def test_any_target_gives_a_legal_motion(name: str, seed: int, kind: str) -> None:
    rng, arm = np.random.default_rng(seed), ARMS[name]
    span = arm.position_upper - arm.position_lower
    shape = (60, arm.joints)
    if kind == "bang":
        targets = np.where(rng.random(shape) < 0.5, arm.position_lower, arm.position_upper)
    elif kind == "anywhere":
        targets = arm.position_lower + span * rng.random(shape)
    elif kind == "far":
        targets = arm.home + np.repeat(rng.normal(0, 10, (6, arm.joints)), 10, axis=0)
    elif kind == "sign":
        targets = arm.home + 3 * (-1.0) ** np.arange(60)[:, None] * np.ones(arm.joints)
    else:
        targets = rng.choice([1e308, -1e308, 5e-324, 0.0], shape)
    with np.errstate(over="ignore"):
        command = chase(name, targets)
    assert np.isfinite(command.state.position).all()
    assert judged(name, command) == []
    assert legal(LIMITS[name], command).all()


@pytest.mark.parametrize("name", sorted(ARMS))
def test_limits_are_used_not_just_kept(name: str) -> None:
    """A far target is approached at nearly the fastest legal speed and acceleration, and reached."""
    arm = ARMS[name]
    goal = np.where(np.arange(7) == 3, arm.home, (arm.position_lower + 3 * arm.position_upper) / 4)
    command = chase(name, [goal] * 150)
    times = np.arange(0, 3000) * MS
    q, v, a = command.sample(times)
    moves = np.abs(goal - arm.home) > 1.0
    assert (np.abs(a).max(axis=0)[moves] > 0.9 * arm.acceleration[moves]).all()
    assert np.abs(v).max() > 0.9 * arm.velocity[:4].max()
    np.testing.assert_allclose(q[-1], goal, atol=1e-4)


@pytest.mark.parametrize("joint", range(7))
@pytest.mark.parametrize("side", [-1, 1])
def test_the_envelope_of_the_fr3_is_kept_at_full_push(joint: int, side: int, record_property) -> None:
    arm, goal = ARMS["fr3"], ARMS["fr3"].home.copy()
    goal[joint] = side * 1e3
    command = chase("fr3", [goal] * 200)
    assert judged("fr3", command) == []
    bound = arm.position_upper if side > 0 else arm.position_lower
    assert abs(command.sample(4000 * MS).position[joint] - bound[joint]) < 0.015
    record_property("figure", "full push against the limit of a joint, 0 overshoot")


@settings(max_examples=200, deadline=None)
@given(names, st.integers(0, 2**31), st.floats(0, 1), st.floats(0, 1))
def test_braking_ends_at_rest_as_fast_as_allowed(name: str, seed: int, speed: float, pull: float) -> None:
    rng, limits = np.random.default_rng(seed), LIMITS[name]
    v = limits.velocity * speed * rng.uniform(-1, 1, 7)
    a = limits.acceleration * pull * rng.uniform(-1, 1, 7)
    command = brake(limits, State(ARMS[name].home, v, a), 5 * MS)
    assert command.start_ns == 5 * MS
    for part, want in zip(command.sample(5 * MS), (ARMS[name].home, v, a), strict=True):
        np.testing.assert_allclose(part, want, atol=1e-12)
    assert not command.state.velocity[-1].any() and not command.state.acceleration[-1].any()
    assert (np.abs(command.jerk) <= 1.3 * limits.jerk).all()
    peak = np.maximum(limits.acceleration, np.abs(a))
    assert (np.abs(command.state.acceleration) <= 1.02 * peak).all()
    reach = np.abs(v) / limits.acceleration + 4 * limits.acceleration / limits.jerk + 0.006
    assert (command.end_ns - command.start_ns) * 1e-9 <= reach.max()


def test_legal_finds_each_kind_of_breach() -> None:
    limits, arm = LIMITS["fr3"], ARMS["fr3"]
    still = np.zeros((3, 7))
    times = np.array([0, 10, 20]) * MS

    def with_peak(part: int, value: float) -> Command:
        parts = [np.tile(arm.home, (3, 1)), still.copy(), still.copy()]
        parts[part][1, 2] += value
        return Command(times, State(*parts))

    assert legal(limits, with_peak(0, 0.0)).all()
    for part, value in ((0, 3.0), (1, 2.63), (1, -2.63), (2, 10.1), (2, -10.1)):
        np.testing.assert_array_equal(legal(limits, with_peak(part, value)), np.arange(7) != 2)
    fast = Command(np.array([0, 1, 2]) * MS, with_peak(2, 5.1).state)
    np.testing.assert_array_equal(legal(limits, fast), np.arange(7) != 2)
    near = Command(times, State(np.tile(arm.position_upper - 0.1, (3, 1)), still + 1.0, still))
    assert legal(limits, near).tolist() == [False, False, False, False, True, False, True]


def test_the_envelope_is_frankas() -> None:
    """Speeds 0.1 rad from the upper position limits of the FR3, from Franka's formula."""
    arm = ARMS["fr3"]
    speed = envelope(arm, arm.envelope_upper - (arm.position_upper - 0.1))
    np.testing.assert_allclose(speed, [0.83, 0.55, 0.66, 0.62, 1.53, 0.72, 1.53], atol=0.01)
    assert np.isinf(envelope(ARMS["panda"], np.ones(7))).all()


def test_a_joint_that_cannot_be_planned_keeps_its_last_legal_motion() -> None:
    """A state outside every limit (which `plan` cannot have made) is not made worse by a new plan."""
    limits, arm = LIMITS["fr3"], ARMS["fr3"]
    q = arm.home.copy()
    q[0] = arm.position_upper[0] + 0.1
    last = Command.rest(q, 0)
    planned = plan(limits, last, None, 10 * MS, 100 * MS)
    np.testing.assert_array_equal(planned.sample(500 * MS).position, q)


def test_planning_goes_on_from_where_the_last_command_is() -> None:
    command = chase("fr3", [ARMS["fr3"].home + 0.3] * 5)
    later = plan(LIMITS["fr3"], command, None, 93_456_789, 100 * MS)
    for a, b in zip(command.sample(93_456_789), later.sample(93_456_789), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-12)


def test_what_was_followed_already_is_not_planned_again_and_comes_to_the_same_bits(monkeypatch) -> None:
    limits, arm, planned = LIMITS["fr3"], ARMS["fr3"], []
    right = limiter.track
    monkeypatch.setattr(limiter, "track", lambda *of: planned.append(len(of[2].position)) or right(*of))
    curve = RowCurve(arm.home + 0.3 * np.sin(0.2 * np.arange(12))[:, None] * np.ones(7), 0, 50 * MS)
    command = Command.rest(arm.home, 0)
    for commit_ns in range(0, 400 * MS, 20 * MS):
        again = plan(limits, replace(command, followed=None), curve, commit_ns, 100 * MS)
        planned.clear()
        command = plan(limits, command, curve, commit_ns, 100 * MS)
        assert planned == [5 if commit_ns else 21], "20 ms are new, in steps of 5 ms"
        for one, other in zip((command.times_ns, *command.state), (again.times_ns, *again.state), strict=True):
            np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("change", ["target", "limits", "time", "other motion"])
def test_another_target_limits_or_time_is_planned_anew(change: str) -> None:
    limits, arm = LIMITS["fr3"], ARMS["fr3"]
    curve, other = (RowCurve(arm.home + turn * np.linspace(0, 1, 12)[:, None] ** 2 * np.ones(7), 0, 50 * MS)
                    for turn in (0.3, -0.3))  # fmt: skip
    last = plan(limits, Command.rest(arm.home, 0), curve, 0, 100 * MS)
    slow = replace(limits, velocity=0.05 * limits.velocity)
    moved = last.then(plan(limits, last, None, 10 * MS, 100 * MS))
    before, limits, target, at_ns = {
        "target": (last, limits, other, 20 * MS),
        "limits": (last, slow, curve, 20 * MS),
        "time": (last, limits, curve, 22 * MS),
        "other motion": (moved, limits, curve, 20 * MS),
    }[change]
    command = plan(limits, before, target, at_ns, 100 * MS)
    anew = plan(limits, replace(before, followed=None), target, at_ns, 100 * MS)
    np.testing.assert_array_equal(command.state.position, anew.state.position)
