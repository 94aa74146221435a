"""Cameras of a MuJoCo model as pinholes; the model and its data are those of any binding."""

from __future__ import annotations

from typing import Any

import numpy as np

from e0_policy.types import FloatArray
from e0_ros.core.camera_model import CameraModel, pose_matrix, quaternion_xyzw

_OPTICAL = np.diag([1.0, -1.0, -1.0, 1.0])
"""MuJoCo's cameras look along -z with y up."""
FLANGE_ON_LINK7 = pose_matrix([0.0, 0.0, 0.107], [0.0, 0.0, 0.0, 1.0])
"""`link8` on `link7`, as Franka describes it."""


def camera(
    model: Any, data: Any, number: int, size_px: tuple[int, int], parent: str, parent_pose: FloatArray
) -> CameraModel:
    """A camera by its number: `parent_pose` `(4, 4)` is the world pose of what it is told on, `base` or `flange`."""
    width, height = size_px
    focal_px = height / 2 / np.tan(np.deg2rad(float(model.cam_fovy[number])) / 2)
    intrinsics = np.array([[focal_px, 0, (width - 1) / 2], [0, focal_px, (height - 1) / 2], [0, 0, 1]])
    world = matrix(data.cam_xpos[number], data.cam_xmat[number]) @ _OPTICAL
    return CameraModel(width, height, intrinsics, parent, np.linalg.inv(parent_pose) @ world)


def matrix(position: FloatArray, rotation: FloatArray) -> FloatArray:
    """`(4, 4)` of a position and a rotation of nine numbers."""
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = np.reshape(rotation, (3, 3)), position
    return pose


def pose(matrix_: FloatArray) -> FloatArray:
    """`(7,)` x y z, quaternion xyzw of a `(4, 4)`."""
    return np.concatenate((matrix_[:3, 3], quaternion_xyzw(matrix_[:3, :3])))
