"""Between messages and the plain values of `e0_policy.types`. The only place that knows both."""

from __future__ import annotations

import array
import struct
from typing import Any

import numpy as np
from builtin_interfaces.msg import Time
from geometry_msgs.msg import Pose
from rclpy.serialization import deserialize_message
from sensor_msgs.msg import Image

from e0_msgs.msg import ActionChunk as ChunkMsg
from e0_msgs.msg import Observation as ObservationMsg
from e0_policy.types import (
    MAX_COLUMNS,
    MAX_ROWS,
    ActionChunk,
    ChunkError,
    ImageArray,
    NoChunk,
    Observation,
    Representation,
    Stale,
)

NS = 1_000_000_000
_LAST_NS = 2**31 * NS - 1


def to_time(ns: int) -> Time:
    """A ROS time message from nanoseconds; the nearest that there is, for a stamp may be anything that was received."""
    sec, nanosec = divmod(min(max(ns, -_LAST_NS - 1), _LAST_NS), NS)
    return Time(sec=sec, nanosec=nanosec)


def to_ns(time: Time) -> int:
    """Nanoseconds of a ROS time message."""
    return int(time.sec) * NS + int(time.nanosec)


def stamp_of(raw: bytes) -> int:
    """Stamp [ns] of a serialised message that begins with a std_msgs/Header or a Time (CDR: 4 bytes of header, then
    int32 s, uint32 ns in the byte order that the second byte gives).

    Raises:
        ValueError: fewer bytes than a stamp.

    """
    if len(raw) < 12:
        raise ValueError(f"a message of {len(raw)} bytes has no header")
    sec, nanosec = struct.unpack_from("<iI" if raw[1] & 1 else ">iI", raw, 4)
    return int(sec) * NS + int(nanosec)


def deserialize(raw: bytes, kind: Any) -> Any:
    """The message of a type.

    Raises:
        ValueError: bytes that are none.

    """
    try:
        return deserialize_message(raw, kind)
    except Exception as error:  # the middleware names no type for it
        raise ValueError(f"no {kind.__name__}: {error}") from None


def pose_values(pose: Pose) -> list[float]:
    """Position [m], then quaternion xyzw, of a pose."""
    p, q = pose.position, pose.orientation
    return [p.x, p.y, p.z, q.x, q.y, q.z, q.w]


def image_to_msg(image: ImageArray, stamp_ns: int, frame_id: str) -> Image:
    """An rgb8 image message from `uint8 (height, width, 3)`."""
    height, width, _ = image.shape
    msg = Image(height=height, width=width, encoding="rgb8", is_bigendian=0, step=3 * width)
    msg.header.stamp = to_time(stamp_ns)
    msg.header.frame_id = frame_id
    msg.data = array.array("B", np.ascontiguousarray(image).tobytes())
    return msg


def rgb8_from_msg(msg: Image) -> ImageArray:
    """View of an rgb8 message's pixels as `uint8 (height, width, 3)`, without a copy.

    Raises:
        ValueError: another encoding, or data that does not fit the size.

    """
    if msg.encoding != "rgb8" or msg.step != 3 * msg.width or len(msg.data) != msg.step * msg.height:
        raise ValueError(
            f"image is {msg.encoding} {msg.width} x {msg.height}, step {msg.step}, {len(msg.data)} bytes; "
            "an observation carries packed rgb8"
        )
    return np.frombuffer(msg.data, np.uint8).reshape(msg.height, msg.width, 3)


def observation_to_msg(observation: Observation, base_frame: str, now_ns: int) -> ObservationMsg:
    """An observation of STATUS_OK; `now_ns` is the time of publishing."""
    msg = ObservationMsg(status=ObservationMsg.STATUS_OK, sequence=observation.sequence)
    msg.header.stamp = to_time(observation.stamp_ns)
    msg.header.frame_id = base_frame
    msg.embodiment = observation.embodiment
    msg.instruction = observation.instruction
    for name, image in observation.views.items():
        skew_ns = observation.view_skew_ns.get(name, 0)
        msg.view_names.append(name)
        msg.views.append(image_to_msg(image, observation.stamp_ns + skew_ns, name))
        msg.view_skew_ns.append(skew_ns)
    msg.joint_names = list(observation.joint_names)
    msg.joint_positions = observation.joint_positions.tolist()
    msg.joint_skew_ns = observation.joint_skew_ns
    msg.gripper_opening = float(observation.gripper_opening)
    msg.gripper_age_ns = observation.gripper_age_ns
    msg.age_ns = now_ns - observation.stamp_ns
    return msg


def stale_to_msg(stale: Stale, sequence: int, base_frame: str, embodiment: str, now_ns: int) -> ObservationMsg:
    """An observation of STATUS_STALE."""
    msg = ObservationMsg(status=ObservationMsg.STATUS_STALE, sequence=sequence, embodiment=embodiment)
    msg.header.stamp = to_time(stale.stamp_ns)
    msg.header.frame_id = base_frame
    msg.stale_stream = stale.stream
    msg.stale_reason = stale.reason
    msg.stale_age_ns = stale.age_ns
    msg.age_ns = now_ns - stale.stamp_ns
    return msg


def observation_from_msg(msg: ObservationMsg) -> Observation | Stale:
    """The value of an observation message.

    Raises:
        ValueError: fields that contradict each other or an image that is not packed rgb8.

    """
    stamp_ns = to_ns(msg.header.stamp)
    if msg.status != ObservationMsg.STATUS_OK:
        return Stale(stamp_ns, msg.stale_stream, msg.stale_reason, msg.stale_age_ns)
    if not len(msg.view_names) == len(msg.views) == len(msg.view_skew_ns):
        raise ValueError("an observation's view_names, views and view_skew_ns must have one length")
    if len(msg.joint_names) != len(msg.joint_positions):
        raise ValueError("an observation's joint_names and joint_positions must have one length")
    return Observation(
        stamp_ns=stamp_ns,
        views={name: rgb8_from_msg(view) for name, view in zip(msg.view_names, msg.views, strict=True)},
        joint_positions=np.array(msg.joint_positions, dtype=np.float64),
        gripper_opening=msg.gripper_opening,
        instruction=msg.instruction,
        embodiment=msg.embodiment,
        joint_names=tuple(msg.joint_names),
        view_skew_ns=dict(zip(msg.view_names, msg.view_skew_ns, strict=True)),
        joint_skew_ns=msg.joint_skew_ns,
        gripper_age_ns=msg.gripper_age_ns,
        sequence=msg.sequence,
    )


def chunk_to_msg(chunk: ActionChunk | NoChunk, now_ns: int, frame_id: str = "") -> ChunkMsg:
    """A chunk message from a plan or from word that there is none; `now_ns` is the time of publishing."""
    msg = ChunkMsg(source=chunk.source, session=chunk.session, sequence=chunk.sequence)
    msg.header.stamp = to_time(now_ns)
    msg.header.frame_id = frame_id
    msg.in_reply_to = to_time(chunk.in_reply_to_ns)
    if isinstance(chunk, NoChunk):
        msg.status, msg.reason = ChunkMsg.STATUS_KEEP if chunk.keep else ChunkMsg.STATUS_NONE, chunk.reason
        return msg
    msg.status = ChunkMsg.STATUS_OK
    msg.t0, msg.period_ns = to_time(chunk.t0_ns), chunk.period_ns
    msg.representation = int(chunk.representation)
    msg.embodiment, msg.joint_names = chunk.embodiment, list(chunk.joint_names)
    msg.rows, msg.columns = chunk.rows.shape
    msg.data = array.array("d", np.ascontiguousarray(chunk.rows).tobytes())
    if chunk.uncertainty is not None:
        msg.uncertainty = array.array("f", np.asarray(chunk.uncertainty, np.float32).tobytes())
    msg.latency_ns, msg.seed, msg.checkpoint = chunk.latency_ns, chunk.seed, chunk.checkpoint
    return msg


def chunk_from_msg(msg: ChunkMsg) -> ActionChunk | NoChunk:
    """The value of a chunk message, with every size checked before anything is reshaped.

    Raises:
        ChunkError: sizes that contradict each other, an unknown representation, or what `ActionChunk` refuses.

    """
    if msg.status in (ChunkMsg.STATUS_NONE, ChunkMsg.STATUS_KEEP):
        keep = msg.status == ChunkMsg.STATUS_KEEP
        return NoChunk(to_ns(msg.in_reply_to), msg.reason, msg.source, msg.session, msg.sequence, keep)
    if not (1 <= msg.rows <= MAX_ROWS and 1 <= msg.columns <= MAX_COLUMNS):
        raise ChunkError(
            f"chunk has {msg.rows} rows x {msg.columns} columns; allowed is 1..{MAX_ROWS} x 1..{MAX_COLUMNS}"
        )
    if len(msg.data) != msg.rows * msg.columns:
        raise ChunkError(f"chunk of {msg.rows} rows x {msg.columns} columns carries {len(msg.data)} numbers")
    if msg.representation not in Representation._value2member_map_:
        raise ChunkError(f"representation {msg.representation} is unknown; allowed are 0, 1, 2 (see ActionChunk.msg)")
    return ActionChunk(
        rows=np.array(msg.data, dtype=np.float64).reshape(msg.rows, msg.columns),
        t0_ns=to_ns(msg.t0),
        period_ns=msg.period_ns,
        source=msg.source,
        session=msg.session,
        sequence=msg.sequence,
        representation=Representation(msg.representation),
        embodiment=msg.embodiment,
        joint_names=tuple(msg.joint_names),
        in_reply_to_ns=to_ns(msg.in_reply_to),
        uncertainty=np.array(msg.uncertainty, dtype=np.float32) if len(msg.uncertainty) else None,
        latency_ns=msg.latency_ns,
        seed=msg.seed,
        checkpoint=msg.checkpoint,
    )
