"""Fixed cameras moved on a sphere about the point that they look at: how far a policy depends on their places."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from e0_policy.types import FloatArray
from e0_policy.view_offset import view_offset
from e0_ros.config import check, setting
from e0_ros.core.camera_model import CameraModel
from sim.adapter import SimAdapter

REPORTED = ("nominal", "true")


@dataclass(frozen=True)
class CameraShift:
    """How far fixed cameras stand from their places; those on the arm never move."""

    angle_deg: float = setting(0.0, "angle about the point that a camera looks at", unit="deg", low=0.0, high=60.0)
    reported: str = setting("nominal", "where cameras say they stand: nominal (nobody noticed that they were moved) or "
                            "true (calibrated again)", choices=REPORTED)  # fmt: skip

    def __post_init__(self) -> None:
        check(self)

    def poses(self, cameras: Mapping[str, CameraModel], near: FloatArray, seed: int) -> dict[str, FloatArray]:
        """`T_base_optical` `(4, 4)` of every fixed camera after the shift.

        Each camera is turned as one piece about the point of its optical axis that is closest to `near`, so that this
        point stays at its pixel and at its distance. The direction is uniform on the circle and depends on seed and
        view alone: a larger angle goes further the same way.

        Args:
            cameras: by view, at their own places.
            near: `(3,)` in the scene [m], base frame.
            seed: of the scene.

        """
        return {
            view: turned(camera.pose, looked_at(camera.pose, near), math.radians(self.angle_deg), direction(seed, view))
            for view, camera in cameras.items()
            if camera.parent == "base"
        }

    def told(self, cameras: Mapping[str, CameraModel], moved: Mapping[str, FloatArray]) -> dict[str, CameraModel]:
        """The cameras as they are reported."""
        known = moved if self.reported == "true" else {}
        return {view: replace(c, pose=known[view]) if view in known else c for view, c in cameras.items()}


def known_offsets(adapter: SimAdapter) -> dict[str, FloatArray]:
    """`e0_policy.view_offset` of every view, as far as the cameras tell: zeros where nobody noticed a shift."""
    told = adapter.cameras()
    return {view: view_offset(own.pose, told[view].pose) for view, own in adapter.nominal_cameras().items()}


def direction(seed: int, view: str) -> float:
    """Which way a camera goes [rad]: 0 to the right of its picture, pi / 2 up."""
    return float(np.random.default_rng([seed, *view.encode()]).uniform(0.0, 2.0 * math.pi))


def looked_at(pose: FloatArray, near: FloatArray) -> FloatArray:
    """The point `(3,)` on the optical axis of `T_base_optical` that is closest to `near`, at least 0.1 m ahead."""
    eye, axis = pose[:3, 3], pose[:3, 2]
    point: FloatArray = eye + max(float((near - eye) @ axis), 0.1) * axis
    return point


def turned(pose: FloatArray, centre: FloatArray, angle_rad: float, direction_rad: float) -> FloatArray:
    """`T_base_optical` after the camera went `angle_rad` along the sphere about `centre`, still looking at it."""
    right, down, ahead = pose[:3, :3].T
    way = math.cos(direction_rad) * right - math.sin(direction_rad) * down
    axis = np.cross(way, ahead)
    skew = np.cross(np.eye(3), axis)
    rotation = np.eye(3) + math.sin(angle_rad) * skew + (1.0 - math.cos(angle_rad)) * skew @ skew
    moved = np.eye(4)
    moved[:3, :3] = rotation @ pose[:3, :3]
    moved[:3, 3] = centre + rotation @ (pose[:3, 3] - centre)
    return moved
