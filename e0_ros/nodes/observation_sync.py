"""observation_sync: cameras, joint states and gripper states in, one observation per reference image out.

Sensor messages are kept as they came on the wire; only those that end up in an observation are decoded. That keeps
the callback of 1 kHz joint states to reading a stamp, beside images in the same process.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import cv2
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from sensor_msgs.msg import CompressedImage, Image, JointState
from std_msgs.msg import String

from e0_msgs.srv import SetInstruction
from e0_policy.embodiment import load_embodiment
from e0_policy.types import FloatArray, ImageArray, Stale
from e0_ros import diagnostics, interfaces
from e0_ros.config import ConfigError, check, declare_parameters, setting
from e0_ros.conversions import deserialize, observation_to_msg, stale_to_msg, stamp_of
from e0_ros.core.decode import MAX_IMAGE_BYTES, decode_compressed, decode_raw, fingerprint, resize_with_pad
from e0_ros.core.joint_names import gripper_opening, pick_joints
from e0_ros.core.observation_sync import ObservationSync, Result
from e0_ros.core.pairing import GRIPPER, JOINTS, SyncConfig
from e0_ros.introductions import Introductions
from e0_ros.process import run_node

MAX_INSTRUCTION = 512
LOCKSTEP_TIMEOUT_S = 10.0
JOINT_HISTORY = 1000
"""Joint states kept for this node: one second at 1 kHz, in case the process does not get the CPU for a while."""
HEADER_BYTES = 64
"""A serialised message's stamp lies within this; a fingerprint of pixels starts behind it."""


@dataclass(frozen=True)
class ObservationNodeConfig:
    """What the node needs beside the pairing core's `SyncConfig`."""

    embodiment: str = setting("fr3", "embodiment whose joints are expected")
    image_height: int = setting(224, "height of the policy's images", unit="px", low=1, high=4096)
    image_width: int = setting(224, "width of the policy's images", unit="px", low=1, high=4096)
    compressed: bool = setting(False, "subscribe to the cameras' compressed topics")
    instruction: str = setting("", "instruction at start")

    def __post_init__(self) -> None:
        check(self)
        check_instruction(self.instruction)


def check_instruction(text: str) -> None:
    """Refuse an instruction that is too long or holds control characters.

    Raises:
        ConfigError: what was got and what is allowed.

    """
    if len(text) > MAX_INSTRUCTION or not (text.isprintable() or not text):
        raise ConfigError(
            f"instruction of {len(text)} characters {text[:40]!r}; allowed are {MAX_INSTRUCTION} printable characters"
        )


class ObservationSyncNode(Node):
    """The shell: a callback reads a stamp, calls the core and publishes what it answers."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__("observation_sync", **kwargs)
        self._config = declare_parameters(self, ObservationNodeConfig)
        self._sync_config = config = declare_parameters(self, SyncConfig)
        self._embodiment = load_embodiment(self._config.embodiment)
        self._core = ObservationSync(config, self._read_image, self._read_joints, self._read_gripper)
        self._instruction = self._config.instruction
        self._sequence = 0
        self._broken = ""
        self._waiting: tuple[int, float] = (-1, 0.0)
        self._before: dict[str, int] = {}
        self._heard: list[str] = []
        self._observations = self._publisher(interfaces.OBSERVATION)
        self._instructions = self._publisher(interfaces.INSTRUCTION)
        self._diagnostics = self._publisher(interfaces.DIAGNOSTICS)
        camera = interfaces.compressed_camera_topic if self._config.compressed else interfaces.camera_topic
        for view in config.views:
            self._subscribe(camera(view), partial(self._on_image, view))
        joints = replace(interfaces.JOINT_STATES, qos=replace(interfaces.JOINT_STATES.qos, depth=JOINT_HISTORY))
        self._subscribe(joints, partial(self._on_state, JOINTS, self._core.add_joints))
        self._subscribe(interfaces.GRIPPER_STATES, partial(self._on_state, GRIPPER, self._core.add_gripper))
        self._introductions = Introductions(self)
        service = interfaces.SET_INSTRUCTION
        self.create_service(interfaces.message_class(service.type), service.name, self._on_instruction)
        self._diagnosed_s = time.monotonic()
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        if not config.lockstep:
            self.create_timer(0.01, lambda: self._publish(self._core.poll(self._now_ns())), clock=steady)
        self.create_timer(1.0, self._diagnose, clock=steady)
        self._instructions.publish(String(data=self._instruction))

    def _publisher(self, topic: interfaces.Topic) -> Any:
        return self.create_publisher(interfaces.message_class(topic.type), topic.name, topic.qos.profile())

    def _subscribe(self, topic: interfaces.Topic, callback: Any) -> None:
        kind = interfaces.message_class(topic.type)
        self.create_subscription(kind, topic.name, callback, topic.qos.profile(), raw=True)
        self._heard.append(topic.name)

    def _now_ns(self) -> int:
        return int(self.get_clock().now().nanoseconds)

    def _on_image(self, view: str, raw: bytes) -> None:
        if len(raw) > MAX_IMAGE_BYTES + 4096:
            self._broken = f"{view}: a message of {len(raw)} bytes; allowed are 64 MiB"
            return
        if (stamp_ns := self._stamp(view, raw)) is not None:
            pixels = fingerprint(raw, HEADER_BYTES)
            self._publish(self._core.add_image(view, stamp_ns, raw, self._now_ns(), pixels))

    def _on_state(self, stream: str, add: Any, raw: bytes) -> None:
        stamp_ns = self._stamp(stream, raw)
        if stamp_ns is not None and (results := add(stamp_ns, raw, self._now_ns())):
            self._publish(results)

    def _stamp(self, stream: str, raw: bytes) -> int | None:
        """A message's stamp; None, and a word in /diagnostics, if it is none."""
        try:
            return stamp_of(raw)
        except ValueError as error:
            self._broken = f"{stream}: {error}"
            return None

    def _read_image(self, view: str, raw: bytes) -> ImageArray:
        if self._config.compressed:
            compressed = deserialize(raw, CompressedImage)
            image = decode_compressed(compressed.format, compressed.data)
        else:
            msg = deserialize(raw, Image)
            image = decode_raw(msg.encoding, msg.height, msg.width, msg.step, msg.is_bigendian, msg.data)
        return resize_with_pad(image, self._config.image_height, self._config.image_width)

    def _read_joints(self, raw: bytes) -> FloatArray:
        msg = deserialize(raw, JointState)
        return pick_joints(msg.name, msg.position, self._embodiment.joint_names)

    def _read_gripper(self, raw: bytes) -> float:
        msg, arm = deserialize(raw, JointState), self._embodiment
        return gripper_opening(msg.name, msg.position, arm.gripper_joint_names, arm.gripper_width_m)

    def _publish(self, results: Sequence[Result]) -> None:
        arm = self._embodiment
        for result in results:
            if isinstance(result, Stale):
                msg = stale_to_msg(result, self._sequence, arm.base_frame, arm.name, self._now_ns())
            else:
                msg = observation_to_msg(result, arm.base_frame, self._now_ns())
                msg.sequence, msg.instruction, msg.embodiment = self._sequence, self._instruction, arm.name
                msg.joint_names = list(arm.joint_names)
            self._observations.publish(msg)
            self._sequence += 1

    def _on_instruction(
        self, request: SetInstruction.Request, response: SetInstruction.Response
    ) -> SetInstruction.Response:
        try:
            check_instruction(request.instruction)
        except ConfigError as error:
            response.success, response.message = False, str(error)
            return response
        if self._sync_config.lockstep:
            self._introductions.meet(self._heard)
        self._instruction = request.instruction
        self._instructions.publish(String(data=self._instruction))
        response.success = True
        return response

    def _diagnose(self) -> None:
        core, last = self._core, self._core.last
        values: dict[str, object] = {
            "observations": core.answered[""],
            "stale": core.answered.total() - core.answered[""],
        }
        now_ns, elapsed_s = self._now_ns(), max(time.monotonic() - self._diagnosed_s, 1e-3)
        self._diagnosed_s += elapsed_s
        for name, stream in core.streams.items():
            values[f"{name} rate [Hz]"] = (stream.received - self._before.get(name, 0)) / elapsed_s
            values[f"{name} expected [Hz]"] = 1e9 / stream.period_ns
            values[f"{name} gap [ms]"], values[f"{name} bound [ms]"] = (
                stream.take_longest_ns() / 1e6,
                stream.bound_ns / 1e6,
            )
            values[f"{name} age [ms]"] = -1.0 if stream.newest_ns is None else (now_ns - stream.newest_ns) / 1e6
            values[f"{name} duplicates"], values[f"{name} dropped"] = stream.duplicates, stream.dropped
            values[f"{name} stale"] = core.answered[name]
            self._before[name] = stream.received
        level, message = diagnostics.OK, "observations flow"
        if isinstance(last, Stale):
            level, message = diagnostics.ERROR, f"{last.stream}: {last.reason}"
        elif last is None:
            level, message = diagnostics.WARN, "no reference image yet"
        else:
            values |= {f"{name} skew [ms]": ns / 1e6 for name, ns in last.view_skew_ns.items()}
            values["joints skew [ms]"], values["gripper age at image [ms]"] = (
                last.joint_skew_ns / 1e6,
                last.gripper_age_ns / 1e6,
            )
        if level == diagnostics.OK and (disagreement := core.disagreement):
            level, message = diagnostics.WARN, disagreement
        if overdue := self._overdue():
            level, message = diagnostics.ERROR, overdue
        if self._broken:
            level, message, self._broken = diagnostics.ERROR, self._broken, ""
        self._diagnostics.publish(diagnostics.diagnostics_msg("observation_sync", level, message, values, now_ns))

    def _overdue(self) -> str:
        """In lock-step: which stream has kept a tick waiting longer than the timeout."""
        waiting = self._core.waiting if self._sync_config.lockstep else None
        if waiting is None:
            self._waiting = (-1, 0.0)
            return ""
        if waiting[0] != self._waiting[0]:
            self._waiting = (waiting[0], time.monotonic())
        waited_s = time.monotonic() - self._waiting[1]
        if waited_s < LOCKSTEP_TIMEOUT_S:
            return ""
        text = f"tick {waiting[0]} has waited {waited_s:.0f} s for {waiting[1]}"
        self.get_logger().error(text, throttle_duration_sec=LOCKSTEP_TIMEOUT_S)
        return text


def main(args: Sequence[str] | None = None) -> int:
    """Run the node. Exit status 2: a parameter is wrong."""
    cv2.setNumThreads(1)
    return run_node(ObservationSyncNode, args)


if __name__ == "__main__":
    sys.exit(main())
