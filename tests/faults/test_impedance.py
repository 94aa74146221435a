"""What reaches an impedance controller, which goes wherever its newest target is: of the node, with a time by hand."""

from __future__ import annotations

from collections.abc import Callable
from unittest.mock import Mock

import numpy as np
import pytest
from std_msgs.msg import String

from e0_policy.types import FloatArray
from e0_ros import interfaces
from tests.faults.rig import FR3, MS, Rig

pytestmark = pytest.mark.ros


def targets(r: Rig) -> dict[int, FloatArray]:
    """By time, as they are sent from now on."""
    sent: dict[int, FloatArray] = {}
    r.node._commanded = Mock(publish=lambda msg: sent.update({r.now_ns: np.array(msg.position)}))
    return sent


@pytest.mark.parametrize("end", [interfaces.DISARM, interfaces.HOLD, interfaces.STOP], ids=lambda s: s.name[4:])
def test_the_target_brakes_as_the_reference_does_whatever_ends_the_motion(rig: Callable[..., Rig], end) -> None:
    r = rig("output:=impedance", "source_silence_ms:=60000.0")
    sent = targets(r)
    r.move()
    assert r.call(end).success
    r.until(lambda: not np.abs(r.node.core.status(r.now_ns).reference.velocity).any())
    r.until(lambda: True)
    times, q = np.array(list(sent)), np.array(list(sent.values()))
    assert (np.diff(times) == 4 * MS).all(), "it never pauses"
    a = np.diff(q, 2, axis=0) / 0.004**2
    assert (np.abs(a).max(axis=0) <= FR3.acceleration).all()
    np.testing.assert_array_equal(q[-1], r.node.core.status(r.now_ns).reference.position)


def test_an_arm_that_stopped_by_itself_is_not_called_back_to_where_it_stood(rig: Callable[..., Rig]) -> None:
    """The target is set anew where the arm is measured when it is disarmed again, which a recovery does before it
    activates the controller, and not at any other time: to follow a measured arm is to let it sink.
    """
    r = rig("output:=impedance", "arm_fault_ms:=60000.0")
    sent = targets(r)
    r.until(lambda: r.node.core.status(r.now_ns).reference is not None)
    assert r.call(interfaces.ARM).success
    r.node._on_arm_fault(String(data="reflex: joint_reflex"))
    r.until(lambda: True)
    np.testing.assert_array_equal(sent[r.now_ns], FR3.home)
    at = FR3.home + 0.3
    r.measure = lambda: r.node.core.observe_joints(r.now_ns, FR3.joint_names, at, np.zeros(7))
    for _ in range(5):
        r.until(lambda: True)
    r.now_ns += 4 * MS
    r.node.tick()
    np.testing.assert_array_equal(sent[r.now_ns], FR3.home)
    assert r.call(interfaces.DISARM).success
    np.testing.assert_array_equal(list(sent.values())[-1], at)
    r.node._on_arm_fault(String(data=""))
    at = FR3.home + 0.2
    assert r.call(interfaces.DISARM).success
    np.testing.assert_array_equal(list(sent.values())[-1], FR3.home + 0.3)
