"""A real rclpy node that serves what `/e0/policy/reset` needs, for the launcher's tests."""

from __future__ import annotations

import contextlib

import rclpy
from rclpy.executors import ExternalShutdownException
from std_srvs.srv import Trigger


def main() -> None:
    """Run the node `policy` until SIGINT."""
    rclpy.init()
    node = rclpy.create_node("policy")
    node.create_service(Trigger, "/e0/policy/reset", lambda _, reply: reply)
    with contextlib.suppress(KeyboardInterrupt, ExternalShutdownException):
        rclpy.spin(node)


if __name__ == "__main__":
    main()
