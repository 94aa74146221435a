"""Waits until the nodes of a graph and the services that they own are discovered, or until no other graph is left."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection, Sequence

from e0_ros.graph import Graph
from e0_ros.interfaces import SERVICES
from e0_ros.resolve import GraphError

SETTLE_S = 1.0
"""Discovery is not symmetric: a publisher may learn of a reader some time after everyone else sees both."""
ALONE_S = 3.5
"""Fast DDS announces a participant every 3 s; who takes the port of one that has just ended often hears of others only
then."""
ENDING_S = 5.0
"""What was stopped a moment ago may take so long to be gone."""


def wait_for_nodes(names: Sequence[str], timeout_s: float, give_up: Callable[[], bool]) -> list[str]:
    """What is still missing of the nodes and their services, after `timeout_s` or when `give_up` says so.

    It looks through a context and a node of its own, so that the caller's rclpy is left alone.
    """
    import rclpy
    from rclpy.context import Context

    wanted = {f"node {name}" for name in names}
    wanted |= {f"service {service.name} of {service.owner}" for service in SERVICES if service.owner in names}
    context = Context()
    rclpy.init(args=[], context=context)
    node = rclpy.create_node("e0_readiness", context=context)
    deadline = time.monotonic() + timeout_s
    missing = wanted
    try:
        while missing and time.monotonic() < deadline and not give_up():
            time.sleep(0.05)
            found = {f"node {name}" for name in node.get_node_names()}
            served = {name for name, _ in node.get_service_names_and_types()}
            found |= {f"service {s.name} of {s.owner}" for s in SERVICES if s.name in served}
            missing = wanted - found
        if not missing:
            time.sleep(SETTLE_S)
    finally:
        node.destroy_node()
        context.try_shutdown()
    return sorted(missing)


def wait_until_alone(limit_s: float, rivals: Collection[str] = ()) -> list[str]:
    """Wait until no node is left in this ROS domain; those that are still there after `limit_s`.

    Nodes of a graph whose launcher was killed take some seconds to end. Hidden ones (`_ros2cli_daemon_0`) do not count,
    and where `rivals` are named no others do.
    """
    import rclpy
    from rclpy.context import Context

    context = Context()
    rclpy.init(args=[], context=context)
    node = rclpy.create_node("e0_alone", context=context)
    alone_since = begun = time.monotonic()
    others: list[str] = []
    try:
        while (now := time.monotonic()) < alone_since + ALONE_S:
            there = {name for name in node.get_node_names() if not name.startswith("_")} - {node.get_name()}
            others = sorted(there & set(rivals) if rivals else there)
            if others and now > begun + limit_s:
                break
            alone_since = now if others else alone_since
            time.sleep(0.05)
    finally:
        node.destroy_node()
        context.try_shutdown()
    return others


def require_alone(graph: Graph, limit_s: float = ENDING_S) -> None:
    """Refuse a graph beside another or beside an arm's driver: on the same topics they are one, down to the motors.

    It takes ALONE_S, so it is for the commands that a person starts and not a part of starting a graph.

    Raises:
        GraphError: a rival is still there after `limit_s`; names it.

    """
    if others := wait_until_alone(limit_s, graph.rivals):
        names = ", ".join(others[:4]) + (f" and {len(others) - 4} more" if len(others) > 4 else "")
        raise GraphError(
            f"another graph or a driver runs in ROS domain {os.environ.get('ROS_DOMAIN_ID') or 0} ({names}), and both "
            "would move the same arm; end it (one that was killed is forgotten within half a minute), or set another "
            "ROS_DOMAIN_ID for this one"
        )
