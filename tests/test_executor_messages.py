from __future__ import annotations

import math

import numpy as np
import pytest
from rclpy.serialization import deserialize_message, serialize_message
from trajectory_msgs.msg import JointTrajectory

from e0_ros.conversions import to_ns
from e0_ros.core.command import Command
from e0_ros.executor_messages import TrajectoryMessage, status_to_msg
from tests.core.driven import MS, Driven

pytestmark = pytest.mark.ros


def test_a_trajectory_message_tells_the_whole_command_and_nothing_of_the_one_before() -> None:
    d = Driven().arm_it()
    message, lengths = TrajectoryMessage(d.arm.joint_names), []
    d.offer(d.chunk([d.home + 0.01 * k for k in range(10)]))
    moving, still = d.tick().command, Command.rest(d.home, d.now_ns - 20 * MS)
    for command in (still, moving, still):
        sent = serialize_message(message.of(command))
        msg = deserialize_message(sent, JointTrajectory)
        assert tuple(msg.joint_names) == d.arm.joint_names
        start_ns = to_ns(msg.header.stamp)
        assert start_ns == d.now_ns - 20 * MS, "before receipt"
        times = [start_ns + to_ns(p.time_from_start) for p in msg.points]
        assert times == command.times_ns.tolist()
        for part, name in enumerate(("positions", "velocities", "accelerations")):
            np.testing.assert_array_equal([getattr(p, name) for p in msg.points], command.state[part])
        lengths.append(len(msg.points))
    assert lengths[0] < lengths[1] > lengths[2], "it grows and shrinks"


def test_a_status_message_before_and_while_running() -> None:
    d = Driven()
    msg = status_to_msg(d.status, d.now_ns, 3, d.arm.joint_names)
    assert (msg.mode, msg.commands, msg.source, to_ns(msg.header.stamp)) == (0, 3, "", d.now_ns)
    assert msg.reason and math.isnan(msg.gripper_opening)
    d.arm_it()
    d.offer(d.chunk([d.home] * 10, sequence=7))
    tick = d.tick()
    msg = status_to_msg(tick.status, d.now_ns, 4, d.arm.joint_names)
    assert (msg.mode, msg.source, msg.session, msg.sequence) == (2, "policy", "a", 7)
    assert to_ns(msg.t0) == d.now_ns and to_ns(msg.committed_until) == d.now_ns + 20 * MS
    np.testing.assert_array_equal(msg.positions, d.home)
    assert msg.gripper_opening == 1.0 and msg.chunks_accepted == 1 and msg.chunks_refused == 0
