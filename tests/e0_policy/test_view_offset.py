from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from e0_policy.augmentation import spherical_homography
from e0_policy.view_offset import view_offset
from e0_ros.core.camera_model import pose_matrix

PLACE = pose_matrix((1.2, 0.1, 0.7), (-0.6, -0.59, 0.38, 0.37))
ANGLES = st.floats(-1.0, 1.0)


def turned_by(offset: np.ndarray) -> np.ndarray:
    """`R_x(phi) R_y(theta)` as the augmentation has it: its homography with a camera of focal length 1."""
    return spherical_homography(torch.tensor([0.0, *offset[1:]]).double(), torch.eye(3).double(), 1.0).numpy()


@settings(deadline=None)
@given(st.floats(-0.3, 0.3), ANGLES, ANGLES)
def test_the_offset_of_a_warp_is_that_of_the_camera_that_would_see_it(d: float, yaw: float, pitch: float) -> None:
    """A camera about whose point at depth 1 m the scene turned, and stepped back by d: eq. 16 with a real parallax."""
    offset, centre = np.array([d, yaw, pitch]), np.array([0.0, 0.0, 1.0])
    seen = np.eye(4)
    seen[:3, :3] = turned_by(offset)
    seen[:3, 3] = centre - seen[:3, :3] @ centre + np.array([0.0, 0.0, d])
    np.testing.assert_allclose(view_offset(PLACE, PLACE @ np.linalg.inv(seen)), offset, atol=2e-9)


def test_a_camera_that_stands_still_has_none() -> None:
    np.testing.assert_array_equal(view_offset(PLACE, PLACE), np.zeros(3))
