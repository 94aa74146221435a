"""Where a camera stands against the place that a policy was trained with: the offset of equations 9 and 18."""

from __future__ import annotations

import math

import numpy as np

from e0_policy.types import FloatArray


def view_offset(trained: FloatArray, present: FloatArray, depth_m: float = 1.0) -> FloatArray:
    """Offset `(3,)` `(d, theta, phi)` of a camera: radial displacement [m], yaw, pitch [rad]; zeros if it stands still.

    Points of the trained camera's frame have the coordinates `R x + t` in the present one, with
    `R = R_x(phi) R_y(theta) R_z(roll)` as in equation 16; roll, which the equations lack, is left out. What `t` holds
    beyond a turn about the point at `depth_m` on the optical axis is `d`: a camera that is moved still looks at the
    scene. (`augmentation.spherical_homography` can only turn it in place, which in these terms is up to
    `depth_m (1 - cos)` nearer; a policy trained without `radial_m` is blind to `d`.)
    Rounded to 1e-9, so that poses that went through a quaternion on their way give the same bits.

    Args:
        trained: `T_base_optical` `(4, 4)`, x right, y down, z forward, when the demonstrations were recorded.
        present: the same now.
        depth_m: `d_center` of equation 15.

    """
    relative = np.linalg.inv(present) @ trained
    yaw = math.asin(float(np.clip(relative[0, 2], -1.0, 1.0)))
    pitch = math.atan2(-float(relative[1, 2]), float(relative[2, 2]))
    radial = float(relative[2, 3]) - depth_m * (1.0 - float(relative[2, 2]))
    offset: FloatArray = np.round([radial, yaw, pitch], 9) + 0.0
    return offset
