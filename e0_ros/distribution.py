"""What differs between the ROS 2 distributions that franka_ros2 runs on, in one place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Distribution:
    """What a bench on a distribution needs.

    Args:
        name: as in ROS_DISTRO.
        deactivate_first: after an error the controllers are still active, and must be deactivated before recovery
            (ros2_control#2318); later distributions deactivate them with the hardware.

    """

    name: str
    deactivate_first: bool


KNOWN = {
    "humble": Distribution("humble", deactivate_first=True),
    "jazzy": Distribution("jazzy", deactivate_first=False),
    "kilted": Distribution("kilted", deactivate_first=False),
}
NEWEST = "kilted"


def distribution(name: str, environ: Mapping[str, str]) -> Distribution:
    """The named one; empty: that of ROS_DISTRO. One that is not known is taken for the newest."""
    return KNOWN.get(name or environ.get("ROS_DISTRO", ""), KNOWN[NEWEST])
