"""What the bridge publishes."""

from __future__ import annotations

import array
from collections.abc import Mapping
from typing import Any

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from geometry_msgs.msg import Pose, TransformStamped
from rclpy.node import Node
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CameraInfo, Image, JointState
from tf2_msgs.msg import TFMessage

from e0_msgs.msg import SimState
from e0_policy.types import FloatArray, ImageArray
from e0_ros import interfaces
from e0_ros.conversions import to_time
from e0_ros.core.camera_model import FLANGE, CameraModel, quaternion_xyzw
from sim.bridge.settings import BridgeConfig
from sim.episode import Episode
from sim.rig import JointSample, Rig


class Outputs:
    """Publishers and their messages, made once: writing into a message's array costs a hundredth of a new one."""

    def __init__(self, node: Node, rig: Rig, config: BridgeConfig) -> None:
        def publisher(topic: interfaces.Topic) -> Any:
            return node.create_publisher(interfaces.message_class(topic.type), topic.name, topic.qos.profile())

        self._clock = publisher(interfaces.CLOCK) if config.mode == "lockstep" else None
        self._joints, self._gripper = publisher(interfaces.JOINT_STATES), publisher(interfaces.GRIPPER_STATES)
        self._state, self._diagnostics = publisher(interfaces.SIM_STATE), publisher(interfaces.DIAGNOSTICS)
        self._images = {view: publisher(interfaces.camera_topic(view)) for view in rig.adapter.views}
        self._image_msgs = {view: image_msg(view, config.width_px, config.height_px) for view in rig.adapter.views}
        self._infos = {view: publisher(interfaces.camera_info_topic(view)) for view in rig.adapter.views}
        self._info_msgs: dict[str, CameraInfo] = {}
        self._transforms = publisher(interfaces.TF_STATIC)
        self._joint_msg = _joint_msg(rig.arm.joint_names, rig.arm.base_frame)
        self._gripper_msg = _joint_msg(rig.arm.gripper_joint_names, "")
        self._half_width_m = rig.arm.gripper_width_m / 2
        self._joint_every_ns = 1_000_000_000 // config.joint_state_rate_hz
        self._joint_last_ns = 0

    def subscribers(self) -> int:
        """How many listen to the clock, the joints and the gripper."""
        publishers = [p for p in (self._clock, self._joints, self._gripper) if p is not None]
        return sum(p.get_subscription_count() for p in publishers)

    def clock(self, now_ns: int) -> None:
        """Publish /clock."""
        if self._clock is not None:
            self._clock.publish(Clock(clock=to_time(now_ns)))

    def joints(self, samples: list[JointSample]) -> None:
        """Publish joint states, those skipped that come sooner than the configured rate allows; never the last."""
        msg = self._joint_msg
        for i, sample in enumerate(samples):
            if sample.stamp_ns - self._joint_last_ns < self._joint_every_ns and i + 1 < len(samples):
                continue
            self._joint_last_ns = sample.stamp_ns
            msg.header.stamp = to_time(sample.stamp_ns)
            for field, values in ((msg.position, sample.positions), (msg.velocity, sample.velocities)):
                np.frombuffer(field)[:] = values
            np.frombuffer(msg.effort)[:] = sample.efforts
            self._joints.publish(msg)

    def gripper(self, opening: float, now_ns: int) -> None:
        """Publish the finger joints, each half of the width."""
        self._gripper_msg.header.stamp = to_time(now_ns)
        np.frombuffer(self._gripper_msg.position)[:] = opening * self._half_width_m
        self._gripper.publish(self._gripper_msg)

    def cameras(self, rig: Rig) -> None:
        """Publish where the cameras are, and keep what `images` says of each: after every reset."""
        frames = {"base": rig.arm.base_frame, "flange": rig.arm.base_frame.removesuffix("link0") + FLANGE}
        models = rig.adapter.cameras()
        self._info_msgs = {view: camera_info_msg(view, model) for view, model in models.items()}
        own = rig.adapter.nominal_cameras()
        moved = {view: model for view, model in own.items() if not np.array_equal(model.pose, models[view].pose)}
        transforms = [
            transform_msg(frame(view), model, frames[model.parent], rig.now_ns)
            for frame, cameras in ((interfaces.optical_frame, models), (interfaces.trained_frame, moved))
            for view, model in cameras.items()
        ]
        self._transforms.publish(TFMessage(transforms=transforms))

    def images(self, images: dict[str, ImageArray], stamp_ns: int) -> None:
        """Publish every view."""
        for view, image in images.items():
            msg = self._image_msgs[view]
            msg.header.stamp = to_time(stamp_ns)
            np.frombuffer(msg.data, np.uint8).reshape(image.shape)[:] = image
            self._images[view].publish(msg)
            self._info_msgs[view].header.stamp = msg.header.stamp
            self._infos[view].publish(self._info_msgs[view])

    def sim_state(self, episode: Episode, rig: Rig, overrun_ns: int, poses: Mapping[str, FloatArray]) -> None:
        """Publish the privileged state; `poses` are those of `Privileged`."""
        scene = episode.scene
        msg = SimState(reset_id=episode.reset_id, task=scene.task, seed=scene.seed, step=episode.step)
        msg.header.stamp, msg.header.frame_id = to_time(rig.now_ns), rig.arm.base_frame
        msg.max_steps, msg.overrun_ns = episode.max_steps, overrun_ns
        msg.success, msg.success_once, msg.done = episode.success, episode.success_once, episode.done
        for name, pose in poses.items():
            msg.names.append(name)
            msg.poses.append(_pose(pose.tolist()))
        self._state.publish(msg)

    def diagnostics(self, rig: Rig, refused: int, **counts: int) -> None:
        """Publish the judge's and the controller's counts, and others by name.

        Of these, `ended_reset` is the last reset whose episode is over.
        """
        judge = rig.judge
        violations, samples = (judge.violations, judge.samples) if judge else (0, 0)
        bad = violations or refused or rig.fault
        status = DiagnosticStatus(name="bridge", level=DiagnosticStatus.ERROR if bad else DiagnosticStatus.OK)
        status.message = rig.fault or ("limits violated" if violations else "commands refused" if refused else "ok")
        values = {"violations": violations, "setpoints": samples, "judged": int(judge is not None), "refused": refused}
        values |= counts
        status.values = [KeyValue(key=key, value=str(value)) for key, value in values.items()]
        msg = DiagnosticArray(status=[status])
        msg.header.stamp = to_time(rig.now_ns)
        self._diagnostics.publish(msg)


def image_msg(view: str, width: int, height: int) -> Image:
    """An image as realsense2_camera sends it, black."""
    msg = Image(height=height, width=width, encoding="rgb8", is_bigendian=0, step=3 * width)
    msg.header.frame_id = interfaces.optical_frame(view)
    msg.data = array.array("B", bytes(3 * width * height))
    return msg


def camera_info_msg(view: str, model: CameraModel) -> CameraInfo:
    """As realsense2_camera fills it for images without distortion: P is K without a baseline."""
    msg = CameraInfo(height=model.height_px, width=model.width_px, distortion_model="plumb_bob", d=[0.0] * 5)
    msg.header.frame_id = interfaces.optical_frame(view)
    msg.k, msg.r = model.intrinsics.ravel().tolist(), np.eye(3).ravel().tolist()
    msg.p = np.hstack([model.intrinsics, np.zeros((3, 1))]).ravel().tolist()
    return msg


def transform_msg(frame: str, model: CameraModel, parent_frame: str, stamp_ns: int) -> TransformStamped:
    """Where a camera is."""
    msg = TransformStamped(child_frame_id=frame)
    msg.header.stamp, msg.header.frame_id = to_time(stamp_ns), parent_frame
    t, q = msg.transform.translation, msg.transform.rotation
    t.x, t.y, t.z = model.pose[:3, 3].tolist()
    q.x, q.y, q.z, q.w = quaternion_xyzw(model.pose[:3, :3]).tolist()
    return msg


def _joint_msg(names: tuple[str, ...], frame: str) -> JointState:
    msg = JointState(name=list(names))
    msg.header.frame_id = frame
    msg.position, msg.velocity, msg.effort = (array.array("d", bytes(8 * len(names))) for _ in range(3))
    return msg


def _pose(values: list[float]) -> Pose:
    pose = Pose()
    pose.position.x, pose.position.y, pose.position.z = values[:3]
    pose.orientation.x, pose.orientation.y, pose.orientation.z, pose.orientation.w = values[3:]
    return pose
