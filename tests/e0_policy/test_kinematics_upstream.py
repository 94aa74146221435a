"""Against Pinocchio, where it is installed (`pip install pin`): frames and Jacobian of an arm built from its URDF."""

from __future__ import annotations

import numpy as np
import pytest

pin = pytest.importorskip("pinocchio", reason="Pinocchio is not installed; pip install pin")

from e0_policy.embodiment import load_embodiment  # noqa: E402
from e0_policy.kinematics import tcp_pose_and_jacobian  # noqa: E402

# Joint origins of franka_description (robots/fr3/kinematics.yaml): x, y, z [m] and roll in quarter turns.
ORIGINS = (
    (0.0, 0.0, 0.333, 0), (0.0, 0.0, 0.0, -1), (0.0, -0.316, 0.0, 1), (0.0825, 0.0, 0.0, 1),
    (-0.0825, 0.384, 0.0, -1), (0.0, 0.0, 0.0, 1), (0.088, 0.0, 0.0, 1),
)  # fmt: skip
HAND = (0.0, 0.0, 0.107 + 0.1034)


def test_pose_and_jacobian_of_the_tool_are_pinocchios() -> None:
    model, joint = pin.Model(), 0
    for k, (x, y, z, roll) in enumerate(ORIGINS):
        origin = pin.SE3(pin.utils.rotate("x", roll * np.pi / 2), np.array([x, y, z]))
        joint = model.addJoint(joint, pin.JointModelRZ(), origin, f"joint{k + 1}")
    hand = pin.SE3(pin.utils.rotate("z", -np.pi / 4), np.array(HAND))
    tool = model.addFrame(pin.Frame("tool", joint, 0, hand, pin.FrameType.OP_FRAME))
    data, rng, arm = model.createData(), np.random.default_rng(0), load_embodiment("fr3")
    for _ in range(200):
        q = rng.uniform(arm.position_lower, arm.position_upper)
        pin.framesForwardKinematics(model, data, q)
        pose, jacobian = tcp_pose_and_jacobian(q)
        np.testing.assert_allclose(pose, data.oMf[tool].homogeneous, atol=1e-12)
        theirs = pin.computeFrameJacobian(model, data, q, tool, pin.ReferenceFrame.LOCAL_WORLD_ALIGNED)
        np.testing.assert_allclose(jacobian, theirs, atol=1e-12)
