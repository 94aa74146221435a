from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from e0_policy.embodiment import load_embodiment
from e0_policy.kinematics import tcp_pose_and_jacobian, tcp_position_m
from e0_policy.types import FloatArray, Representation
from e0_ros.core.inverse_kinematics import MAX_ROWS, joint_rows
from tests.core.driven import MS, START, Driven

FR3, PANDA = load_embodiment("fr3"), load_embodiment("panda")
PERIOD = 50 * MS


def quaternions(turns: FloatArray) -> FloatArray:
    """xyzw of matrices `(r, 3, 3)`, by the eigenvector of Bar-Itzhack (2000)."""
    found = []
    for m in turns:
        k = np.array([
            [m[0, 0] - m[1, 1] - m[2, 2], m[1, 0] + m[0, 1], m[2, 0] + m[0, 2], m[2, 1] - m[1, 2]],
            [m[1, 0] + m[0, 1], m[1, 1] - m[0, 0] - m[2, 2], m[2, 1] + m[1, 2], m[0, 2] - m[2, 0]],
            [m[2, 0] + m[0, 2], m[2, 1] + m[1, 2], m[2, 2] - m[0, 0] - m[1, 1], m[1, 0] - m[0, 1]],
            [m[2, 1] - m[1, 2], m[0, 2] - m[2, 0], m[1, 0] - m[0, 1], np.trace(m)],
        ])  # fmt: skip
        found.append(np.linalg.eigh(k)[1][:, -1])
    return np.array(found)


def poses(q: FloatArray) -> FloatArray:
    """Rows of poses of joint positions `(r, 7)`."""
    pose, _ = tcp_pose_and_jacobian(q)
    return np.column_stack((pose[:, :3, 3], quaternions(pose[:, :3, :3]), np.ones(len(q))))


def agree(rows: FloatArray, wanted: FloatArray) -> None:
    found = poses(rows[:, :7])
    np.testing.assert_allclose(found[:, :3], wanted[:, :3], atol=6e-4)
    assert (np.abs((found[:, 3:7] * wanted[:, 3:7]).sum(axis=1)) > 1 - 1e-5).all(), "either sign is the same turn"


@settings(max_examples=60, deadline=None)
@given(st.sampled_from([FR3, PANDA]), st.integers(0, 2**31))
def test_poses_near_the_arm_are_met_with_joints_near_it(arm, seed: int) -> None:
    rng = np.random.default_rng(seed)
    start = np.clip(arm.home + rng.uniform(-0.4, 0.4, 7), arm.position_lower + 0.3, arm.position_upper - 0.3)
    s = np.linspace(0, 1, 12)[:, None]
    wanted = poses(start + s * rng.uniform(-0.15, 0.15, 7))
    wanted[:, 3:7] *= rng.choice([-1.0, 1.0], (12, 1))
    rows = joint_rows(arm, start, wanted, PERIOD)
    assert not isinstance(rows, str), rows
    agree(rows, wanted)
    assert np.abs(rows[:, :7] - start).max() < 0.5 and np.abs(np.diff(rows[:, :7], axis=0)).max() < 0.1
    np.testing.assert_allclose(rows[0, :7], start, atol=1e-6)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda r: r.__setitem__((3, slice(3, 7)), 0.0), "row 3: the quaternion has length 0.000"),
        (lambda r: r.__setitem__((2, slice(3, 7)), [1, 1, 0, 0]), "row 2: the quaternion has length 1.414"),
        (lambda r: r.__setitem__((5, 0), 1.5), "row 5: the pose cannot be reached; the nearest is "),
        (lambda r: r.__setitem__((slice(4, None), 1), 0.35), "near a singularity, or the pose jumps"),
    ],
)
def test_what_cannot_be_is_told(change, reason: str, record_property) -> None:
    rows = np.tile(poses(FR3.home[None]), (8, 1))
    change(rows)
    told = joint_rows(FR3, FR3.home, rows, PERIOD)
    assert isinstance(told, str) and reason in told
    record_property("figure", "refused with its reason")


def test_a_tool_turned_upside_down_and_too_many_rows_are_told() -> None:
    rows = poses(FR3.home[None])
    flipped = rows.copy()
    x, y, z, w = rows[0, 3:7]
    flipped[0, 3:7] = [w, z, -y, -x]
    told = joint_rows(FR3, FR3.home, flipped, PERIOD)
    assert isinstance(told, str) and "turns the tool by 3.14 rad" in told
    assert "at most 64" in str(joint_rows(FR3, FR3.home, np.tile(rows, (MAX_ROWS + 1, 1)), PERIOD))


@pytest.mark.parametrize("far_m", [11.0, 1e9, 1e154, 1.7e308])
def test_poses_at_the_end_of_the_numbers_are_refused(far_m: float) -> None:
    d = Driven(embodiment="fr3").arm_it()
    rng = np.random.default_rng(1)
    for k in range(20):
        rows = np.tile([0.4, 0.0, 0.4, 1.0, 0.0, 0.0, 0.0, 1.0], (2, 1))
        rows[:, :3] = rng.choice((-1.0, 0.0, 1.0), (2, 3)) * far_m
        rows[0, 0] = far_m
        refusal = d.offer(d.chunk(rows, k, representation=Representation.EE_POSE, joint_names=()))
        assert refusal is not None and "no arm reaches 10 m" in refusal.reason and refusal.fault
        d.arm_it()


def test_an_arm_that_is_stretched_out_is_no_reason_to_jump() -> None:
    """Straight up, where the Jacobian has lost a rank, and a way out of reach: near it, or refused; never a leap."""
    straight = np.array([0.0, 0.0, 0.0, -0.16, 0.0, 1.0, 0.8])
    rows = np.tile(poses(straight[None]), (10, 1))
    rows[:, 2] -= 0.002 * np.arange(10)
    solved = joint_rows(FR3, straight, rows, PERIOD)
    assert isinstance(solved, str) or np.abs(np.diff(solved[:, :7], axis=0)).max() <= (FR3.velocity * 0.05).max()
    rows[:, 2] += 0.1
    assert "cannot be reached" in str(joint_rows(FR3, straight, rows, PERIOD))


def line(d: Driven, axis: int, by_m: float, count: int = 20) -> FloatArray:
    rows = np.tile(poses(d.home[None]), (count, 1))
    s = np.linspace(0, 1, count)
    rows[:, axis] += by_m * (10 * s**3 - 15 * s**4 + 6 * s**5)
    return rows


def test_a_chunk_of_poses_is_executed_and_the_tool_goes_straight() -> None:
    d = Driven(embodiment="panda").arm_it()
    rows = line(d, 1, 0.2)
    chunk = d.chunk(rows, source="scripted", representation=Representation.EE_POSE, joint_names=())
    assert d.offer(chunk) is None
    d.run(1100)
    tool = tcp_position_m(np.array(d.positions))
    np.testing.assert_allclose(tool[-1], rows[-1, :3], atol=1e-3)
    assert np.abs(tool[:, [0, 2]] - rows[0, [0, 2]]).max() < 2e-3, "straight in y"
    assert d.violations == [] and d.status.chunk.representation is Representation.JOINT_POSITION


def test_poses_replanned_on_the_way_go_on_without_a_jump() -> None:
    d = Driven(embodiment="panda").arm_it()
    rows, end = line(d, 1, 0.2, 24), START + 23 * PERIOD
    for k in range(5):
        left = rows[4 * k :]
        fields = {"representation": Representation.EE_POSE, "joint_names": (), "t0_ns": START + 4 * k * PERIOD}
        assert d.offer(d.chunk(left, k, **fields)) is None
        d.run(200)
    d.run((end - d.now_ns) // MS)
    tool = tcp_position_m(np.array(d.positions))
    assert np.abs(tool[:, [0, 2]] - rows[0, [0, 2]]).max() < 3e-3 and d.violations == []


@pytest.mark.parametrize(
    ("change", "fields", "reason"),
    [
        (lambda r: r[:, :6], {}, "6 columns; needed are 8: x y z, quaternion xyzw"),
        (lambda r: r, {"joint_names": FR3.joint_names}, "needed are none with poses"),
        (lambda r: np.add(r, 0.5 * np.eye(8)[3]), {}, "quaternion has length"),
        (lambda r: np.add(r, 2.0 * np.eye(8)[0]), {}, "cannot be reached"),
        (lambda r: r, {"representation": Representation.EE_DELTA_STEP}, "EE_DELTA_STEP"),
    ],
)
def test_a_wrong_chunk_of_poses_is_refused_and_holds(change, fields, reason: str, record_property) -> None:
    d = Driven().arm_it()
    given_fields = {"representation": Representation.EE_POSE, "joint_names": (), **fields}
    refusal = d.offer(d.chunk(np.array(change(line(d, 1, 0.1))), **given_fields))
    assert refusal and refusal.fault and reason in refusal.reason
    assert d.mode == "HOLD"
    record_property("figure", "refused with its reason, and a hold")


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 2**31))
def test_whatever_the_poses_every_command_is_legal(record_property, seed: int) -> None:
    rng = np.random.default_rng(seed)
    d = Driven(embodiment="panda", max_jump_rad=7.0, max_tracking_error_rad=7.0).arm_it()
    for k in range(5):
        rows = line(d, int(rng.integers(3)), rng.uniform(-0.5, 0.5), int(rng.integers(1, 12)))
        rows[:, :7] += rng.uniform(-0.1, 0.1, (len(rows), 7)) * rng.choice([0.0, 0.1, 1.0])
        rows[:, 3:7] /= np.linalg.norm(rows[:, 3:7], axis=1)[:, None]
        fields = {"representation": Representation.EE_POSE, "joint_names": ()}
        d.offer(d.chunk(rows, k, source="scripted", period_ns=int(rng.choice([5, 20, 50])) * MS, **fields))
        d.run(80)
    d.play(700)
    assert d.violations == [] and np.ptp(np.array(d.positions[-20:]), axis=0).max() == 0.0
    record_property("figure", "drawn run of poses, 0 breaches")
