"""Where a camera is on an arm, from pictures of a board at many poses of the arm.

A camera on the flange sees a board that lies still; a fixed camera sees a board on the flange. Both are one equation:
`T_optical_board = inv(X) H B` with the camera's place X on its parent, the board's place B on the other side, and H the
pose of that other side in the parent, known from the joints. Tsai and Lenz' closed form begins, and Levenberg and
Marquardt's method makes the corners of all pictures fall where they were seen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from e0_policy.types import FloatArray
from e0_ros.core.charuco import Corners, board_pose

LEAST_VIEWS = 6
LEAST_TURN_RAD = 0.25
STEPS = 60
OUTLIER_PX = 4.0


class HandEyeError(ValueError):
    """The pictures do not tell where the camera is; the message says what to do."""


@dataclass(frozen=True)
class Sighting:
    """The board in one picture, and `T_base_flange` `(4, 4)` at that time."""

    corners: Corners
    flange: FloatArray


@dataclass(frozen=True)
class HandEye:
    """Where the camera is.

    Attributes:
        pose: `T_parent_optical` `(4, 4)`.
        error_px: root mean square distance of the corners from where they should fall.
        sigma_m, sigma_rad: how uncertain the place and the direction are, one sigma of the worst axis.
        used: pictures that count; the others did not agree.

    """

    pose: FloatArray
    error_px: float
    sigma_m: float
    sigma_rad: float
    used: int


def solve_hand_eye(
    sightings: Sequence[Sighting], intrinsics: FloatArray, distortion: FloatArray, parent: str
) -> HandEye:
    """Find a camera's place.

    Args:
        sightings: at least `LEAST_VIEWS`, with the hand turned about at least two axes.
        intrinsics: `(3, 3)` K [px].
        distortion: `(d,)` in OpenCV's order; empty: none.
        parent: `flange` (the board lies still) or `base` (the board is on the flange).

    Raises:
        HandEyeError: too few pictures, too little turning, or no place that explains them.

    """
    seen = [(s, board_pose(s.corners, intrinsics, distortion)) for s in sightings]
    known = [(s, pose) for s, pose in seen if pose is not None]
    if len(known) < LEAST_VIEWS:
        raise HandEyeError(f"the board is seen at {len(known)} poses of the arm; {LEAST_VIEWS} are needed, 15 are good")
    others = [np.linalg.inv(s.flange) if parent == "flange" else s.flange for s, _ in known]
    _check_turns(others)
    camera, board = _closed_form(others, [pose for _, pose in known])
    corners = [s.corners for s, _ in known]
    fit, good = _agreed(_Fit(camera, board), others, [s.corners for s, _ in known], intrinsics, distortion)
    others, corners = [others[i] for i in good], [known[i][0].corners for i in good]
    left = np.concatenate(_residuals(fit, others, corners, intrinsics, distortion))
    jacobian = _jacobian(fit, others, corners, intrinsics, distortion)
    noise = float((left**2).sum()) / max(left.size - 12, 1)
    sigma = np.sqrt(np.diag(np.linalg.pinv(jacobian.T @ jacobian)) * noise)
    return HandEye(fit.camera, _rms(left), float(sigma[3:6].max()), float(sigma[:3].max()), len(good))


@dataclass(frozen=True)
class _Fit:
    camera: FloatArray
    board: FloatArray

    def moved(self, step: FloatArray) -> _Fit:
        return _Fit(self.camera @ _motion(step[:6]), self.board @ _motion(step[6:]))


def _check_turns(others: list[FloatArray]) -> None:
    """Turning about one axis alone leaves the place along it unknown."""
    turns = [cv2.Rodrigues(others[0][:3, :3].T @ other[:3, :3])[0].ravel() for other in others[1:]]
    turned = np.linalg.svd(np.array(turns) - np.mean(turns, axis=0), compute_uv=False)[1] / np.sqrt(len(turns))
    if turned < LEAST_TURN_RAD / 2:
        raise HandEyeError("the hand turns about one axis only; turn it about two or more, by 30 degrees and more")


def _closed_form(others: list[FloatArray], boards: list[FloatArray]) -> tuple[FloatArray, FloatArray]:
    inverse = [np.linalg.inv(other) for other in others]
    rotation, translation = cv2.calibrateHandEye(
        [i[:3, :3] for i in inverse], [i[:3, 3] for i in inverse],
        [b[:3, :3] for b in boards], [b[:3, 3] for b in boards], method=cv2.CALIB_HAND_EYE_PARK,
    )  # fmt: skip
    camera = np.eye(4)
    camera[:3, :3], camera[:3, 3] = rotation, translation.ravel()
    if not np.isfinite(camera).all():
        raise HandEyeError("no place of the camera explains the pictures; take more of them at other poses")
    places = [inverse[i] @ camera @ boards[i] for i in range(len(boards))]
    middle = min(places, key=lambda place: sum(float(np.abs(place - other).sum()) for other in places))
    return camera, middle


def _agreed(
    fit: _Fit, others: list[FloatArray], corners: list[Corners], intrinsics: FloatArray, distortion: FloatArray
) -> tuple[_Fit, list[int]]:
    """The fit to the pictures that agree, and which those are: the worst is left out again and again, to a third."""
    count = len(others)
    good = list(range(count))
    while True:
        seen = [others[i] for i in good], [corners[i] for i in good]
        fit = _refine(fit, *seen, intrinsics, distortion)
        errors = [_rms(r) for r in _residuals(fit, *seen, intrinsics, distortion)]
        worst = int(np.argmax(errors))
        if errors[worst] <= OUTLIER_PX:
            return fit, good
        good.pop(worst)
        if len(good) < max(LEAST_VIEWS, 2 * count // 3):
            raise HandEyeError(
                f"more than a third of {count} pictures are off by {OUTLIER_PX:g} px and more: did the board or the "
                "camera move, or is the size of the squares wrong?"
            )


def _refine(
    fit: _Fit, others: list[FloatArray], corners: list[Corners], intrinsics: FloatArray, distortion: FloatArray
) -> _Fit:
    damping, left = 1e-3, np.concatenate(_residuals(fit, others, corners, intrinsics, distortion))
    for _ in range(STEPS):
        jacobian = _jacobian(fit, others, corners, intrinsics, distortion)
        normal = jacobian.T @ jacobian
        step = np.linalg.solve(normal + damping * np.diag(np.diag(normal) + 1e-12), -jacobian.T @ left)
        tried = fit.moved(step)
        rest = np.concatenate(_residuals(tried, others, corners, intrinsics, distortion))
        if float(rest @ rest) < float(left @ left):
            gain = float(left @ left) - float(rest @ rest)
            fit, left, damping = tried, rest, damping / 4
            if gain < 1e-10 * float(left @ left) + 1e-14:
                break
        else:
            damping *= 4
            if damping > 1e6:
                break
    return fit


def _residuals(
    fit: _Fit, others: list[FloatArray], corners: list[Corners], intrinsics: FloatArray, distortion: FloatArray
) -> list[FloatArray]:
    """Per picture, how far its corners are from where they should fall, x and y in turn [px]."""
    camera, found = np.linalg.inv(fit.camera), []
    for other, seen in zip(others, corners, strict=True):
        pose = camera @ other @ fit.board
        rotation = cv2.Rodrigues(pose[:3, :3])[0]
        pixels, _ = cv2.projectPoints(seen.points_m, rotation, pose[:3, 3], intrinsics, distortion)
        found.append((np.asarray(pixels, np.float64).reshape(-1, 2) - seen.pixels).ravel())
    return found


def _jacobian(
    fit: _Fit, others: list[FloatArray], corners: list[Corners], intrinsics: FloatArray, distortion: FloatArray
) -> FloatArray:
    columns = []
    for k in range(12):
        step = np.zeros(12)
        step[k] = 1e-6
        ends = [
            np.concatenate(_residuals(fit.moved(s), others, corners, intrinsics, distortion)) for s in (step, -step)
        ]
        columns.append((ends[0] - ends[1]) / 2e-6)
    return np.stack(columns, axis=1)


def _motion(step: FloatArray) -> FloatArray:
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = cv2.Rodrigues(step[:3])[0], step[3:]
    return pose


def _rms(residuals: FloatArray) -> float:
    return float(np.sqrt((residuals.reshape(-1, 2) ** 2).sum(axis=1).mean()))
