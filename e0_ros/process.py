"""Life of a node's process: parameters checked, signals that end it cleanly, exit statuses that scripts can trust."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

import rclpy
from rclpy.exceptions import ParameterException
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node

from e0_ros.config import ConfigError, closest


def run_node(make: Callable[[], Node], args: Sequence[str] | None = None) -> int:
    """Make a node and spin it until SIGINT or SIGTERM.

    Returns:
        0 after a clean end, 2 after one line on stderr if a parameter or a file that it names is wrong.

    """
    node = None
    try:
        rclpy.init(args=list(args) if args is not None else None)
        node = make()
        refuse_unknown_parameters(node)
        spin(node)
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    except (ValueError, FileNotFoundError, ParameterException) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    finally:
        if node is not None:
            node.destroy_node()
        rclpy.try_shutdown()
    return 0


def spin(node: Node) -> None:
    """Run a node's callbacks until its context shuts down.

    Uses rclpy's event-driven executor where it exists (Jazzy and later): at 1 kHz joint states it takes half of the
    CPU time of the default one. It is driven by `spin_once`, because its own `spin` runs nothing in some builds.
    """
    try:
        from rclpy.experimental.events_executor import EventsExecutor as Executor
    except ImportError:
        from rclpy.executors import SingleThreadedExecutor as Executor
    executor = Executor()
    executor.add_node(node)
    try:
        while node.context.ok():
            executor.spin_once(timeout_sec=0.5)
    finally:
        executor.remove_node(node)
        executor.shutdown()


def refuse_unknown_parameters(node: Node) -> None:
    """Refuse parameters that were given but that the node never declared; rclpy ignores them in silence.

    Raises:
        ConfigError: the first such parameter, with the closest one that exists.

    """
    known = set(node._parameters)
    for name in getattr(node, "_parameter_overrides", {}):
        if name not in known and not name.startswith("qos_overrides."):
            raise ConfigError(f"parameters of {node.get_name()}: unknown parameter {name!r}{closest(name, known)}")
