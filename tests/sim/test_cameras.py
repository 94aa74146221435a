"""Where the cameras say that things are, against where the pictures show them."""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np
import pytest

from e0_policy.kinematics import flange_pose, tcp_position_m
from e0_ros.core.camera_model import CameraModel, pose_matrix
from sim.camera_shift import CameraShift
from sim.fr3_plant import Fr3Plant
from sim.maniskill import ManiSkillAdapter

SIZE = 192
CUBE_M = 0.02


def corners(pose: np.ndarray) -> np.ndarray:
    """`(8, 3)` of the cube in the base frame."""
    signs = np.stack(np.meshgrid(*[[-1, 1]] * 3), -1).reshape(-1, 3) * CUBE_M
    matrix = pose_matrix(pose[:3], pose[3:])
    return signs @ matrix[:3, :3].T + matrix[:3, 3]


def red_pixels(image: np.ndarray) -> np.ndarray:
    """`(n, 2)` x, y of the cube's pixels: the largest patch of red, lit or in shade."""
    red, green, blue = np.moveaxis(image.astype(int), -1, 0)
    mask = ((red > 60) & (red > 4 * green) & (red > 4 * blue)).astype(np.uint8)
    _, labels, stats, _ = cv2.connectedComponentsWithStats(mask)
    ys, xs = np.nonzero(labels == 1 + int(stats[1:, cv2.CC_STAT_AREA].argmax()))
    return np.stack([xs, ys], axis=1).astype(float)


def outline(camera: CameraModel, points: np.ndarray, flange: np.ndarray) -> np.ndarray:
    return cv2.convexHull(camera.project(points, flange).astype(np.float32))[:, 0]


@pytest.fixture(scope="module")
def adapter(maniskill: None) -> Iterator[ManiSkillAdapter]:
    made = ManiSkillAdapter(("base", "wrist", "side"), SIZE, SIZE)
    yield made
    made.close()


def check_cube(adapter: ManiSkillAdapter, cameras: dict[str, CameraModel], view: str, hidden: bool = False) -> None:
    """Compare the cube's pixels with its projected outline, to a pixel; partly hidden they only lie inside."""
    adapter.start_render()
    seen = red_pixels(adapter.finish_render()[view])
    flange = flange_pose(adapter.joint_state()[0])
    hull = outline(cameras[view], corners(adapter.privileged().poses["cube"]), flange)
    area = cv2.contourArea(hull)
    assert area > 30
    assert all(cv2.pointPolygonTest(hull, (x, y), True) > -1.2 for x, y in seen.tolist())
    if hidden:
        assert 0.3 * area < len(seen)
        return
    assert 0.8 * area < len(seen) < 1.2 * area + 10
    moments = cv2.moments(hull)
    centre = [moments["m10"] / moments["m00"], moments["m01"] / moments["m00"]]
    np.testing.assert_allclose(seen.mean(axis=0), centre, atol=0.5)


@pytest.mark.sim
def test_the_cube_is_where_its_privileged_pose_is_projected(adapter: ManiSkillAdapter) -> None:
    adapter.reset("PickCube-v1", 3)
    cameras = adapter.cameras()
    assert {view: camera.parent for view, camera in cameras.items()} == {
        "base": "base",
        "wrist": "flange",
        "side": "base",
    }
    for view in ("base", "side"):
        check_cube(adapter, cameras, view)
    check_cube(adapter, cameras, "wrist", hidden=True)


@pytest.mark.sim
def test_the_wrists_camera_goes_with_the_flange(adapter: ManiSkillAdapter) -> None:
    adapter.reset("PickCube-v1", 3)
    cameras = adapter.cameras()
    target = adapter.joint_state()[0] + np.array([-0.1, -0.1, 0.05, -0.2, 0.1, 0.1, 0.3])
    for _ in range(150):
        adapter.step(target, np.zeros(7), 1.0)
    check_cube(adapter, cameras, "wrist", hidden=True)
    np.testing.assert_allclose(adapter.cameras()["wrist"].pose, cameras["wrist"].pose, atol=1e-4)
    tool = adapter.privileged().poses["tcp"][:3]
    np.testing.assert_allclose(tcp_position_m(adapter.joint_state()[0]), tool, atol=1e-4)


@pytest.mark.sim
def test_moved_cameras_are_where_they_say_if_they_were_calibrated_again(adapter: ManiSkillAdapter) -> None:
    adapter.reset("PickCube-v1", 0)
    still = adapter.nominal_cameras()
    moved = ManiSkillAdapter(("base", "wrist", "side"), SIZE, SIZE, shift=CameraShift(15.0, "true"))
    moved.reset("PickCube-v1", 0)
    cameras = moved.cameras()
    for view in ("base", "side"):
        check_cube(moved, cameras, view)
        np.testing.assert_allclose(moved.nominal_cameras()[view].pose, still[view].pose, atol=1e-6)
        with pytest.raises(AssertionError):  # as if nobody had noticed
            check_cube(moved, still, view)
    check_cube(moved, cameras, "wrist", hidden=True)
    moved.close()


def test_the_plants_cameras_see_the_arm() -> None:
    plant = Fr3Plant(("base", "wrist", "left"), 64, 48)
    cameras = plant.cameras()
    joints = plant.joint_state()[0]
    assert [cameras[view].parent for view in plant.views] == ["base", "flange", "base"]
    tool = tcp_position_m(joints)[None]
    for camera in cameras.values():
        (pixel,) = camera.project(tool, flange_pose(joints))
        assert (pixel > 0).all() and (pixel < [camera.width_px, camera.height_px]).all()
    above = tool + np.array([0.0, 0.0, 0.05])
    assert cameras["base"].project(above)[0, 1] < cameras["base"].project(tool)[0, 1]  # up is up
