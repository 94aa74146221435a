from types import SimpleNamespace as Made

import numpy as np

from e0_policy.types import FloatArray
from e0_policy.view_offset import view_offset
from e0_ros.core.camera_model import pose_matrix, quaternion_xyzw
from e0_ros.core.camera_places import CameraPlaces

TRAINED = pose_matrix((1.2, 0.0, 0.7), (-0.596368, -0.596368, 0.379928, 0.379928))
PRESENT = pose_matrix((1.1, 0.2, 0.8), (-0.55, -0.62, 0.40, 0.37))


def transform(frame: str, parent: str, pose: FloatArray, sec: int = 0) -> Made:
    p, q = pose[:3, 3], quaternion_xyzw(pose[:3, :3])
    moved = Made(translation=Made(x=p[0], y=p[1], z=p[2]), rotation=Made(x=q[0], y=q[1], z=q[2], w=q[3]))
    stamp = Made(sec=sec, nanosec=5)
    return Made(child_frame_id=frame, header=Made(frame_id=parent, stamp=stamp), transform=moved)


def test_offsets_are_those_between_both_frames_also_through_a_chain() -> None:
    places = CameraPlaces("panda_link0")
    assert places.stamp_ns == -1 and places.offsets(["base"]) == {}
    places.hear(Made(transforms=[transform("base_trained_optical_frame", "panda_link0", TRAINED)]))
    assert places.offsets(["base"]) == {}, "where it stands now is not known"
    mount = pose_matrix((0.1, 0.0, 0.5), (0.0, 0.0, 0.3, 0.95))
    own = np.linalg.inv(mount) @ PRESENT
    chain = [transform("stand", "panda_link0", mount, 3), transform("base_color_optical_frame", "stand", own, 2)]
    places.hear(Made(transforms=chain))
    found = places.offsets(["base", "wrist"])
    assert list(found) == ["base"] and places.stamp_ns == 3_000_000_005
    np.testing.assert_array_equal(found["base"], view_offset(TRAINED, PRESENT))


def test_frames_on_different_parts_of_the_arm_say_nothing() -> None:
    places = CameraPlaces("panda_link0")
    frames = [("wrist_trained_optical_frame", "panda_link0"), ("wrist_color_optical_frame", "panda_link8")]
    places.hear(Made(transforms=[transform(frame, parent, TRAINED) for frame, parent in frames]))
    assert places.offsets(["wrist"]) == {}
