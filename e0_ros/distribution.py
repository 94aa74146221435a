"""What differs between the ROS 2 distributions that franka_ros2 runs on, in one place.

Read from franka_ros2 (humble: v2.1.0 to v2.5.0, jazzy: v3.0.0 to v3.4.0), ros2_control and ros2_controllers (branches
humble and jazzy). What differs between versions and needs no choice: the launch argument arm_id became robot_type with
v2.2.0 and v3.2.0 (`e0_ros.drivers` gives both), and Franka's convenience topics became best effort with v2.4.0 and
v3.3.0 (nobody here reads them; `robot_state` is reliable everywhere, and read as best effort, which fits both).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Distribution:
    """What a bench on a distribution needs.

    Args:
        name: as in ROS_DISTRO.
        python: Python that its rclpy is built for.
        deactivate_first: after an error the controllers are still active, and must be deactivated before recovery
            (ros2_control#2318); later distributions deactivate them with the hardware.
        recovers_from: the first franka_ros2 whose process survives an error of the arm.
        discovery_range: knows ROS_AUTOMATIC_DISCOVERY_RANGE and ROS_STATIC_PEERS, not only ROS_LOCALHOST_ONLY.
        manages_overruns: its controller manager has `overruns.manage`, which must be false.

    """

    name: str
    python: tuple[int, int]
    deactivate_first: bool
    recovers_from: tuple[int, int, int]
    discovery_range: bool = True
    manages_overruns: bool = True


KNOWN = {
    "humble": Distribution("humble", (3, 10), True, (2, 4, 0), discovery_range=False, manages_overruns=False),
    "jazzy": Distribution("jazzy", (3, 12), False, (3, 3, 0)),
    "kilted": Distribution("kilted", (3, 12), False, (3, 3, 0)),
}
NEWEST = "kilted"


def distribution(name: str, environ: Mapping[str, str]) -> Distribution:
    """The named one; empty: that of ROS_DISTRO. One that is not known is taken for the newest."""
    return KNOWN.get(name or environ.get("ROS_DISTRO", ""), KNOWN[NEWEST])
