"""Pinhole cameras: what a view's `CameraInfo` and the static transforms say, and where points fall in its image."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from e0_policy.types import FloatArray
from e0_ros.config import ConfigError

MIN_DEPTH_M = 0.01
MAX_CHAIN = 32
FLANGE = "link8"
"""Suffix of the flange's frame in Franka's descriptions, e.g. `fr3_link8`."""


@dataclass(frozen=True)
class CameraModel:
    """An ideal pinhole (no distortion) and the pose of its optical frame, x right, y down, z forward.

    Args:
        width_px, height_px: size of the image.
        intrinsics: `(3, 3)` K [px]; the centre of the first pixel is (0, 0).
        parent: `base` for a fixed camera, `flange` for one on the arm.
        pose: `(4, 4)` `T_parent_optical`.

    """

    width_px: int
    height_px: int
    intrinsics: FloatArray
    parent: str
    pose: FloatArray

    def __post_init__(self) -> None:
        if self.intrinsics.shape != (3, 3) or self.pose.shape != (4, 4):
            raise ValueError(f"K is {self.intrinsics.shape}, the pose {self.pose.shape}; (3, 3), (4, 4) are needed")
        if not (np.isfinite(self.intrinsics).all() and np.isfinite(self.pose).all()):
            raise ValueError("a camera model holds numbers that are not finite")
        if self.parent not in ("base", "flange") or min(self.width_px, self.height_px) < 1:
            size = f"{self.width_px} x {self.height_px} px"
            raise ValueError(f"camera of {size} on {self.parent!r}; base or flange and at least 1 px are needed")

    def project(self, points_m: FloatArray, pose_base_flange: FloatArray | None = None) -> FloatArray:
        """Pixels `(n, 2)` of points `(n, 3)` in the base frame; NaN for those behind the camera.

        Raises:
            ValueError: a camera on the flange without `T_base_flange` `(4, 4)`.

        """
        pose = self.pose
        if self.parent == "flange":
            if pose_base_flange is None:
                raise ValueError("a camera on the flange needs the flange's pose")
            pose = pose_base_flange @ pose
        local = (np.asarray(points_m, np.float64) - pose[:3, 3]) @ pose[:3, :3]
        depth = np.where(local[:, 2] > MIN_DEPTH_M, local[:, 2], np.nan)[:, None]
        pixels: FloatArray = (local @ self.intrinsics.T)[:, :2] / depth
        return pixels


def pose_matrix(position_m: Iterable[float], quaternion_xyzw: Iterable[float]) -> FloatArray:
    """`(4, 4)` of a position and a quaternion, which is normalised.

    Raises:
        ValueError: a quaternion of length 0 or numbers that are not finite.

    """
    position = np.array(list(position_m), np.float64)
    q = np.array(list(quaternion_xyzw), np.float64)
    length = float(np.linalg.norm(q))
    if not np.isfinite(position).all() or not np.isfinite(length) or length < 1e-6:
        raise ValueError(f"pose {position.tolist()} {q.tolist()}: finite numbers and a unit quaternion are needed")
    x, y, z, w = q / length
    pose = np.eye(4)
    pose[:3, 3] = position
    pose[:3, :3] = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
        [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
        [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
    ]
    return pose


def quaternion_xyzw(rotation: FloatArray) -> FloatArray:
    """Unit quaternion `(4,)` of a rotation matrix `(3, 3)`, with w at least 0 (Bar-Itzhack 2000: an eigenvector)."""
    r = rotation
    products = np.array(
        [
            [r[0, 0] - r[1, 1] - r[2, 2], 0.0, 0.0, 0.0],
            [r[0, 1] + r[1, 0], r[1, 1] - r[0, 0] - r[2, 2], 0.0, 0.0],
            [r[0, 2] + r[2, 0], r[1, 2] + r[2, 1], r[2, 2] - r[0, 0] - r[1, 1], 0.0],
            [r[2, 1] - r[1, 2], r[0, 2] - r[2, 0], r[1, 0] - r[0, 1], r[0, 0] + r[1, 1] + r[2, 2]],
        ]
    )
    _, vectors = np.linalg.eigh(products)  # reads the lower triangle
    q: FloatArray = vectors[:, -1]
    return q if q[3] >= 0 else -q


def camera_model(info: Any, transforms: Mapping[str, tuple[str, FloatArray]], base_frame: str) -> CameraModel | None:
    """The camera of a decoded `CameraInfo`, whose frame hangs in the base or the flange by static transforms.

    Args:
        info: sensor_msgs/CameraInfo; a rectified camera's K is used, distortion is ignored.
        transforms: child frame to parent frame and `T_parent_child`, see `transforms_of`.
        base_frame: name of the arm's base frame.

    Returns:
        None if no chain leads there, or if the numbers cannot be a camera's.

    """
    found = hanging_in(str(info.header.frame_id).lstrip("/"), transforms, base_frame)
    if found is None:
        return None
    frame, pose = found
    parent = "base" if frame == base_frame else "flange"
    intrinsics = np.array(info.k, np.float64).reshape(3, 3)
    if intrinsics[0, 0] <= 0:
        return None
    try:
        return CameraModel(int(info.width), int(info.height), intrinsics, parent, pose)
    except ValueError:
        return None


def hanging_in(
    frame: str, transforms: Mapping[str, tuple[str, FloatArray]], base_frame: str
) -> tuple[str, FloatArray] | None:
    """The arm's frame that a frame hangs in by static transforms, base or flange, and its pose `(4, 4)` there."""
    pose = np.eye(4)
    for _ in range(MAX_CHAIN):
        if frame == base_frame or frame.endswith(FLANGE):
            return frame, pose
        if frame not in transforms:
            return None
        frame, step = transforms[frame]
        pose = step @ pose
    return None


def transforms_of(messages: Iterable[Any]) -> dict[str, tuple[str, FloatArray]]:
    """Child frame to parent frame and `T_parent_child` of decoded tf2_msgs/TFMessage; the last of a child counts."""
    found: dict[str, tuple[str, FloatArray]] = {}
    for message in messages:
        for t in message.transforms:
            p, q = t.transform.translation, t.transform.rotation
            try:
                pose = pose_matrix((p.x, p.y, p.z), (q.x, q.y, q.z, q.w))
            except ValueError:
                continue
            found[str(t.child_frame_id).lstrip("/")] = (str(t.header.frame_id).lstrip("/"), pose)
    return found


def camera_profile(text: str) -> tuple[int, int, int]:
    """Width [px], height [px] and rate [Hz] of a profile as realsense2_camera writes it.

    Raises:
        ConfigError: not of the form 640x480x30.

    """
    parts = text.lower().split("x")
    if len(parts) != 3 or not all(part.isdigit() and 0 < int(part) <= 8192 for part in parts):
        raise ConfigError(f"camera profile {text!r}; width x height x rate is needed: 640x480x30")
    return int(parts[0]), int(parts[1]), int(parts[2])
