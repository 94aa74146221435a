"""Against Pinocchio, as SAPIEN carries it: pose and Jacobian of the tool of an arm built from its URDF."""

from __future__ import annotations

import numpy as np
import pytest

sapien = pytest.importorskip("sapien", reason="SAPIEN is not installed (extra [sim]), and with it no Pinocchio")

from e0_policy.embodiment import load_embodiment  # noqa: E402
from e0_policy.kinematics import tcp_pose_and_jacobian  # noqa: E402

# Joint origins of franka_description (robots/fr3/kinematics.yaml): x, y, z [m] and roll in quarter turns.
ORIGINS = (
    (0.0, 0.0, 0.333, 0), (0.0, 0.0, 0.0, -1), (0.0, -0.316, 0.0, 1), (0.0825, 0.0, 0.0, 1),
    (-0.0825, 0.384, 0.0, -1), (0.0, 0.0, 0.0, 1), (0.088, 0.0, 0.0, 1),
)  # fmt: skip
HAND_M = 0.107 + 0.1034
LINKS, JOINTS = [f"link{k}" for k in range(8)] + ["tool"], [f"joint{k + 1}" for k in range(7)]
INERTIA = '<inertial><mass value="1"/><inertia ixx="1" ixy="0" ixz="0" iyy="1" iyz="0" izz="1"/></inertial>'


def urdf() -> str:
    links = "".join(f'<link name="{name}">{INERTIA}</link>' for name in LINKS)
    joints = "".join(
        f'<joint name="{name}" type="revolute"><parent link="link{k}"/><child link="link{k + 1}"/><axis xyz="0 0 1"/>'
        f'<origin xyz="{x} {y} {z}" rpy="{roll * np.pi / 2!r} 0 0"/>'
        '<limit lower="-9" upper="9" effort="1" velocity="1"/></joint>'
        for k, (name, (x, y, z, roll)) in enumerate(zip(JOINTS, ORIGINS, strict=True))
    )
    hand = f'<origin xyz="0 0 {HAND_M}" rpy="0 0 {-np.pi / 4!r}"/>'
    fixed = f'<joint name="hand" type="fixed"><parent link="link7"/><child link="tool"/>{hand}</joint>'
    return f'<robot name="arm">{links}{joints}{fixed}</robot>'


def test_pose_and_jacobian_of_the_tool_are_pinocchios() -> None:
    model = sapien.PinocchioModel(urdf(), np.zeros(3))
    model.set_joint_order(JOINTS)
    model.set_link_order(LINKS)
    rng, arm, tool = np.random.default_rng(0), load_embodiment("fr3"), LINKS.index("tool")
    for _ in range(200):
        q = rng.uniform(arm.position_lower, arm.position_upper)
        model.compute_forward_kinematics(q)
        pose, jacobian = tcp_pose_and_jacobian(q)
        theirs = model.get_link_pose(tool).to_transformation_matrix()
        np.testing.assert_allclose(pose, theirs, atol=1e-6)  # a pose of SAPIEN is in single precision
        model.compute_full_jacobian(q)
        local = model.get_link_jacobian(tool, local=True)
        turn = np.kron(np.eye(2), pose[:3, :3])
        np.testing.assert_allclose(jacobian, turn @ local, atol=1e-12)
