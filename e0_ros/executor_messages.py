"""The chunk executor's outputs as messages."""

from __future__ import annotations

import array

from builtin_interfaces.msg import Duration
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from e0_msgs.msg import ExecutorState
from e0_policy.types import FloatArray
from e0_ros.conversions import to_time
from e0_ros.core.command import Command
from e0_ros.core.executor_types import Status


def trajectory_to_msg(command: Command, joint_names: tuple[str, ...]) -> JointTrajectory:
    """A trajectory whose stamp is the command's start; every point has position, velocity and acceleration."""
    msg = JointTrajectory(joint_names=list(joint_names))
    msg.header.stamp = to_time(command.start_ns)
    offsets = (command.times_ns - command.start_ns).tolist()
    for offset_ns, q, v, a in zip(offsets, *command.state, strict=True):
        point = JointTrajectoryPoint()
        point.positions, point.velocities, point.accelerations = floats(q), floats(v), floats(a)
        point.time_from_start = Duration(sec=offset_ns // 10**9, nanosec=offset_ns % 10**9)
        msg.points.append(point)
    return msg


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


def floats(values: FloatArray) -> array.array[float]:
    """What a float64[] field takes without a copy per number."""
    return array.array("d", values.tobytes())
