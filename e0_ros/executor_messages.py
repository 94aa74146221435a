"""The chunk executor's outputs as messages."""

from __future__ import annotations

import array
from dataclasses import replace

import numpy as np
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from e0_msgs.msg import ActionChunk as ChunkMsg
from e0_msgs.msg import ExecutorState
from e0_policy.types import FloatArray
from e0_ros.conversions import chunk_to_msg, to_time
from e0_ros.core.command import Command
from e0_ros.core.executor_types import Status, Tick


class TrajectoryMessage:
    """A trajectory message that is filled anew for each command: to make its points takes ten times as long."""

    def __init__(self, joint_names: tuple[str, ...]) -> None:
        self._message = JointTrajectory(joint_names=list(joint_names))
        self._joints = len(joint_names)
        self._points: list[JointTrajectoryPoint] = []
        self._values: list[tuple[FloatArray, ...]] = []

    def of(self, command: Command) -> JointTrajectory:
        """The message of a command, until the next call. Every point has position, velocity and acceleration.

        Its stamp is the command's start.
        """
        count = len(command.times_ns)
        while len(self._points) < count:
            self._grow()
        message = self._message
        message.header.stamp = to_time(command.start_ns)
        message.points = self._points[:count]
        offsets = (command.times_ns - command.start_ns).tolist()
        for point, values, offset_ns, *state in zip(self._points, self._values, offsets, *command.state, strict=False):
            point.time_from_start.sec, point.time_from_start.nanosec = divmod(offset_ns, 10**9)
            for kept, new in zip(values, state, strict=True):
                kept[:] = new
        return message

    def _grow(self) -> None:
        point = JointTrajectoryPoint()
        point.positions, point.velocities, point.accelerations = (
            array.array("d", bytes(8 * self._joints)) for _ in range(3)
        )
        self._points.append(point)
        fields = point.positions, point.velocities, point.accelerations
        self._values.append(tuple(np.frombuffer(field) for field in fields))


def status_to_msg(status: Status, now_ns: int, commands: int, joint_names: tuple[str, ...]) -> ExecutorState:
    """The executor's state at `now_ns`."""
    msg = ExecutorState(mode=int(status.mode), reason=status.reason, commands=commands)
    msg.header.stamp = to_time(now_ns)
    if chunk := status.chunk:
        msg.source, msg.session, msg.sequence = chunk.source, chunk.session, chunk.sequence
        msg.t0 = to_time(chunk.t0_ns)
    msg.committed_until = to_time(status.committed_until_ns)
    msg.chunks_accepted, msg.chunks_refused = status.accepted, status.refused
    msg.last_refusal = status.last_refusal
    if status.reference is not None:
        msg.joint_names = list(joint_names)
        msg.positions, msg.velocities = floats(status.reference.position), floats(status.reference.velocity)
    msg.gripper_opening = status.gripper_opening
    return msg


def step_to_msg(tick: Tick, now_ns: int) -> ChunkMsg:
    """The one row of a control step at `now_ns`, as a chunk of its own; without a row STATUS_NONE and the reason."""
    status = tick.status
    if tick.row is None or status.chunk is None:
        msg = ChunkMsg(status=ChunkMsg.STATUS_NONE, reason=status.reason)
        msg.header.stamp = to_time(now_ns)
        return msg
    return chunk_to_msg(replace(status.chunk, rows=tick.row[None], t0_ns=now_ns, uncertainty=None), now_ns)


def floats(values: FloatArray) -> array.array[float]:
    """What a float64[] field takes without a copy per number."""
    return array.array("d", values.tobytes())
