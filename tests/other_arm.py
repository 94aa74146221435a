"""An arm of another make as its maker describes it: six joints, a URDF, MoveIt's joint limits, no known kinematics."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

JOINTS = ("base", "shoulder", "elbow", "wrist_1", "wrist_2", "wrist_3")
_LOWER_UPPER_VELOCITY = {
    "base": (-6.0, 6.0, 2.0), "shoulder": (-2.5, 2.5, 2.0), "elbow": (-3.0, 3.0, 3.0), "wrist_1": (-6.0, 6.0, 3.0),
    "wrist_2": (-6.0, 6.0, 3.0), "wrist_3": (-6.0, 6.0, 3.0),
}  # fmt: skip
_NARROWED = {
    "shoulder": {"has_position_limits": True, "min_position": -2.0, "max_position": 2.0},
    "wrist_3": {"has_velocity_limits": True, "max_velocity": 1.5},
    "wrist_2": {"has_velocity_limits": False, "max_velocity": 0.1},
}
OWN: dict[str, Any] = {
    "name": "other",
    "base_frame": "base_link",
    "joint_names": list(JOINTS),
    "limits": {"urdf": "arm.urdf", "joint_limits": "joint_limits.yaml"},
    "home": [0.0, -0.8, 1.2, 0.0, 0.5, 0.0],
    "kinematics": "none",
    "workspace_lower": [float("-inf")] * 3,
    "workspace_upper": [float("inf")] * 3,
    "speed_m_s": float("inf"),
    "gripper_joint_names": ["finger"],
    "gripper_width_m": 0.1,
}


def write_arm(folder: Path, files: bool = True, **changes: Any) -> Path:
    """Its embodiment file, with these keys changed; without `files` the two others are as they are."""
    if files:
        joints = "".join(
            f'<joint name="{name}" type="revolute"><limit lower="{low}" upper="{high}" velocity="{v}"/></joint>'
            for name, (low, high, v) in _LOWER_UPPER_VELOCITY.items()
        )
        (folder / "arm.urdf").write_text(f'<robot name="other"><link name="base_link"/>{joints}</robot>')
        shared = {"has_acceleration_limits": True, "max_acceleration": 8.0, "has_jerk_limits": True, "max_jerk": 400.0}
        limits = {name: shared | _NARROWED.get(name, {}) for name in JOINTS}
        (folder / "joint_limits.yaml").write_text(yaml.safe_dump({"joint_limits": limits}))
    path = folder / "other.yaml"
    path.write_text(yaml.safe_dump(OWN | changes))
    return path
