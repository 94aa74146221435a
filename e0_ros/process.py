"""Life of a node's process: parameters checked, signals that end it cleanly, exit statuses that scripts can trust."""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TypeVar

import rclpy
from rclpy.exceptions import ParameterException
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions
from rclpy.utilities import remove_ros_args

from e0_ros.config import ConfigError, closest, describe
from e0_ros.graph import NODES
from e0_ros.resolve import config_classes

N = TypeVar("N", bound=Node)


def run_node(
    make: Callable[[], N],
    args: Sequence[str] | None = None,
    turn: Callable[[N, threading.Event], None] | None = None,
) -> int:
    """Make a node and run it until SIGINT or SIGTERM. The only place where a node's process handles signals.

    The running callback ends before the node is destroyed, and only then does ROS shut down, so that no callback or
    worker finds an invalid context and a last message can still be sent. A second signal, or one while the node is
    being made, interrupts at once; what the node does when it is destroyed is not interrupted.

    Args:
        make: makes the node.
        args: command line; None: the process's own.
        turn: runs the node until the event is set; None: `spin`.

    Returns:
        0 after a clean end, 2 after one line on stderr if a parameter or a file that it names is wrong, or a word of
        the command line is none of ROS's. `--help` prints the node's parameters.

    """
    words = remove_ros_args(list(sys.argv[1:] if args is None else args))
    if words:
        asked = bool({"-h", "--help"} & set(words))
        print(usage(Path(sys.argv[0]).stem) if asked else f"error: {words[0]!r} is no argument of a node; try --help",
              file=sys.stdout if asked else sys.stderr)  # fmt: skip
        return 0 if asked else 2
    node: N | None = None
    stopping, ended = threading.Event(), threading.Event()

    def stop(*_: object) -> None:
        if not ended.is_set() and (node is None or stopping.is_set()):
            raise KeyboardInterrupt
        stopping.set()

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        rclpy.init(args=list(args) if args is not None else None, signal_handler_options=SignalHandlerOptions.NO)
        try:
            node = make()
            refuse_unknown_parameters(node)
        except (ValueError, FileNotFoundError, ParameterException) as error:
            print(f"error: {error}", file=sys.stderr)
            return 2
        (turn or spin)(node, stopping)
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    finally:
        ended.set()
        if node is not None:
            node.destroy_node()
        rclpy.try_shutdown()
        for number, handler in before.items():
            signal.signal(number, handler)
    return 0


def usage(name: str) -> str:
    """How to start the node of that name, with every parameter, its default and its meaning."""
    lines = [f"usage: ros2 run e0_ros {name} --ros-args -p NAME:=VALUE ... (or --params-file FILE)", ""]
    settings = [f for node in NODES if node.name == name for cls in config_classes(node) for f in fields(cls)]
    return "\n".join([*lines, *(f"  {f.name}:={json.dumps(f.default)}\n      {describe(f)}" for f in settings)])


def spin(node: Node, stopping: threading.Event) -> None:
    """Run a node's callbacks until told to stop.

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
        while node.context.ok() and not stopping.is_set():
            executor.spin_once(timeout_sec=0.2)
    finally:
        executor.remove_node(node)
        executor.shutdown()


def ask_for_priority(node: Node, priority: int) -> None:
    """Let this thread come before ordinary work (SCHED_FIFO; 0: not), as on a machine set up for franka_ros2."""
    if not priority:
        return
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(priority))
    except OSError:
        node.get_logger().info("no real-time priority; to allow it: '@realtime - rtprio 99' in /etc/security/limits.d")


def refuse_unknown_parameters(node: Node) -> None:
    """Refuse parameters that were given but that the node never declared; rclpy ignores them in silence.

    Raises:
        ConfigError: the first such parameter, with the closest one that exists.

    """
    known = set(node._parameters)
    for name in getattr(node, "_parameter_overrides", {}):
        if name not in known and not name.startswith("qos_overrides."):
            raise ConfigError(f"parameters of {node.get_name()}: unknown parameter {name!r}{closest(name, known)}")


def give_back_memory() -> None:
    """Give the system what was freed and lies in the heaps of this process, whose threads come and go.

    Nothing happens with another C library than glibc.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)
