from __future__ import annotations

import numpy as np
import pytest

from e0_policy.kinematics import ARM_POINTS, arm_points_m, flange_pose, tcp_pose_and_jacobian, tcp_position_m


def test_known_poses_of_the_panda():
    ready = np.array([0, -np.pi / 4, 0, -3 * np.pi / 4, 0, np.pi / 2, np.pi / 4])
    np.testing.assert_allclose(tcp_position_m(ready), [0.30689, 0.0, 0.48688], atol=1e-5)
    np.testing.assert_allclose(tcp_position_m(np.zeros(7)), [0.088, 0.0, 0.8226], atol=1e-12)
    turned = ready + np.array([np.pi / 2, 0, 0, 0, 0, 0, 0])
    np.testing.assert_allclose(tcp_position_m(np.stack([ready, turned]))[1], [0.0, 0.30689, 0.48688], atol=1e-5)


def test_another_arm_is_refused():
    with pytest.raises(ValueError, match=r"\(6,\); a Franka arm has 7"):
        tcp_position_m(np.zeros(6))


def test_the_flange_is_a_rigid_pose_below_the_tool():
    q = np.random.default_rng(0).uniform(-1.5, 1.5, (5, 3, 7))
    poses = flange_pose(q)
    rotations = poses[..., :3, :3]
    np.testing.assert_allclose(
        rotations @ np.swapaxes(rotations, -1, -2), np.broadcast_to(np.eye(3), (5, 3, 3, 3)), atol=1e-12
    )
    np.testing.assert_allclose(np.linalg.det(rotations), 1.0, atol=1e-12)
    tool = (poses @ np.array([0.0, 0.0, 0.1034, 1.0]))[..., :3]
    np.testing.assert_allclose(tool, tcp_position_m(q), atol=1e-12)
    turned = flange_pose(np.array([0, 0, 0, 0, 0, 0, np.pi / 2]))  # the flange points down and the last joint turns it
    np.testing.assert_allclose(turned[:3, :3], [[0, -1, 0], [-1, 0, 0], [0, 0, -1]], atol=1e-12)


def test_the_arms_points_are_where_its_frames_are():
    q = np.random.default_rng(1).uniform(-1.5, 1.5, (4, 7))
    points, flange = dict(zip(ARM_POINTS, arm_points_m(q), strict=True)), flange_pose(q)
    np.testing.assert_allclose(points["flange"], flange[:, :3, 3], atol=1e-12)
    np.testing.assert_allclose(points["tool"], tcp_position_m(q), atol=1e-12)
    upright = dict(zip(ARM_POINTS, arm_points_m(np.zeros(7)), strict=True))
    np.testing.assert_allclose(upright["elbow"], [0.0825, 0.0, 0.649], atol=1e-12)
    np.testing.assert_allclose(upright["wrist"], [0.0, 0.0, 1.033], atol=1e-12)
    span = points["hand, one end"] - points["hand, other end"]
    np.testing.assert_allclose(np.linalg.norm(span, axis=1), 0.1, atol=1e-12)
    pose, _ = tcp_pose_and_jacobian(q)
    np.testing.assert_allclose(span, 0.1 * pose[:, :3, 1], atol=1e-12)


def test_the_jacobian_is_the_poses_derivative():
    q, step = np.random.default_rng(2).uniform(-1.5, 1.5, 7), 1e-6
    pose, jacobian = tcp_pose_and_jacobian(q)
    np.testing.assert_allclose(pose[:3, 3], tcp_position_m(q), atol=1e-12)
    np.testing.assert_allclose(pose[:3, 2], flange_pose(q)[:3, 2], atol=1e-12)
    for joint in range(7):
        moved = q + step * np.eye(7)[joint]
        change = (tcp_pose_and_jacobian(moved)[0] - pose) / step
        np.testing.assert_allclose(change[:3, 3], jacobian[:3, joint], atol=1e-5)
        spin = change[:3, :3] @ pose[:3, :3].T
        np.testing.assert_allclose([spin[2, 1], spin[0, 2], spin[1, 0]], jacobian[3:, joint], atol=1e-5)
    both = tcp_pose_and_jacobian(np.stack([q, q + 0.1]))
    np.testing.assert_allclose(both[1][0], jacobian, atol=1e-12)
