"""Limits of an arm from its maker's files: a URDF, and MoveIt's `joint_limits.yaml`.

limits: {urdf: arm.urdf, joint_limits: joint_limits.yaml}   # in an embodiment file, of which they are

A URDF's `<limit>` holds position and velocity, `joint_limits.yaml` velocity, acceleration and jerk, and position if it
likes. Of two values the tighter one counts. URDF: wiki.ros.org/urdf/XML/joint; MoveIt: `moveit_core`, `joint_model.h`.
"""

from __future__ import annotations

import math
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import yaml

_LARGEST_BYTES = 16 * 2**20
_KEYS = ("position_lower", "position_upper", "velocity", "acceleration", "jerk")
_ANGULAR = ("revolute", "continuous")
Known = dict[str, dict[str, float]]
"""By joint: the values of `_KEYS` that are known."""


class DescriptionError(ValueError):
    """A description is missing, malformed, or lacks a joint; the message names the file and says what to do."""


def read_limits(beside: Path, files: Any, joint_names: tuple[str, ...]) -> dict[str, list[float]]:
    """The limits that the files hold for every joint, by key: vectors in the order of `joint_names`.

    Args:
        beside: the embodiment file; relative names are beside it or below.
        files: `urdf`, `joint_limits` or both, with the names of the files.
        joint_names: of the arm.

    Raises:
        DescriptionError: what is wrong, with the file.

    """
    readers = {"urdf": _urdf, "joint_limits": _joint_limits}
    if not isinstance(files, dict) or not files or not files.keys() <= readers.keys():
        raise DescriptionError(f"{beside}: limits is {files!r}; allowed is {{urdf: FILE, joint_limits: FILE}}, or one")
    known: Known = {name: {} for name in joint_names}
    for kind, name in files.items():
        for joint, values in readers[kind](_beside(beside, name), joint_names).items():
            for key, value in values.items():
                tighter = max if key == "position_lower" else min
                known[joint][key] = tighter(known[joint].get(key, value), value)
    return {key: [of[key] for of in known.values()] for key in _KEYS if all(key in of for of in known.values())}


def _beside(beside: Path, name: Any) -> Path:
    folder = beside.resolve().parent
    path = (folder / str(name)).resolve()
    if not (Path(str(name)).is_absolute() or path.is_relative_to(folder)):
        raise DescriptionError(f"{beside}: {name!r} leads out of {folder}; put it beside, or give its whole path")
    if not path.is_file():
        raise DescriptionError(f"{beside}: there is no file {path}")
    if path.stat().st_size > _LARGEST_BYTES:
        raise DescriptionError(f"{path}: {path.stat().st_size} bytes; at most {_LARGEST_BYTES} are read")
    return path


class _Plain(ET.TreeBuilder):
    def doctype(self, name: str, pubid: str | None, system: str | None) -> None:
        """Refuse before any entity is read: they can grow without end, and a URDF has none."""
        raise DescriptionError(f"it declares a document type, {name!r}")


def _urdf(path: Path, joint_names: tuple[str, ...]) -> Known:
    try:
        root = ET.fromstring(path.read_bytes(), ET.XMLParser(target=_Plain()))
    except (ET.ParseError, ValueError, LookupError) as error:
        raise DescriptionError(f"{path}: this is no URDF: {error}") from None
    joints = {joint.get("name"): joint for joint in root.findall("joint")}
    named = {"lower": "position_lower", "upper": "position_upper", "velocity": "velocity"}
    known: Known = {}
    for name in joint_names:
        if name not in joints:
            some = ", ".join(str(joint) for joint in list(joints)[:12]) or "none (a xacro is to be expanded first)"
            raise DescriptionError(f"{path}: there is no joint {name}; there are {some}")
        kind, limit = joints[name].get("type"), joints[name].find("limit")
        if kind not in _ANGULAR:
            raise DescriptionError(f"{path}: {name} is {kind}; allowed are {' and '.join(_ANGULAR)}")
        words = {} if limit is None else limit.attrib
        held = [word for word in named if word in words and (kind == "revolute" or word == "velocity")]
        known[name] = {named[word]: _number(path, f"{name}: {word}", words[word]) for word in held}
    return known


def _joint_limits(path: Path, joint_names: tuple[str, ...]) -> Known:
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise DescriptionError(f"{path}: this is no YAML: {error}") from None
    joints = data.get("joint_limits") if isinstance(data, dict) else None
    if not isinstance(joints, dict):
        raise DescriptionError(f"{path}: there is no joint_limits, with a mapping for each joint")
    named = {
        "min_position": ("position", "position_lower"),
        "max_position": ("position", "position_upper"),
        "max_velocity": ("velocity", "velocity"),
        "max_acceleration": ("acceleration", "acceleration"),
        "max_jerk": ("jerk", "jerk"),
    }
    known: Known = {}
    for name in joint_names:
        words = joints.get(name, {})
        if not isinstance(words, dict):
            raise DescriptionError(f"{path}: {name} is {words!r}; a mapping is needed")
        known[name] = {
            key: _number(path, f"{name}: {word}", words[word])
            for word, (kind, key) in named.items()
            if word in words and words.get(f"has_{kind}_limits", True)
        }
    return known


def _number(path: Path, what: str, value: Any) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise DescriptionError(f"{path}: {what} is {value!r}; a number is needed")
    return number
