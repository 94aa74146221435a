"""A ChArUco board: how it looks, and where its corners are in a picture (Garrido-Jurado et al. 2014; OpenCV 4.7)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from e0_policy.types import FloatArray, ImageArray
from e0_ros.config import ConfigError, check, setting

LEAST_CORNERS = 6


@dataclass(frozen=True)
class BoardConfig:
    """The printed board."""

    squares_x: int = setting(7, "squares along the longer side", low=3, high=20)
    squares_y: int = setting(5, "squares along the shorter side", low=3, high=20)
    square_m: float = setting(0.03, "side of a square as it was printed, measured with a ruler", unit="m", low=0.005,
                              high=0.2)  # fmt: skip
    marker_share: float = setting(0.75, "side of a marker over that of a square", low=0.5, high=0.9)

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True)
class Corners:
    """Corners that were seen: `points_m` `(n, 3)` on the board, `pixels` `(n, 2)` in the picture."""

    points_m: FloatArray
    pixels: FloatArray


class Board:
    """The board, its picture, and its corners in pictures.

    Raises:
        ConfigError: this OpenCV knows no such boards.

    """

    def __init__(self, config: BoardConfig) -> None:
        if not hasattr(cv2, "aruco") or not hasattr(cv2.aruco, "CharucoDetector"):
            raise ConfigError(f"OpenCV {cv2.__version__} finds no ChArUco boards; pip install 'opencv-python>=4.7'")
        self.config = config
        dictionary = cv2.aruco.getPredefinedDictionary(cv2.aruco.DICT_4X4_250)
        size, marker_m = (config.squares_x, config.squares_y), config.square_m * config.marker_share
        self._board: Any = cv2.aruco.CharucoBoard(size, config.square_m, marker_m, dictionary)
        self._detector: Any = cv2.aruco.CharucoDetector(self._board)

    @property
    def size_m(self) -> tuple[float, float]:
        """Width and height."""
        return self.config.squares_x * self.config.square_m, self.config.squares_y * self.config.square_m

    def picture(self, pixels_per_square: int = 120) -> ImageArray:
        """The board in black and white, without a margin; its first corner is at the top left."""
        size = self.config.squares_x * pixels_per_square, self.config.squares_y * pixels_per_square
        image: ImageArray = np.repeat(self._board.generateImage(size, marginSize=0)[..., None], 3, axis=2)
        return image

    def find(self, image: ImageArray) -> Corners | None:
        """The corners in an RGB image; None if they are fewer than `LEAST_CORNERS`, or all in a row."""
        grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
        corners, ids, _, _ = self._detector.detectBoard(grey)
        if ids is None or len(ids) < LEAST_CORNERS:
            return None
        matched = self._board.matchImagePoints(corners, ids)
        points, pixels = (np.asarray(of, np.float64).reshape(len(ids), -1) for of in matched)
        in_a_row = np.ptp(points[:, :2], axis=0).min() < 0.5 * self.config.square_m
        return None if in_a_row else Corners(points, pixels)


def board_pose(corners: Corners, intrinsics: FloatArray, distortion: FloatArray) -> FloatArray | None:
    """`T_optical_board` `(4, 4)` from one picture; None if none fits.

    Args:
        corners: what was seen.
        intrinsics: `(3, 3)` K [px].
        distortion: `(d,)` in OpenCV's order; empty: none.

    """
    found, rotation, translation = cv2.solvePnP(
        corners.points_m, corners.pixels, intrinsics, distortion, flags=cv2.SOLVEPNP_IPPE
    )
    if not found:
        return None
    rotation, translation = cv2.solvePnPRefineLM(
        corners.points_m, corners.pixels, intrinsics, distortion, rotation, translation
    )
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = cv2.Rodrigues(rotation)[0], translation.ravel()
    return pose if np.isfinite(pose).all() else None
