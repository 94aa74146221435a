from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from e0_ros.config import ConfigError
from e0_ros.core.camera_model import CameraModel, pose_matrix
from sim.camera_shift import CameraShift, direction, looked_at, turned
from sim.simulators import make_adapter

K = np.array([[80.0, 0.0, 31.5], [0.0, 80.0, 31.5], [0.0, 0.0, 1.0]])
FRONT = pose_matrix((1.2, 0.0, 0.7), (-0.596368, -0.596368, 0.379928, 0.379928))
CAMERAS = {
    "base": CameraModel(64, 64, K, "base", FRONT),
    "side": CameraModel(64, 64, K, "base", pose_matrix((0.6, -0.5, 0.35), (-0.79, 0.0, 0.0, 0.61))),
    "wrist": CameraModel(64, 64, K, "flange", np.eye(4)),
}
TOOL = np.array([0.6, 0.0, 0.2])
ANGLES = st.floats(0.0, math.radians(60.0))
WAYS = st.floats(0.0, 2.0 * math.pi)


@settings(deadline=None)
@given(ANGLES, WAYS, st.sampled_from(["base", "side"]))
def test_a_camera_goes_along_the_sphere_and_looks_at_the_same_point(angle: float, way: float, view: str) -> None:
    camera = CAMERAS[view]
    centre = looked_at(camera.pose, TOOL)
    moved = CameraModel(64, 64, K, "base", turned(camera.pose, centre, angle, way))
    np.testing.assert_allclose(moved.project(centre[None]), camera.project(centre[None]), atol=1e-6)
    np.testing.assert_allclose(moved.pose[:3, :3] @ moved.pose[:3, :3].T, np.eye(3), atol=1e-9)
    before, after = camera.pose[:3, 3] - centre, moved.pose[:3, 3] - centre
    assert np.linalg.norm(after) == pytest.approx(np.linalg.norm(before))
    cosine = before @ after / (before @ before)
    assert math.acos(min(1.0, cosine)) == pytest.approx(angle, abs=1e-6)


def test_directions_are_those_of_the_picture() -> None:
    centre = looked_at(FRONT, TOOL)
    for way, axis, sign in ((0.0, 0, 1.0), (math.pi / 2, 1, -1.0), (math.pi, 0, -1.0)):
        step = turned(FRONT, centre, 0.1, way)[:3, 3] - FRONT[:3, 3]
        along = step @ FRONT[:3, axis]
        assert along * sign > 0.99 * np.linalg.norm(step - step @ FRONT[:3, 2] * FRONT[:3, 2])


def test_the_same_seed_goes_the_same_way_whatever_the_angle_and_the_other_views() -> None:
    small, large = (CameraShift(angle).poses(CAMERAS, TOOL, 7) for angle in (5.0, 10.0))
    assert set(small) == {"base", "side"}, "a camera on the arm stays"
    alone = CameraShift(5.0).poses({"side": CAMERAS["side"]}, TOOL, 7)
    np.testing.assert_array_equal(alone["side"], small["side"])
    for view in small:
        steps = [moved[view][:3, 3] - CAMERAS[view].pose[:3, 3] for moved in (small, large)]
        right, down = (np.array([s @ CAMERAS[view].pose[:3, axis] for s in steps]) for axis in (0, 1))
        assert right[1] / right[0] == pytest.approx(math.sin(math.radians(10)) / math.sin(math.radians(5)))
        assert down[1] / down[0] == pytest.approx(right[1] / right[0])
    ways = np.array([[direction(seed, view) for seed in range(200)] for view in ("base", "side")])
    quarters = np.stack([np.histogram(row, 4, (0.0, 2 * math.pi))[0] for row in ways])
    assert quarters.min() > 30 and abs(np.corrcoef(ways)[0, 1]) < 0.2


def test_cameras_tell_their_own_place_or_the_new_one() -> None:
    moved = CameraShift(10.0).poses(CAMERAS, TOOL, 3)
    unnoticed = CameraShift(10.0, "nominal").told(CAMERAS, moved)
    again = CameraShift(10.0, "true").told(CAMERAS, moved)
    for view, camera in CAMERAS.items():
        np.testing.assert_array_equal(unnoticed[view].pose, camera.pose)
        np.testing.assert_array_equal(again[view].pose, moved.get(view, camera.pose))
    assert np.abs(again["base"].pose - FRONT).max() > 0.05


def test_what_cannot_be_moved_is_refused() -> None:
    with pytest.raises(ConfigError, match="cameras cannot be moved"):
        make_adapter("fr3_plant", ("base",), (32, 32), "fr3", shift=CameraShift(5.0))
    assert make_adapter("fr3_plant", ("base",), (32, 32), "fr3", shift=CameraShift()).views == ("base",)
    with pytest.raises(ConfigError, match=r"allowed is 0\.0 to 60"):
        CameraShift(90.0)
