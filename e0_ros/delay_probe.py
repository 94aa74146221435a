"""How long messages take: DDS's own stamps of sending and receipt."""

from __future__ import annotations

import rclpy
from rclpy.node import Node

from e0_ros.interfaces import Qos, Topic, message_class

_DEPTH = 20
SUFFIX = "_delays"
"""Of its name, after that of the node that it belongs to."""


class DelayProbe:
    """Listens to a topic beside a node, only for the stamps, and only when asked.

    It is a node of its own that no executor serves: rclpy's events executor cannot hand over message info.
    """

    def __init__(self, node: Node, topic: Topic) -> None:
        self.node = rclpy.create_node(
            f"{node.get_name()}{SUFFIX}",
            context=node.context,
            namespace=node.get_namespace(),
            use_global_arguments=False,
            start_parameter_services=False,
            enable_rosout=False,
        )
        profile = Qos(depth=_DEPTH, reliable=False).profile()
        kind = message_class(topic.type)
        self._subscription = self.node.create_subscription(kind, topic.name, lambda _: None, profile)

    def delays_ns(self) -> list[int]:
        """What each message that has come took from the writer to this process [ns]; needs one system clock."""
        delays = []
        with self._subscription.handle:
            for _ in range(_DEPTH):
                taken = self._subscription.handle.take_message(self._subscription.msg_type, True)
                if taken is None:
                    break
                if taken[1]["received_timestamp"] and taken[1]["source_timestamp"]:
                    delays.append(taken[1]["received_timestamp"] - taken[1]["source_timestamp"])
        return delays
