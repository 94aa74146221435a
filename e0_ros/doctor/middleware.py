"""Checks of ROS 2 itself: which, under which Python, which middleware, and who finds whom."""

from __future__ import annotations

import os
from pathlib import Path

from e0_ros import environment
from e0_ros.distribution import KNOWN, distribution
from e0_ros.doctor.finding import Bench, Finding, green, grey, red, yellow
from e0_ros.doctor.machine import Machine
from e0_ros.environment import INSTALL, MIXED, NONE, WHEELS

ARM_PACKAGES = (
    "controller_manager",
    "joint_trajectory_controller",
    "franka_bringup",
    "franka_msgs",
    "realsense2_camera",
)
RANGES = ("SUBNET", "LOCALHOST", "OFF", "SYSTEM_DEFAULT")
CYCLONE = "rmw_cyclonedds_cpp"
_NO_ROS = "no ROS 2 in this environment"
_GET_ROS = "make setup, or source a ROS 2 install"


def mixing(machine: Machine, bench: Bench) -> Finding:
    """One ROS 2, under the Python that it was built for."""
    ros = environment.detect(machine.environ, machine.prefix)
    distros = sorted({entry.split("/")[3] for entry in _ament(machine) if entry.startswith("/opt/ros/")})
    if ros.kind == NONE:
        return grey(_NO_ROS, _GET_ROS)
    if ros.kind == MIXED:
        return red(str(ros), "a shell that sources none, or `make clean-setup setup` to use the install")
    if len(distros) > 1:
        return red(f"{' and '.join(distros)} are sourced in one shell", "open a new shell and source one of them")
    python, wanted = _version(machine.python), KNOWN[ros.distro].python if ros.distro in KNOWN else None
    if ros.kind == INSTALL and wanted and wanted != machine.python:
        return red(f"{ros}: its rclpy is built for Python {_version(wanted)}, this is {python}",
                   f"start the nodes with python:=/usr/bin/python{_version(wanted)}")  # fmt: skip
    if ros.kind == INSTALL and machine.environ.get("CONDA_PREFIX"):
        cure = "conda deactivate (and `conda config --set auto_activate_base false`)"
        return yellow(f"{ros} in a conda environment, whose libraries shadow those of ROS", cure)
    return green(f"{ros}, Python {python}")


def messages(machine: Machine, bench: Bench) -> Finding:
    """e0_msgs is built for this environment."""
    ros = environment.detect(machine.environ, machine.prefix)
    if ros.kind == NONE:
        return grey(_NO_ROS, _GET_ROS)
    built = any(Path(machine.prefix).glob("lib/python3.*/site-packages/e0_msgs"))
    if built or environment.sourced("e0_msgs", machine.environ):
        return green("e0_msgs is built")
    return red(
        "e0_msgs is not built", "make setup, or `colcon build --base-paths src/e0_ros src/e0_ros/e0_msgs` and source it"
    )


def arm_packages(machine: Machine, bench: Bench) -> Finding:
    """The packages that drive the arm and the cameras."""
    ros = environment.detect(machine.environ, machine.prefix)
    if ros.kind != INSTALL:
        return grey(f"{ros}: the arm's drivers come with a ROS 2 install only", "source /opt/ros/<distro>/setup.bash")
    missing = [name for name in ARM_PACKAGES if not environment.sourced(name, machine.environ)]
    if not missing:
        return green(", ".join(ARM_PACKAGES))
    apt = [
        f"ros-{ros.distro or '<distro>'}-{name.replace('_', '-')}" for name in missing if not name.startswith("franka")
    ]
    cure = " and ".join(
        [f"sudo apt-get install {' '.join(apt)}"] * bool(apt)
        + ["build franka_ros2 from source and source its workspace"] * any(n.startswith("franka") for n in missing)
    )
    return bench.fault(f"not installed: {', '.join(missing)}", cure)


def rmw(machine: Machine, bench: Bench) -> Finding:
    """The middleware is there, and is one that holds the arm's rates."""
    ros = environment.detect(machine.environ, machine.prefix)
    chosen = machine.environ.get("RMW_IMPLEMENTATION", "")
    name = chosen or "rmw_fastrtps_cpp"
    if ros.kind == NONE:
        return grey(_NO_ROS, _GET_ROS)
    if ros.kind == WHEELS and name != "rmw_fastrtps_cpp":
        return red(f"RMW_IMPLEMENTATION is {name}; the wheels hold Fast DDS only", "unset RMW_IMPLEMENTATION")
    if ros.kind == INSTALL and not environment.sourced(name, machine.environ):
        cure = f"sudo apt-get install {_debian(ros.distro, name)}, or unset RMW_IMPLEMENTATION"
        return red(f"{name} is not installed", cure)
    if ros.kind == INSTALL and bench.robot_ip and name != CYCLONE:
        cure = f"on every machine: export RMW_IMPLEMENTATION={CYCLONE} (franka_ros2#201; GELLO's default too)"
        return yellow(f"{name} on the arm's host: communication_constraints_violation was reported with it", cure)
    return green(name + ("" if chosen else " (the default)"))


def discovery(machine: Machine, bench: Bench) -> Finding:
    """Whom the graph finds, and who finds it."""
    environ = machine.environ
    domain, reach = environ.get("ROS_DOMAIN_ID", ""), environ.get("ROS_AUTOMATIC_DISCOVERY_RANGE", "")
    static, local = environ.get("ROS_STATIC_PEERS", ""), environ.get("ROS_LOCALHOST_ONLY", "") == "1"
    simple = not distribution("", environ).discovery_range
    if domain and not (domain.isdigit() and int(domain) <= 101):
        return red(
            f"ROS_DOMAIN_ID is {domain!r}; its ports do not exist", "export ROS_DOMAIN_ID=N with N from 0 to 101"
        )
    if reach and reach not in RANGES:
        return red(f"ROS_AUTOMATIC_DISCOVERY_RANGE is {reach!r}", f"one of {', '.join(RANGES)}")
    inside = local if simple else (local or reach in ("LOCALHOST", "OFF") or not reach)
    if bench.peers and inside and not (static and not local and not simple):
        cure = (
            "unset ROS_LOCALHOST_ONLY"
            if local
            else f"on every machine: export ROS_AUTOMATIC_DISCOVERY_RANGE=SUBNET, "
            f"or ROS_STATIC_PEERS='{';'.join(bench.peers)}'"
        )
        return red(f"the graph stays on this host, so {', '.join(bench.peers)} will not find it", cure)
    if simple and (reach or static):
        return yellow("Humble ignores ROS_AUTOMATIC_DISCOVERY_RANGE and ROS_STATIC_PEERS",
                      "use ROS_LOCALHOST_ONLY=1, or another ROS_DOMAIN_ID per bench")  # fmt: skip
    if not inside and domain in ("", "0"):
        cure = "export ROS_DOMAIN_ID=N with N of your own, 1 to 101, on every machine of the bench"
        return yellow("the graph is open to the subnet in domain 0: any machine there may publish commands", cure)
    return green(
        f"domain {domain or 0}, " + ("this host only" if inside else f"subnet{' and static peers' * bool(static)}")
    )


def _ament(machine: Machine) -> list[str]:
    return [entry for entry in machine.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep) if entry]


def _debian(distro: str, package: str) -> str:
    return f"ros-{distro or '<distro>'}-{package.replace('_', '-')}"


def _version(python: tuple[int, int]) -> str:
    return f"{python[0]}.{python[1]}"
