"""What calibration reads of a take: changes of images, joints, references, the board wherever the arm stood."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np

from e0_policy.embodiment import Embodiment
from e0_policy.kinematics import flange_pose
from e0_policy.types import FloatArray, ImageArray
from e0_ros.core.bag_reader import Bag, BagReadError
from e0_ros.core.charuco import Board
from e0_ros.core.dataset_bag import view_topics
from e0_ros.core.hand_eye import Sighting
from e0_ros.core.inspection_images import camera_views, image_pixels
from e0_ros.core.joint_names import pick_joints
from e0_ros.core.latency_calibration import TimeArray
from e0_ros.core.traces import stamp_ns
from e0_ros.interfaces import EXECUTOR_STATE, JOINT_STATES, camera_info_topic

SMALL_PX = 160
STILL_RAD_S = 0.01
STILL_NS = 300_000_000
APART_RAD = 0.05


@dataclass(frozen=True)
class Motion:
    """A signal of the joints: `times_ns` `(n,)` and `positions` `(n, joints)` [rad]."""

    times_ns: TimeArray
    positions: FloatArray


def measured(bag: Bag, arm: Embodiment) -> Motion:
    """The measured joints.

    Raises:
        BagReadError: the bag has none.

    """
    times, rows = [], []
    for message in bag.messages([JOINT_STATES.name]):
        said = bag.decode(message)
        times.append(stamp_ns(said))
        rows.append(pick_joints(said.name, said.position, arm.joint_names))
    return _motion(bag, JOINT_STATES.name, times, rows)


def commanded(bag: Bag, arm: Embodiment) -> Motion:
    """The executor's reference while it followed a plan.

    Raises:
        BagReadError: the bag has none.

    """
    times, rows = [], []
    for message in bag.messages([EXECUTOR_STATE.name]):
        said = bag.decode(message)
        if said.mode == 2 and tuple(said.joint_names) == arm.joint_names:
            times.append(stamp_ns(said))
            rows.append(np.asarray(said.positions, np.float64))
    return _motion(bag, EXECUTOR_STATE.name, times, rows)


def image_changes(bag: Bag, view: str) -> tuple[TimeArray, FloatArray]:
    """Stamps of a view's images `(n,)`, and how much each differs from the one before `(n - 1,)`.

    Raises:
        BagReadError: no image of that view.

    """
    stamps: list[int] = []
    changes: list[float] = []
    before: FloatArray | None = None
    for stamp, image in images(bag, view):
        small = _small(image)
        if before is not None:
            changes.append(float(np.abs(small - before).mean()))
        stamps.append(stamp)
        before = small
    return np.array(stamps, np.int64), np.array(changes)


def images(bag: Bag, view: str) -> Iterator[tuple[int, ImageArray]]:
    """Stamp and pixels of every image of a view.

    Raises:
        BagReadError: no image of that view.

    """
    for message in bag.messages([view_topics(bag, view)]):
        said = bag.decode(message)
        yield stamp_ns(said), image_pixels(said)


def first_images(bag: Bag) -> dict[str, ImageArray]:
    """The first picture of every view."""
    return {view: next(images(bag, view))[1] for view, _ in camera_views(bag)}


def optics(bag: Bag, view: str) -> tuple[FloatArray, FloatArray]:
    """K `(3, 3)` [px] and the distortion `(d,)` of a view's camera.

    Raises:
        BagReadError: the bag does not say, or its camera distorts in a way that is not known here.

    """
    topic = camera_info_topic(view).name
    for message in bag.messages([topic] if topic in bag.topics else []):
        info = bag.decode(message)
        distortion = np.asarray(info.d, np.float64)
        if info.distortion_model not in ("", "plumb_bob", "rational_polynomial") and distortion.any():
            raise BagReadError(f"{bag.path}: {view} distorts by {info.distortion_model!r}; record rectified images")
        return np.array(info.k, np.float64).reshape(3, 3), distortion
    raise BagReadError(f"{bag.path}: {topic} was not recorded; it says how the camera sees")


def sightings(bag: Bag, view: str, arm: Embodiment, board: Board) -> tuple[list[Sighting], int]:
    """The board, once at every pose at which the arm stood, and at how many poses it stood.

    Raises:
        BagReadError: no image of that view, no joint states, or an arm whose kinematics are not known.

    """
    if not arm.has_kinematics:
        raise BagReadError(f"where {arm.name} holds the camera or the board cannot be told: its kinematics are none")
    motion, found, poses = measured(bag, arm), [], 0
    stands = _stands(motion)
    for stamp, image in images(bag, view):
        if not stands or stamp < stands[0][0]:
            continue
        while stands and stamp > stands[0][1]:
            stands.pop(0)
        if not stands or stamp < stands[0][0]:
            continue
        poses += 1
        joints = stands.pop(0)[2]
        corners = board.find(image)
        if corners is not None:
            found.append(Sighting(corners, flange_pose(joints)))
    return found, poses


def _stands(motion: Motion) -> list[tuple[int, int, FloatArray]]:
    """From when to when the arm stood, with its joints; a pose that it stood at just before counts once."""
    times, q = motion.times_ns, motion.positions
    if len(times) < 2:
        return []
    quick = np.abs(np.diff(q, axis=0)).max(axis=1) > STILL_RAD_S * np.maximum(np.diff(times), 1) / 1e9
    edges = np.flatnonzero(np.concatenate(([True], quick, [True])))
    found: list[tuple[int, int, FloatArray]] = []
    for a, b in zip(edges[:-1], edges[1:] - 1, strict=True):
        if b <= a or times[b] - times[a] < 2 * STILL_NS:
            continue
        pose = q[a : b + 1].mean(axis=0)
        if not found or np.abs(pose - found[-1][2]).max() > APART_RAD:
            found.append((int(times[a]) + STILL_NS, int(times[b]) - STILL_NS // 3, pose))
    return found


def _small(image: ImageArray) -> FloatArray:
    height, width = image.shape[:2]
    size = SMALL_PX, max(1, round(height * SMALL_PX / width))
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    small: FloatArray = cv2.GaussianBlur(cv2.resize(grey, size, interpolation=cv2.INTER_AREA), (5, 5), 0).astype(float)
    return small


def _motion(bag: Bag, topic: str, times: list[int], rows: list[FloatArray]) -> Motion:
    if len(times) < 2:
        raise BagReadError(f"{bag.path}: too little on {topic}")
    order = np.argsort(np.array(times, np.int64), kind="stable")
    return Motion(np.array(times, np.int64)[order], np.array(rows)[order])
