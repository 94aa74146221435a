from types import SimpleNamespace as Made

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from e0_ros.core.camera_model import CameraModel, camera_model, pose_matrix, quaternion_xyzw, transforms_of

K = np.array([[100.0, 0.0, 31.5], [0.0, 100.0, 23.5], [0.0, 0.0, 1.0]])
FORWARD = np.array([[0.0, 0.0, 1.0], [-1.0, 0.0, 0.0], [0.0, -1.0, 0.0]])
"""An optical frame that looks along the base's x with z up."""


def looking_along_x(parent: str = "base") -> CameraModel:
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = FORWARD, [1.0, 0.0, 0.5]
    return CameraModel(64, 48, K, parent, pose)


def test_points_fall_where_a_pinhole_puts_them():
    # right in the image is the base's -y, down is its -z
    points = np.array([[2.0, 0.0, 0.5], [2.0, -0.1, 0.5], [2.0, 0.0, 0.4], [3.0, -0.1, 0.4], [0.5, 0.0, 0.5]])
    pixels = looking_along_x().project(points)
    np.testing.assert_allclose(pixels[:4], [[31.5, 23.5], [41.5, 23.5], [31.5, 33.5], [36.5, 28.5]])
    assert np.isnan(pixels[4]).all()


def test_a_camera_on_the_flange_moves_with_it():
    flange = pose_matrix((0.0, 0.2, 0.0), (0.0, 0.0, 0.0, 1.0))
    (moved,) = looking_along_x("flange").project(np.array([[2.0, 0.2, 0.5]]), flange)
    np.testing.assert_allclose(moved, [31.5, 23.5])
    with pytest.raises(ValueError, match="flange's pose"):
        looking_along_x("flange").project(np.zeros((1, 3)))


@settings(deadline=None)
@given(st.lists(st.floats(-1, 1), min_size=4, max_size=4))
def test_quaternions_and_matrices_say_the_same(values):
    q = np.array(values)
    assume(np.linalg.norm(q) > 0.05)
    pose = pose_matrix((1, 2, 3), q)
    np.testing.assert_allclose(pose[:3, :3] @ pose[:3, :3].T, np.eye(3), atol=1e-9)
    again = quaternion_xyzw(pose[:3, :3])
    q = q / np.linalg.norm(q)
    assert abs(abs(again @ q) - 1) < 1e-9 and again[3] >= 0


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"parent": "hand"}, "base or flange"),
        ({"width_px": 0}, "base or flange"),
        ({"intrinsics": np.full((3, 3), np.nan)}, "not finite"),
        ({"pose": np.eye(3)}, "(3, 3)"),
    ],
)
def test_a_camera_that_cannot_be_is_refused(change, text):
    good = {"width_px": 64, "height_px": 48, "intrinsics": K, "parent": "base", "pose": np.eye(4)}
    with pytest.raises(ValueError, match=text.replace("(", r"\(").replace(")", r"\)")):
        CameraModel(**{**good, **change})


def transform(parent: str, child: str, x: float = 0.0, q: tuple[float, ...] = (0, 0, 0, 1)) -> Made:
    rotation = Made(**dict(zip("xyzw", q, strict=True)))
    return Made(
        header=Made(frame_id=parent),
        child_frame_id=child,
        transform=Made(translation=Made(x=x, y=0.0, z=0.0), rotation=rotation),
    )


def info(frame: str, k: np.ndarray = K) -> Made:
    return Made(header=Made(frame_id=frame), width=64, height=48, k=k.ravel())


def test_the_chain_of_frames_is_followed_to_the_base_or_the_flange():
    messages = [
        Made(transforms=[transform("fr3_link0", "camera_link", 1.0), transform("fr3_link8", "hand_camera", 0.1)]),
        Made(transforms=[transform("camera_link", "base_color_optical_frame", 0.5)]),
    ]
    known = transforms_of(messages)
    fixed = camera_model(info("base_color_optical_frame"), known, "fr3_link0")
    assert fixed.parent == "base" and fixed.pose[0, 3] == 1.5 and fixed.width_px == 64
    assert camera_model(info("hand_camera"), known, "fr3_link0").parent == "flange"
    assert camera_model(info("/hand_camera"), known, "fr3_link0").parent == "flange"


def test_what_leads_nowhere_is_no_camera():
    known = transforms_of([Made(transforms=[transform("a", "b"), transform("b", "a"), transform("world", "c")])])
    assert camera_model(info("b"), known, "fr3_link0") is None  # a circle
    assert camera_model(info("c"), known, "fr3_link0") is None
    assert camera_model(info("nowhere"), known, "fr3_link0") is None
    broken = transforms_of(
        [Made(transforms=[transform("fr3_link0", "d", np.nan), transform("fr3_link0", "e", q=(0,) * 4)])]
    )
    assert broken == {}
    good = transforms_of([Made(transforms=[transform("fr3_link0", "d")])])
    assert camera_model(info("d", 0 * K), good, "fr3_link0") is None  # an uncalibrated camera's CameraInfo
    assert camera_model(info("d", np.full((3, 3), np.nan)), good, "fr3_link0") is None
