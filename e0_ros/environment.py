"""Which ROS 2 this process runs on, and the environment that a node needs. Standard library only.

ROS 2 comes either from wheels in this project's `.venv` or from an install that was sourced (`/opt/ros/<distro>`).
The two carry the same libraries under the same names, so they are never mixed.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass
from pathlib import Path

WHEELS, INSTALL, NONE, MIXED = "wheels", "install", "none", "mixed"
PACKAGES = "run `make setup`, or on a ROS 2 install `make policy-venv` and python:=<checkout>/.venv-policy/bin/python"
"""How a node gets the Python packages that it lacks."""
GUARD = "_ROS_WHEELS_BOOTSTRAP_COMPLETE"
"""Set by the wheels once LD_LIBRARY_PATH is right for one interpreter; wrong for any other that inherits it."""


@dataclass(frozen=True)
class Ros:
    """What `detect` found: its kind, the prefix that rclpy lies in and, for an install, its distribution."""

    kind: str
    prefix: str = ""
    distro: str = ""

    def __str__(self) -> str:
        if self.kind == INSTALL:
            return f"ROS 2 {self.distro or 'install'} in {self.prefix}"
        if self.kind == MIXED:
            return f"ROS 2 {self.distro or 'install'} in {self.prefix} sourced over the wheels of {sys.prefix}"
        return f"ROS 2 wheels in {self.prefix}" if self.kind == WHEELS else "no ROS 2"


class RosError(RuntimeError):
    """No ROS 2, or an install sourced over an environment that holds the wheels; the message says what to do."""


def has_wheels(prefix: str) -> bool:
    """Whether a prefix holds the ROS 2 wheels."""
    return any(Path(prefix).glob("lib/python3.*/site-packages/ros_wheels_bootstrapper*"))


def detect(environ: Mapping[str, str] = os.environ, prefix: str = sys.prefix) -> Ros:
    """Tell wheels from a sourced install by the prefixes that hold rclpy."""
    wheels = bool(prefix) and has_wheels(prefix)
    if install := sourced("rclpy", environ):
        return Ros(MIXED if wheels else INSTALL, install, environ.get("ROS_DISTRO", ""))
    return Ros(WHEELS, prefix) if wheels else Ros(NONE)


def sourced(package: str, environ: Mapping[str, str] = os.environ) -> str:
    """Prefix of the sourced install or workspace that holds a package; empty if none does."""
    for entry in _split(environ.get("AMENT_PREFIX_PATH", "")):
        if Path(entry, "share/ament_index/resource_index/packages", package).exists() and not has_wheels(entry):
            return entry
    return ""


def require(environ: Mapping[str, str] = os.environ, prefix: str = sys.prefix) -> Ros:
    """As `detect`, but only a usable ROS 2.

    Raises:
        RosError: both, or none; the message says what to do.

    """
    ros = detect(environ, prefix)
    if ros.kind == MIXED:
        raise RosError(f"{ros}; open a shell that sources none, or `make clean-setup setup` to use the install")
    if ros.kind == NONE:
        raise RosError("no ROS 2 in this environment; run `make setup`, or source a ROS 2 install")
    return ros


def calm_matrices(environ: MutableMapping[str, str] = os.environ) -> None:
    """One thread for OpenBLAS, unless chosen otherwise; to be called before numpy is imported.

    numpy's matrices here have six rows or seven, over which more threads only spin (19 ms instead of 0.05 on a full
    machine). They also round differently: with other threads a rollout is not the same to the bit.
    """
    environ.setdefault("OPENBLAS_NUM_THREADS", "1")


def child_environment(
    environ: Mapping[str, str] = os.environ, python: str = sys.executable, profiles: Path | None = None
) -> dict[str, str]:
    """Environment for a node that runs under `python`.

    The wheels' library path and guard are dropped when another interpreter starts, which then finds its own. Traffic
    stays on this host unless ROS_AUTOMATIC_DISCOVERY_RANGE says otherwise. `profiles` is the Fast DDS profile file; it
    is set only where Fast DDS is in use and none was chosen.
    """
    child = dict(environ)
    prefix = str(Path(python).parent.parent)
    if prefix != sys.prefix and child.pop(GUARD, ""):
        paths = [p for p in _split(child.get("LD_LIBRARY_PATH", "")) if not p.startswith(sys.prefix + os.sep)]
        child["LD_LIBRARY_PATH"] = os.pathsep.join(paths)
        ament = [p for p in _split(child.get("AMENT_PREFIX_PATH", "")) if p != sys.prefix]
        child["AMENT_PREFIX_PATH"] = os.pathsep.join(ament)
    if has_wheels(prefix) and prefix not in _split(child.get("AMENT_PREFIX_PATH", "")):
        child["AMENT_PREFIX_PATH"] = os.pathsep.join([prefix, *_split(child.get("AMENT_PREFIX_PATH", ""))])
    child.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    child.setdefault("PYTHONUNBUFFERED", "1")
    calm_matrices(child)
    fast_dds = child.get("RMW_IMPLEMENTATION", "rmw_fastrtps_cpp").startswith("rmw_fastrtps")
    if fast_dds and profiles is not None and profiles.is_file():
        variable = "FASTRTPS" if child.get("ROS_DISTRO") == "humble" else "FASTDDS"
        child.setdefault(f"{variable}_DEFAULT_PROFILES_FILE", str(profiles))
    return child


def _split(paths: str) -> list[str]:
    return [p for p in paths.split(os.pathsep) if p]
