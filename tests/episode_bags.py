"""Bags of whole episodes for tests, with faults on demand."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import yaml
from geometry_msgs.msg import TransformStamped
from rclpy.serialization import serialize_message
from sensor_msgs.msg import CameraInfo, JointState
from synthetic_bags import open_bag
from tf2_msgs.msg import TFMessage

from e0_msgs.msg import ActionChunk, EpisodeEvent, ExecutorState, Observation
from e0_policy.embodiment import load_embodiment
from e0_ros.conversions import image_to_msg, to_time
from e0_ros.core.bag_writer import BagWriter
from e0_ros.core.definitions import installed
from e0_ros.core.image_codec import transform
from e0_ros.interfaces import (
    ACTION_CHUNK,
    EPISODE_EVENT,
    EXECUTOR_STATE,
    GRIPPER_STATES,
    JOINT_STATES,
    OBSERVATION,
    TF_STATIC,
    Topic,
    camera_info_topic,
    camera_topic,
)

NAMES = tuple(f"joint{i}" for i in range(1, 8))
START = 10**9
STEP = 50_000_000
COUNT = 60
FR3 = load_embodiment("fr3")
CALIBRATION = TransformStamped(child_frame_id="base_color_optical_frame")
"""A camera 1.5 m above the arm's base that looks down, its image's right being the base's x."""
CALIBRATION.header.frame_id = FR3.base_frame
CALIBRATION.transform.translation.z = 1.5
CALIBRATION.transform.rotation.x, CALIBRATION.transform.rotation.w = 1.0, 0.0
GRAPH = {
    "arguments": {"views": ["base", "wrist"]},
    "settings": {"observation_sync": {"camera_rate_hz": 20.0, "joint_rate_hz": 100.0, "gripper_rate_hz": 20.0}},
}


def add(writer: BagWriter, topic: Topic, message: Any, log_ns: int) -> None:
    if hasattr(message, "header"):
        message.header.stamp = to_time(log_ns)
    store = transform("jpeg", 95, False, installed())
    name, kind, data = store(topic.name, topic.type, serialize_message(message))
    writer.write(name, kind, topic.qos, data, log_ns, log_ns, 0)


def reference(time_s: float) -> np.ndarray:
    return 0.3 * np.sin(2.0 * time_s + np.arange(7))


def make_episode(
    root: Path,
    name: str = "episode",
    count: int = COUNT,
    missing: range = range(0),
    frozen: range = range(0),
    troubled: bool = True,
    calibrated: bool = False,
    **about: str,
) -> Path:
    """`count` frames at 20 Hz: the arm lags 20 ms; if troubled, a hold from 1.0 s to 1.5 s and a refusal at 2.0 s.

    Frames in `missing` have no images, those in `frozen` the wrist's image of the first of them.
    """
    writer = open_bag(root, name, chunk_bytes=65536)
    writer.attach("configuration.yaml", yaml.safe_dump(GRAPH), START)
    add(writer, EPISODE_EVENT, EpisodeEvent(episode_id=name), START)
    if calibrated:
        add(writer, TF_STATIC, TFMessage(transforms=[CALIBRATION]), START)
    for i in range(count):
        now, time_s = START + i * STEP, i * STEP / 1e9
        for view, grey in (("wrist", 4 * i), ("base", 255 - 4 * i)):
            shown = frozen[0] if view == "wrist" and i in frozen else i
            pixels = np.full((48, 64, 3), (grey + 4 * (shown - i)) % 256, np.uint8)
            cv2.circle(pixels, (shown % 64, 24), 6, (255, 0, 0), -1)
            if i in missing:
                continue
            add(writer, camera_topic(view), image_to_msg(pixels, now, view), now)
        for sample in range(5):
            stamp = now + sample * STEP // 5
            positions = reference((stamp - START) / 1e9 - 0.02)
            shuffled = JointState(name=list(reversed(NAMES)), position=list(reversed(positions)))
            shuffled.velocity = shuffled.effort = [0.0] * 7
            add(writer, JOINT_STATES, shuffled, stamp)
        add(writer, GRIPPER_STATES, JointState(name=["finger"], position=[0.04]), now)
        add(writer, OBSERVATION, Observation(gripper_opening=float(i < 30), embodiment="fr3"), now)
        if calibrated:
            info = CameraInfo(width=64, height=48, k=[50.0, 0.0, 31.5, 0.0, 50.0, 23.5, 0.0, 0.0, 1.0])
            info.header.frame_id = CALIBRATION.child_frame_id
            add(writer, camera_info_topic("base"), info, now)
        chunk = ActionChunk(source="policy", sequence=i, rows=2, columns=8, data=np.arange(16.0))
        if calibrated:
            chunk.embodiment, chunk.joint_names, chunk.period_ns = "fr3", list(FR3.joint_names), STEP
            chunk.data, chunk.uncertainty = np.tile([*FR3.home, 1.0], 2), [2.0, 2.0]
            chunk.t0 = to_time(now)
        add(writer, ACTION_CHUNK, chunk, now)
        state = ExecutorState(
            mode=3 if troubled and 20 <= i < 30 else 2, joint_names=NAMES, gripper_opening=float(i < 25)
        )
        state.reason = "policy is late" if state.mode == 3 else ""
        state.positions, state.velocities = reference(time_s), np.zeros(7)
        state.chunks_refused, state.last_refusal = int(troubled and i >= 40), "row 3 is NaN" if i >= 40 else ""
        add(writer, EXECUTOR_STATE, state, now)
    told = {"episode_id": name, "instruction": "pick up the cube", "task": "PickCube-v1", "outcome": "success"}
    return writer.close({**told, "configuration": "views: [base, wrist]", **about}).path
