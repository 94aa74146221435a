"""Extrinsics from drawn pictures of a board, with the truth known."""

import cv2
import numpy as np
import pytest

from e0_policy.embodiment import load_embodiment
from e0_policy.kinematics import flange_pose
from e0_ros.core.camera_model import pose_matrix
from e0_ros.core.charuco import Board, BoardConfig, board_pose
from e0_ros.core.hand_eye import HandEyeError, Sighting, solve_hand_eye

ARM = load_embodiment("fr3")
SIZE = 640, 480
K = np.array([[600.0, 0.0, 322.0], [0.0, 598.0, 241.0], [0.0, 0.0, 1.0]])
NONE = np.zeros(5)
BOARD = Board(BoardConfig())
TRUTH = {
    "flange": pose_matrix((0.05, -0.01, 0.03), (0.02, -0.03, 0.70, 0.71)),
    "base": pose_matrix((1.25, 0.1, 0.55), (-0.63, -0.60, 0.36, 0.34)),
}


def draw(pose, rng, noise=2.0, pixels_per_square=60):
    """The board as a camera sees it: its picture warped by the homography of its plane, blurred and noisy."""
    config, picture = BOARD.config, BOARD.picture(pixels_per_square)
    scale = config.square_m / pixels_per_square
    plane = K @ np.column_stack((pose[:3, 0] * scale, pose[:3, 1] * scale, pose[:3, 3]))
    half = np.array([[1.0, 0.0, 0.5], [0.0, 1.0, 0.5], [0.0, 0.0, 1.0]])  # a pixel's centre is half a pixel in
    seen = cv2.warpPerspective(picture, plane @ half, SIZE, flags=cv2.INTER_AREA, borderValue=(110, 110, 110))
    seen = cv2.GaussianBlur(seen, (3, 3), 0.7).astype(float) + rng.normal(0, noise, (SIZE[1], SIZE[0], 3))
    return np.clip(seen, 0, 255).astype(np.uint8)


def looking(camera, rng):
    """A pose of the board in front of a camera at `camera`: 0.4 to 0.6 m off, tilted by up to 35 degrees."""
    tilt = cv2.Rodrigues(rng.uniform(-0.6, 0.6, 3) * [1, 1, 1.5])[0]
    pose = np.eye(4)
    pose[:3, :3] = tilt
    middle = np.array([*np.array(BOARD.size_m) / 2, 0.0])
    pose[:3, 3] = [*rng.uniform(-0.04, 0.04, 2), rng.uniform(0.4, 0.6)] - tilt @ middle
    return camera @ pose, pose


def scene(parent, count, seed=0):
    """Sightings of an arm (any pose of the flange) that brings board and camera together, through drawn pictures."""
    rng, sightings = np.random.default_rng(seed), []
    other = pose_matrix((0.5, 0.0, 0.0), (0.0, 0.0, 0.38, 0.92)) if parent == "flange" else pose_matrix(
        (0.0, 0.02, 0.06), (0.1, 0.0, 0.7, 0.71))  # fmt: skip
    for _ in range(count):
        _, seen = looking(np.eye(4), rng)
        camera = TRUTH[parent]
        # flange: inv(X) inv(A) B = seen;  base: inv(X) A B = seen
        flange = other @ np.linalg.inv(seen) @ np.linalg.inv(camera) if parent == "flange" else (
            camera @ seen @ np.linalg.inv(other))  # fmt: skip
        corners = BOARD.find(draw(seen, rng))
        if corners is not None:
            sightings.append(Sighting(corners, flange))
    return sightings


def off(found, truth):
    apart = np.linalg.inv(truth) @ found
    return np.linalg.norm(apart[:3, 3]), np.linalg.norm(cv2.Rodrigues(apart[:3, :3])[0])


def test_the_boards_pose_in_one_picture() -> None:
    rng = np.random.default_rng(1)
    for _ in range(5):
        _, truth = looking(np.eye(4), rng)
        corners = BOARD.find(draw(truth, rng))
        assert corners is not None and len(corners.pixels) >= 20
        metres, radians = off(board_pose(corners, K, NONE), truth)
        assert metres < 0.004 and radians < 0.01
    assert BOARD.find(np.full((480, 640, 3), 128, np.uint8)) is None
    strip = draw(looking(np.eye(4), np.random.default_rng(1))[1] @ pose_matrix((0, 0.0, 0), (0, 0, 0, 1)), rng)
    below = int(BOARD.find(strip).pixels[:, 1].min()) + 20
    strip[below:] = 110
    assert BOARD.find(strip) is None, "a row of corners tells no pose"


@pytest.mark.parametrize("parent", ["flange", "base"])
def test_the_camera_is_found_to_a_millimetre_and_a_twentieth_of_a_degree(parent) -> None:
    sightings = scene(parent, 15)
    assert len(sightings) >= 12
    found = solve_hand_eye(sightings, K, NONE, parent)
    metres, radians = off(found.pose, TRUTH[parent])
    assert metres < 0.001 and radians < 0.001 and found.error_px < 0.5
    assert metres < 5 * found.sigma_m + 2e-4 and found.sigma_m < 0.002


def test_a_picture_that_contradicts_the_others_is_left_out() -> None:
    sightings = scene("flange", 14, seed=2)
    sightings[3] = Sighting(sightings[3].corners, sightings[3].flange @ pose_matrix((0.03, 0, 0), (0, 0, 0, 1)))
    found = solve_hand_eye(sightings, K, NONE, "flange")
    assert found.used == len(sightings) - 1 and off(found.pose, TRUTH["flange"])[0] < 0.002


def test_too_few_pictures_and_a_hand_that_turns_about_one_axis_are_told() -> None:
    sightings = scene("flange", 14)
    with pytest.raises(HandEyeError, match="seen at 5 poses of the arm; 6 are needed"):
        solve_hand_eye(sightings[:5], K, NONE, "flange")
    flat = [Sighting(s.corners, pose_matrix((0.1 * i, 0, 0.5), (0, 0, np.sin(i / 9), np.cos(i / 9))))
            for i, s in enumerate(sightings)]  # fmt: skip
    with pytest.raises(HandEyeError, match="about one axis only"):
        solve_hand_eye(flat, K, NONE, "flange")
    mixed = [
        Sighting(s.corners, flange_pose(ARM.home + 0.4 * np.sin(i + np.arange(7)))) for i, s in enumerate(sightings)
    ]
    with pytest.raises(HandEyeError, match="did the board or the camera move"):
        solve_hand_eye(mixed, K, NONE, "flange")
