from __future__ import annotations

import numpy as np
import pytest

from e0_policy.kinematics import tcp_position_m


def test_known_poses_of_the_panda():
    ready = np.array([0, -np.pi / 4, 0, -3 * np.pi / 4, 0, np.pi / 2, np.pi / 4])
    np.testing.assert_allclose(tcp_position_m(ready), [0.30689, 0.0, 0.48688], atol=1e-5)
    np.testing.assert_allclose(tcp_position_m(np.zeros(7)), [0.088, 0.0, 0.8226], atol=1e-12)
    turned = ready + np.array([np.pi / 2, 0, 0, 0, 0, 0, 0])
    np.testing.assert_allclose(tcp_position_m(np.stack([ready, turned]))[1], [0.0, 0.30689, 0.48688], atol=1e-5)


def test_another_arm_is_refused():
    with pytest.raises(ValueError, match=r"\(6,\); a Franka arm has 7"):
        tcp_position_m(np.zeros(6))
