"""An arm and its gripper: names, limits and poses, from `config/embodiment/<name>.yaml`, or a file of one's own.

A file has every field of `Embodiment`. With `limits: {urdf: FILE, joint_limits: FILE}` what those files hold
(`arm_description`) need not be said again; what is said as well narrows it. The four `envelope_*` may then be left out.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass, fields
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from e0_policy.arm_description import DescriptionError, read_limits
from e0_policy.resources import config_dir
from e0_policy.types import FloatArray

Point = NDArray[np.float64]
"""`(3,)` [m] in the base frame."""
_FASTEST_M_S = 3.0
FRANKA, UNKNOWN = "franka", "none"
_FRANKA_JOINTS = 7


class EmbodimentError(ValueError):
    """An embodiment file is missing or wrong; the message names the file, what was got and what is allowed."""


@dataclass(frozen=True)
class Embodiment:
    """Names and limits of an arm with `n` joints. Vectors are `(n,)` in the order of `joint_names`.

    The position-dependent velocity envelope is Franka's (frankaemika/docs, control_parameters):
    `v_up(q) = min(velocity, max(0, -envelope_offset + sqrt(max(0, envelope_gain * (envelope_upper - q)))))`,
    mirrored for `v_low`. An arm without one has `envelope_gain` infinite.

    `kinematics` says whether it is known where the arm's parts are: "franka" (`e0_policy.kinematics`), or "none". With
    none nothing can be kept that is in metres, and no tool pose be reached: the workspace and the speed are infinite.
    """

    name: str
    joint_names: tuple[str, ...]
    position_lower: FloatArray  # rad
    position_upper: FloatArray  # rad
    velocity: FloatArray  # rad/s
    acceleration: FloatArray  # rad/s^2
    jerk: FloatArray  # rad/s^3
    envelope_gain: FloatArray  # rad/s^2, twice the braking deceleration
    envelope_offset: FloatArray  # rad/s
    envelope_lower: FloatArray  # rad
    envelope_upper: FloatArray  # rad
    home: FloatArray  # rad
    workspace_lower: Point  # m, the tool stays between these corners; the executor's settings narrow it
    workspace_upper: Point  # m
    speed_m_s: float  # fastest that any point of the arm may move
    gripper_joint_names: tuple[str, ...]
    gripper_width_m: float
    base_frame: str
    kinematics: str

    @property
    def has_kinematics(self) -> bool:
        """Whether `e0_policy.kinematics` are this arm's."""
        return self.kinematics == FRANKA

    @property
    def joints(self) -> int:
        """Number of arm joints `n`."""
        return len(self.joint_names)

    @property
    def columns(self) -> int:
        """Columns of a joint-position action row: the joints and the gripper."""
        return self.joints + 1


def embodiment_names() -> list[str]:
    """Names of the shipped embodiments."""
    return sorted(path.stem for path in (config_dir() / "embodiment").glob("*.yaml"))


@lru_cache
def load_embodiment(name: str) -> Embodiment:
    """Load a shipped embodiment by name, or one of your own by the path of its YAML file.

    Raises:
        EmbodimentError: unknown name (the closest one is named), unknown or missing key, wrong length or range, or
            kinematics that are not this arm's.

    """
    path = Path(name) if name.endswith((".yaml", ".yml")) else config_dir() / "embodiment" / f"{name}.yaml"
    if not path.is_file():
        known = embodiment_names()
        close = difflib.get_close_matches(name, known, 1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise EmbodimentError(f"no embodiment {name!r}; shipped are {', '.join(known)}{hint}")
    return _parse(path, yaml.safe_load(path.read_text(encoding="utf-8")))


def _parse(path: Path, data: Any) -> Embodiment:
    if not isinstance(data, dict):
        raise EmbodimentError(f"{path}: a mapping of keys to values is needed, got {type(data).__name__}")
    known = {f.name for f in fields(Embodiment)}
    for key in data:
        if key not in known | {"limits"}:
            close = difflib.get_close_matches(str(key), sorted(known), 1)
            raise EmbodimentError(f"{path}: unknown key {key!r}" + (f"; did you mean {close[0]!r}?" if close else ""))
    if "limits" in data:
        data = _described(path, data)
    if missing := sorted(known - set(data)):
        described = ", which the files of its limits do not hold for every joint" if "limits" in data else ""
        raise EmbodimentError(f"{path}: missing key(s) {', '.join(missing)}{described}")
    joints = len(data["joint_names"])
    values: dict[str, Any] = {}
    for f in fields(Embodiment):
        value = data[f.name]
        if f.type == "FloatArray":
            values[f.name] = _vector(path, f.name, value, joints)
        elif f.type == "Point":
            values[f.name] = _vector(path, f.name, value, 3)
        elif f.name.endswith("joint_names"):
            values[f.name] = tuple(str(v) for v in value)
        else:
            values[f.name] = float(value) if f.type == "float" else str(value)
    embodiment = Embodiment(**values)
    if reason := _wrong(embodiment):
        raise EmbodimentError(f"{path}: {reason}")
    return embodiment


def _described(path: Path, data: dict[str, Any]) -> dict[str, Any]:
    """The file's keys with those that its `limits` hold; where both do, the tighter values."""
    if not isinstance(data.get("joint_names"), list):
        raise EmbodimentError(f"{path}: limits are of joints; a list of joint_names is needed")
    names = tuple(str(name) for name in data["joint_names"])
    try:
        held = read_limits(path, data["limits"], names)
    except DescriptionError as error:
        raise EmbodimentError(str(error)) from None
    merged: dict[str, Any] = dict(data)
    for key, values in held.items():
        own = _vector(path, key, data[key], len(names)) if key in data else np.array(values)
        merged[key] = (np.maximum if key == "position_lower" else np.minimum)(own, values)
    if not any(key.startswith("envelope_") for key in data):
        merged |= {"envelope_gain": [np.inf] * len(names), "envelope_offset": [0.0] * len(names)}
        for side in ("lower", "upper"):
            merged[f"envelope_{side}"] = merged.get(f"position_{side}")
    return merged


def _wrong(arm: Embodiment) -> str:
    """What cannot be, in words; empty if all can."""
    if not (arm.position_lower < arm.position_upper).all():
        return "position_lower must be below position_upper for every joint"
    for key in ("velocity", "acceleration", "jerk"):
        if not (getattr(arm, key) > 0).all():
            return f"{key} is {getattr(arm, key).tolist()}; above 0 is needed for every joint"
    corners, speed = np.concatenate((arm.workspace_lower, arm.workspace_upper)), arm.speed_m_s
    if arm.kinematics == UNKNOWN:
        off = np.isneginf(corners[:3]).all() and np.isposinf(corners[3:]).all() and speed == np.inf
        infinite = "workspace_lower: [-.inf, -.inf, -.inf], workspace_upper: [.inf, .inf, .inf], speed_m_s: .inf"
        return "" if off else f"kinematics is none, so that no workspace and no speed can be kept; say so: {infinite}"
    if arm.kinematics != FRANKA:
        return f"kinematics is {arm.kinematics!r}; allowed are {FRANKA} (a Panda's and an FR3's) and {UNKNOWN}"
    if arm.joints != _FRANKA_JOINTS:
        of_a_franka = f"kinematics is franka, whose arms have {_FRANKA_JOINTS} joints"
        return f"{of_a_franka}, and there are {arm.joints}; an arm of another make needs kinematics: none"
    if not (np.isfinite(corners).all() and (corners[:3] < corners[3:]).all()):
        return "workspace_lower must be below workspace_upper in x, y and z, both finite"
    if not 0 < speed <= _FASTEST_M_S:
        return f"speed_m_s is {speed}; above 0, at most {_FASTEST_M_S} is needed"
    return ""


def _vector(path: Path, key: str, value: Any, count: int) -> FloatArray:
    try:
        vector = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError):
        raise EmbodimentError(f"{path}: {key} must be {count} numbers, got {value!r}") from None
    if vector.shape != (count,) or np.isnan(vector).any():
        raise EmbodimentError(f"{path}: {key} must be {count} numbers, got {value!r}")
    vector.setflags(write=False)
    return vector
