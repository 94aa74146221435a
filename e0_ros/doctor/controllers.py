"""Checks of the controllers' YAML file and of libfranka against the arm's firmware."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from e0_policy.resources import config_dir
from e0_ros import environment
from e0_ros.config import ConfigError, load_yaml
from e0_ros.distribution import distribution
from e0_ros.doctor.finding import Bench, Finding, green, grey, red, yellow
from e0_ros.doctor.machine import Machine

CONTROLLER = "joint_trajectory_controller"
REPLACING = (6, 0)
"""joint_trajectory_controller blends trajectories by default from this version on (ros2_controllers#2419)."""
IMAGES = (
    ((0, 10), (5, 2, 0)),
    ((0, 13, 3), (5, 5, 0)),
    ((0, 14), (5, 7, 0)),
    ((0, 15), (5, 7, 2)),
    ((0, 18), (5, 9, 0)),
)
"""libfranka from a version on, and the oldest system image of an FR3 that it works with (libfranka's CHANGELOG)."""


def overruns(machine: Machine, bench: Bench) -> Finding:
    """`overruns.manage: false`: after a late cycle the controller manager must not sleep through the next ones."""
    parameters = _parameters(machine, bench)
    if isinstance(parameters, Finding):
        return parameters
    manager = parameters.get("controller_manager")
    if manager is None:
        return grey("the controllers' YAML has no controller_manager")
    if not distribution("", machine.environ).manages_overruns:
        return green("the controller manager of this distribution has no overruns.manage")
    manage = manager.get("overruns.manage")
    if manage is False:
        return green("overruns.manage is false")
    cure = "controller_manager: {ros__parameters: {overruns: {manage: false}}} (franka_ros2#108)"
    return bench.fault(f"overruns.manage is {'true' if manage else 'not set, that is true'}", cure)


def replacement(machine: Machine, bench: Bench) -> Finding:
    """`allow_trajectory_replacement: false`: our trajectories follow on themselves and must not be blended again."""
    parameters = _parameters(machine, bench)
    if isinstance(parameters, Finding):
        return parameters
    types = {k[:-5]: v for k, v in parameters.get("controller_manager", {}).items() if k.endswith(".type")}
    names = [n for n, kind in types.items() if str(kind).startswith(CONTROLLER)]
    names += [CONTROLLER] if CONTROLLER in parameters and CONTROLLER not in names else []
    if not names:
        return grey("the controllers' YAML has no joint_trajectory_controller")
    cure = f"{names[0]}: {{ros__parameters: {{allow_trajectory_replacement: false}}}}"
    values = {name: parameters.get(name, {}).get("allow_trajectory_replacement") for name in names}
    if wrong := [name for name, value in values.items() if value is True]:
        return bench.fault(f"{wrong[0]} blends every trajectory with the one before", cure)
    if all(value is False for value in values.values()):
        return green("allow_trajectory_replacement is false")
    version = _package_version(machine, CONTROLLER)
    if version is None:
        return yellow(f"allow_trajectory_replacement is not set, and the version of {CONTROLLER} is not seen", cure)
    if version[:2] >= REPLACING:
        return bench.fault(f"{CONTROLLER} {_dotted(version)} blends trajectories unless told otherwise", cure)
    return green(f"{CONTROLLER} {_dotted(version)} replaces whole trajectories")


def franka_ros2(machine: Machine, bench: Bench) -> Finding:
    """franka_ros2 survives an error of the arm, so that it can be recovered in place."""
    version = _package_version(machine, "franka_bringup")
    if version is None:
        return grey("no franka_ros2 is sourced here")
    here = distribution("", machine.environ)
    seen = f"franka_ros2 {_dotted(version)} on {here.name}"
    if version >= here.recovers_from:
        return green(seen)
    cure = f"franka_ros2 {_dotted(here.recovers_from)} or newer, or start the graph again after every error"
    return bench.fault(f"{seen} ends with the arm's first reflex and cannot be recovered in place", cure)


def firmware(machine: Machine, bench: Bench) -> Finding:
    """Libfranka and the arm's system image speak the same protocol."""
    version = _libfranka(machine)
    if version is None:
        return grey("no libfranka is seen here")
    row = max((i for i, (first, _) in enumerate(IMAGES) if version >= first), default=None)
    if row is None:
        return red(f"libfranka {_dotted(version)} is for the Panda", "install libfranka 0.18 or newer for an FR3")
    oldest = IMAGES[row][1]
    needs = f"libfranka {_dotted(version)} needs system image {_dotted(oldest)} or newer"
    if not bench.system_image:
        return grey(f"{needs}; the arm's is not known here", "--system-image X.Y.Z, as Desk shows it under Settings")
    image = _numbers(bench.system_image)
    if image is None:
        return grey(f"system image {bench.system_image!r} is no version", "--system-image X.Y.Z, as 5.9.0")
    if image < oldest:
        return red(f"{needs}; the arm has {bench.system_image}",
                   "update the arm in Desk, or build the libfranka of Franka's compatibility table")  # fmt: skip
    if row + 1 < len(IMAGES) and image >= IMAGES[row + 1][1]:
        newer = f"libfranka {_dotted(IMAGES[row + 1][0])} is the first for image {_dotted(IMAGES[row + 1][1])}"
        return yellow(f"libfranka {_dotted(version)} with system image {bench.system_image}: {newer}",
                      "install that libfranka if the arm answers `Incompatible library version`")  # fmt: skip
    return green(f"libfranka {_dotted(version)}, system image {bench.system_image}")


def _parameters(machine: Machine, bench: Bench) -> dict[str, dict[str, Any]] | Finding:
    """Parameters by node of the YAML file that the launch hands to the controller manager; nested names have dots."""
    if not bench.controllers and not environment.sourced("franka_bringup", machine.environ):
        return grey("franka_bringup is not sourced: no controller manager runs here", "--controllers FILE")
    path = Path(bench.controllers) if bench.controllers else config_dir() / "controllers.yaml"
    try:
        return _by_node(load_yaml(path))
    except ConfigError as error:
        return red(str(error), "give the YAML file that the launch gets as controllers_yaml:=")


def _by_node(data: Mapping[Any, Any]) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for key, value in data.items():
        if not isinstance(value, dict):
            continue
        if "ros__parameters" in value:
            node = str(key).rstrip("/").rsplit("/", 1)[-1]
            found.setdefault(node, {}).update(_flat(value["ros__parameters"] or {}))
        else:
            for node, parameters in _by_node(value).items():
                found.setdefault(node, {}).update(parameters)
    return found


def _flat(values: Mapping[Any, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat


def _package_version(machine: Machine, package: str) -> tuple[int, ...] | None:
    prefix = environment.sourced(package, machine.environ)
    try:
        text = Path(prefix, "share", package, "package.xml").read_text(encoding="utf-8") if prefix else ""
    except OSError:
        return None
    found = re.search(r"<version>\s*([\d.]+)\s*</version>", text)
    return _numbers(found.group(1)) if found else None


def _libfranka(machine: Machine) -> tuple[int, ...] | None:
    """Version of libfranka: of the sourced package, else of the newest library on the usual paths."""
    if version := _package_version(machine, "libfranka"):
        return version
    folders = ("/usr/lib", "/usr/lib/*-linux-gnu", "/usr/local/lib", "/opt/ros/*/lib", "/opt/ros/*/lib/*-linux-gnu")
    names = [path.name for folder in folders for path in machine.glob(f"{folder}/libfranka.so.*.*.*")]
    return max((v for name in names if (v := _numbers(name.removeprefix("libfranka.so.")))), default=None)


def _numbers(text: str) -> tuple[int, ...] | None:
    return tuple(int(part) for part in text.split(".")) if re.fullmatch(r"\d+(\.\d+)+", text.strip()) else None


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))
