from __future__ import annotations

import numpy as np
import pytest

from e0_policy.kinematics import flange_pose, tcp_position_m


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
