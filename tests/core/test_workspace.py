from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from e0_policy.embodiment import load_embodiment
from e0_policy.kinematics import POINT_RADII_M, arm_points_m, tcp_position_m
from e0_ros.config import ConfigError
from e0_ros.core.command import Command
from e0_ros.core.executor_types import ExecutorConfig
from e0_ros.core.limiter import Limits, brake, plan
from e0_ros.core.reference import RowCurve
from e0_ros.core.workspace import Slowing, Workspace, WorkspaceConfig, plan_inside
from sim.hostile import side_by_side
from sim.judge import Judge
from sim.judge_workspace import Bounds
from tests.core.driven import MS, Driven

ARMS = {name: load_embodiment(name) for name in ("fr3", "panda")}
LIMITS = {name: Limits.of(arm, 0.95, 0.97, 0.5) for name, arm in ARMS.items()}
PANDA = ARMS["panda"]
TOOL = tcp_position_m(PANDA.home)


def around(rng: np.random.Generator, arm) -> Workspace:
    """A workspace that holds the arm's home, and not much more."""
    points = arm_points_m(arm.home)
    table = (points[..., 2] - POINT_RADII_M).min() - rng.uniform(0.01, 0.3)
    corners = points[5] - rng.uniform(0.01, 0.4, 3), points[5] + rng.uniform(0.01, 0.4, 3)
    return Workspace(*corners, np.array(table), np.array(rng.choice([0.1, 0.25, 1.0, arm.speed_m_s])))


def chase(name: str, space: Workspace, targets, every_ms: int = 20) -> tuple[Command, list[str]]:
    """Plan after plan towards constant positions; the whole motion as one command, and why it was braked."""
    command = whole = Command.rest(ARMS[name].home, 0)
    reasons = []
    for k, target in enumerate(targets):
        commit = k * every_ms * MS
        curve = RowCurve(np.atleast_2d(target), commit, 50 * MS)
        command, (why,) = plan_inside(LIMITS[name], space, command, curve, commit, 100 * MS)
        whole, reasons = whole.then(command), [*reasons, why]
    return whole, reasons


def judged(name: str, space: Workspace, command: Command) -> list:
    times = np.arange(command.start_ns, command.end_ns + 20 * MS, MS)
    positions = command.sample(times).position
    bounds = Bounds(space.lower, space.upper, space.table_m, space.speed_m_s)
    return Judge(ARMS[name], positions[0], bounds=bounds).check(times, positions)


@settings(max_examples=16, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(sorted(ARMS)), st.integers(0, 2**31), st.sampled_from(["bang", "anywhere", "near", "flip"]))
def test_no_target_takes_the_arm_out_and_it_comes_to_rest_inside(
    record_property, name: str, seed: int, kind: str
) -> None:
    rng, arm = np.random.default_rng(seed), ARMS[name]
    space = around(rng, arm)
    span, shape = arm.position_upper - arm.position_lower, (6, arm.joints)
    targets = {
        "bang": np.where(rng.random(shape) < 0.5, arm.position_lower, arm.position_upper),
        "anywhere": arm.position_lower + span * rng.random(shape),
        "near": arm.home + rng.uniform(-0.4, 0.4, shape),
        "flip": arm.home + 3 * (-1.0) ** np.arange(6)[:, None] * np.ones(arm.joints),
    }[kind]
    command, _ = chase(name, space, np.repeat(targets, 3, axis=0))
    assert judged(name, space, command) == []
    record_property("figure", "drawn motion against the walls, 0 outside")


def test_each_arm_of_many_has_its_own_bounds() -> None:
    rng, arm = np.random.default_rng(3), PANDA
    spaces = [around(rng, arm) for _ in range(3)]
    many = Workspace(*(np.stack([getattr(s, f) for s in spaces]) for f in ("lower", "upper", "table_m", "speed_m_s")))
    targets = arm.home + rng.uniform(-0.5, 0.5, (12, 3, 7))
    limits = Limits.of(side_by_side(arm, 3), 0.95, 0.97, 0.5)
    together = Command.rest(np.tile(arm.home, 3), 0)
    alone = [Command.rest(arm.home, 0) for _ in range(3)]
    braked = 0
    for k, target in enumerate(targets):
        commit = 20 * k * MS
        curve = RowCurve(target.reshape(1, 21), commit, 50 * MS)
        together, why = plan_inside(limits, many, together, curve, commit, 100 * MS)
        for j in range(3):
            curve = RowCurve(target[j : j + 1], commit, 50 * MS)
            alone[j], (own,) = plan_inside(LIMITS["panda"], spaces[j], alone[j], curve, commit, 100 * MS)
            assert why[j] == own
            braked += bool(own)
            at = commit + MS * np.arange(0, 400, 7)
            expected = alone[j].sample(at).position
            np.testing.assert_allclose(together.sample(at).position[:, 7 * j : 7 * j + 7], expected, atol=1e-9)
    assert braked, "else nothing was tried"


def test_a_low_speed_slows_the_arm_down_and_it_still_arrives() -> None:
    goal = PANDA.home + np.array([0.6, 0.2, 0.0, 0.2, 0.0, 0.0, 0.0])
    space = replace(Workspace.of(PANDA, WorkspaceConfig()), speed_m_s=np.array(0.25))
    command, reasons = chase("panda", space, [goal] * 160)
    assert judged("panda", space, command) == []
    assert not any(reasons), "slower is no reason to hold"
    np.testing.assert_allclose(command.sample(command.end_ns).position, goal, atol=1e-3)
    speed = np.linalg.norm(np.diff(tcp_position_m(command.sample(np.arange(0, 2000) * MS).position), axis=0), axis=1)
    assert speed.max() * 1e3 > 0.15, "the limit is used, not just kept"


def test_the_settings_narrow_and_never_widen() -> None:
    wide = Workspace.of(PANDA, WorkspaceConfig())
    np.testing.assert_array_equal(wide.lower, PANDA.workspace_lower)
    np.testing.assert_array_equal(wide.upper, PANDA.workspace_upper)
    assert wide.speed_m_s == PANDA.speed_m_s == 1.7
    narrow = Workspace.of(
        PANDA, WorkspaceConfig((0.2, -2.0, 0.0), (2.0, 0.3, 2.0), table_height_m=0.01, max_speed_m_s=0.5)
    )
    np.testing.assert_array_equal(narrow.lower, [0.2, -1.0, 0.0])
    np.testing.assert_array_equal(narrow.upper, [1.0, 0.3, 1.35])
    assert narrow.speed_m_s == 0.5


@pytest.mark.parametrize(
    ("values", "match"),
    [
        ({"workspace_lower_m": (0.0, 0.0)}, "three numbers"),
        ({"workspace_lower_m": (0.5, 0.0, 0.0), "workspace_upper_m": (0.4, 1.0, 1.0)}, "nothing is left"),
        ({"workspace_upper_m": (float("inf"),) * 3}, "allowed is -2.0 to 2.0"),
        ({"max_speed_m_s": float("inf")}, "allowed is 0.05 to 3.0"),
        ({"max_speed_m_s": 0.0}, "allowed is 0.05 to 3.0"),
        ({"table_height_m": float("nan")}, "NaN"),
    ],
)
def test_what_would_switch_it_off_is_no_setting(values, match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        Workspace.of(PANDA, ExecutorConfig(embodiment="panda", **values))


def ahead(d: Driven, axis: int, by_m: float, rows: int = 20):
    """Rows that take the tool along an axis, by small joint steps down the gradient."""
    q, path = d.home.copy(), []
    for _ in range(rows):
        eye = 1e-5 * np.eye(7)
        jacobian = (tcp_position_m(q + eye) - tcp_position_m(q - eye)) / 2e-5
        wanted = np.zeros(3)
        wanted[axis] = by_m / rows
        q = q + np.linalg.pinv(jacobian.T) @ wanted
        path.append(q)
    return np.array(path)


BOXES = {
    "table": ({"table_height_m": float(TOOL[2]) - 0.06}, 2, -0.1, "the tool would be 0.0.. m below the table"),
    "wall": (
        {"workspace_upper_m": (2.0, float(TOOL[1]) + 0.05, 2.0)},
        1,
        0.1,
        r"outside of the workspace, y < 0.050 m",
    ),
    "front": ({"workspace_lower_m": (float(TOOL[0]) - 0.05, -2.0, -2.0)}, 0, -0.1, "outside of the workspace, x > "),
}


@pytest.mark.parametrize("name", BOXES)
def test_a_chunk_that_would_leave_is_refused_with_its_reason_and_holds(name: str) -> None:
    given_box, axis, by_m, reason = BOXES[name]
    d = Driven(embodiment="panda", **given_box).arm_it()
    path = ahead(d, axis, by_m)
    assert d.offer(d.chunk(path[:8])) is None, "its first rows are inside"
    d.run(300)
    refusal = d.offer(d.chunk(path, sequence=1))
    assert refusal and refusal.fault
    assert re.search(reason, refusal.reason)
    d.run(600)
    assert d.mode == "HOLD" and "leaves the workspace" in d.status.reason
    assert d.violations == [] and np.ptp(np.array(d.positions[-50:]), axis=0).max() == 0.0
    assert d.offer(d.chunk([np.array(d.positions[-1])], sequence=2)) is None and d.mode == "RUNNING"


def test_rows_inside_between_which_the_arm_would_leave_are_held_with_a_reason() -> None:
    """Two rows on the table's edge, half a turn of the first joint apart: the straight way of the joints is outside."""
    d = Driven(embodiment="panda", workspace_upper_m=(float(TOOL[0]) - 0.02, 2.0, 2.0), max_jump_rad=7.0,
               max_tracking_error_rad=7.0, home=PANDA.home - 1.2 * np.eye(7)[0])  # fmt: skip
    d.arm_it()
    far = d.home + 2.4 * np.eye(7)[0]
    assert d.offer(d.chunk([far] * 60, source="scripted")) is None
    d.run(2000)
    assert d.mode == "HOLD" and "held inside the workspace: the tool would be" in d.status.reason
    assert d.violations == [] and np.ptp(np.array(d.positions[-50:]), axis=0).max() == 0.0
    moved = np.ptp(np.array(d.positions), axis=0)[0]
    assert 0.5 < moved < 1.2, "up to the bound, not beyond"


def test_along_a_wall_the_arm_goes_on() -> None:
    """Finger tips 5 mm above the table at 0.3 m/s: braking anywhere on the way stays above, so nothing holds."""
    d = Driven(embodiment="panda", table_height_m=float(TOOL[2]) - 0.015).arm_it()
    path = ahead(d, 1, 0.3, rows=20)
    d.offer(d.chunk(path, source="scripted"))
    d.run(1040)
    assert d.mode == "RUNNING" and d.violations == []
    np.testing.assert_allclose(d.positions[-1], path[-1], atol=2e-3)


def test_an_arm_outside_is_not_armed() -> None:
    d = Driven(embodiment="panda", table_height_m=float(TOOL[2]))
    refusal = d.executor.arm(d.now_ns)
    assert (
        refusal and "the tool would be 0.010 m below the table" in refusal.reason and "move the arm" in refusal.reason
    )


@settings(max_examples=6, deadline=None)
@given(st.integers(0, 2**31))
def test_stops_and_holds_near_a_wall_stay_inside(seed: int) -> None:
    rng = np.random.default_rng(seed)
    box = {
        "workspace_lower_m": tuple(float(v) for v in TOOL - rng.uniform(0.02, 0.3, 3)),
        "workspace_upper_m": tuple(float(v) for v in TOOL + rng.uniform(0.02, 0.3, 3)),
        "max_speed_m_s": float(rng.choice([0.25, 1.0, 1.7])),
    }
    d = Driven(embodiment="panda", max_jump_rad=7.0, max_tracking_error_rad=7.0, **box).arm_it()
    for k in range(6):
        rows = np.clip(
            d.home + rng.uniform(-0.8, 0.8, 7) * np.linspace(0, 1, 12)[:, None],
            PANDA.position_lower,
            PANDA.position_upper,
        )
        d.offer(d.chunk(rows, k, source="teleop"))
        d.run(int(rng.integers(20, 300)))
        if rng.random() < 0.5:
            getattr(d.executor, rng.choice(["hold", "stop", "disarm"]))()
            d.run(700)
            d.executor.reset_stop()
            assert d.executor.arm(d.now_ns) is None
    d.run(700)
    assert d.violations == []


@pytest.mark.parametrize(("name", "seed"), [("fr3", 16), ("panda", 23)])
def test_a_stop_whose_own_braking_would_lead_out_brakes_at_once_along_the_path_that_was_checked(
    name: str, seed: int
) -> None:
    """A joint that stops sooner than the others bends the path of the tool; these seeds meet walls at such moments."""
    arm, limits, rng, met = ARMS[name], LIMITS[name], np.random.default_rng(seed), 0
    space = replace(around(rng, arm), speed_m_s=np.array(arm.speed_m_s))
    last = whole = Command.rest(arm.home, 0)
    goals = [arm.home + rng.uniform(-1.5, 1.5, 7) for _ in range(3)]
    for k, goal in enumerate(np.repeat(goals, 8, axis=0)):
        commit = 20 * k * MS
        last, _ = plan_inside(limits, space, last, RowCurve(goal[None], commit, 50 * MS), commit, 100 * MS)
        whole = whole.then(last)
        for at in (commit + after_ms * MS for after_ms in (8, 33, 60)):
            if (space.motion(plan(limits, last, None, at, 100 * MS)).beyond <= 0).all():
                continue
            met += 1
            stop, _ = plan_inside(limits, space, last, None, at, 100 * MS)
            assert judged(name, space, whole.then(stop)) == []
            slowed, unslowed = (np.linalg.norm(c.sample(at + 40 * MS).velocity) for c in (stop, last))
            assert slowed < 0.9 * unslowed, "not what was planned before"
            alone_ns = brake(limits, last.sample(at), at).end_ns - at
            assert stop.end_ns - at <= 1.2 * alone_ns + 60 * MS
    assert met, "else nothing was tried"


def test_slowing_stays_on_the_path_and_its_parts_belong_together() -> None:
    rows = PANDA.home + np.sin(np.arange(8))[:, None] * np.linspace(0.05, 0.3, 7)
    last = plan(LIMITS["panda"], Command.rest(PANDA.home, 0), RowCurve(rows, 0, 50 * MS), 0, 200 * MS)
    slowing = Slowing(last, 60 * MS, 200 * MS)
    times = np.arange(60 * MS, 260 * MS, MS // 4)
    state = slowing(times)
    for part, own in zip(slowing(times[:1]), last.sample(times[:1]), strict=True):
        np.testing.assert_allclose(part, own, atol=1e-12)
    for values, slope in ((state.position, state.velocity), (state.velocity, state.acceleration)):
        np.testing.assert_allclose(np.gradient(values, 0.25e-3, axis=0)[1:-1], slope[1:-1], atol=0.2)
    path = last.positions(np.arange(60 * MS, 161 * MS, MS // 10))
    nearest = np.abs(state.position[:, None] - path[None]).max(axis=2).min(axis=1)
    assert nearest.max() < 1e-3
    np.testing.assert_allclose(slowing(np.array([260, 300]) * MS).velocity, 0.0, atol=1e-12)
