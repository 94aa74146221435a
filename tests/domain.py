"""A ROS domain for tests alone: what they publish, commands and hostile bytes among it, must reach nobody's arm."""

from __future__ import annotations

import os

DOMAINS = 100
"""Of the 102 whose ports are below Linux's ephemeral ones; 0 is everybody's."""


def keep_to_itself() -> None:
    """Leave the shell's domain for one of this process's own, on this host only."""
    shell = os.environ.get("ROS_DOMAIN_ID", "0")
    others = [str(domain) for domain in range(1, DOMAINS + 1) if str(domain) != shell]
    os.environ["ROS_DOMAIN_ID"] = others[os.getpid() % len(others)]
    os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
    os.environ.pop("ROS_STATIC_PEERS", None)
