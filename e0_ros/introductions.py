"""Whether those who publish know of this node's subscriptions yet."""

from __future__ import annotations

import time
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

from rcl_interfaces.srv import GetParameters
from rclpy.node import Node, NodeNameNonExistentError

from e0_ros.polled import Polled

ASK_AGAIN_S = 0.5
POLL_S = 0.005
DISCOVERY_S = 10.0
"""On a busy machine discovery takes seconds."""
GUID_PREFIX_BYTES = 12
UNKNOWN = "_NODE_NAME_UNKNOWN_"
"""What rmw_fastrtps calls the node of a publisher while it is not told which that is."""


class Introductions:
    """Asks the nodes that publish for their parameters, which they answer only once they know who asks.

    That this node has found a publisher does not say that the publisher has found this node: for seconds, on a busy
    machine, what it publishes may not be sent here, single messages apart. But a participant learns of another's
    endpoints in the order in which they were made, since that is told by a reliable writer of its own (RTPS 2.5,
    8.5.4). So a node that answers a client knows every subscription made before that client. Nodes without parameters,
    as `ros2 topic pub` makes them, cannot be asked.
    """

    def __init__(self, node: Node) -> None:
        self._node, self._group = node, Polled()
        self._services: dict[str, Any] = {}
        self._mute: set[str] = set()

    def renew(self) -> None:
        """Forget the clients: there are new subscriptions, and those who know the old clients may not know these."""
        for client in self._services.values():
            self._node.destroy_client(client)
        self._services, self._mute = {}, set()

    def wait(self, topics: Iterable[str], limit_s: float) -> list[str]:
        """Wait until every node that publishes one of these topics knows this one; those that have not answered.

        Who has not within `limit_s` [s] is not asked again.
        """
        end, names = time.monotonic() + limit_s, tuple(topics)
        answered: set[str] = set()
        asked_s: dict[str, float] = {}
        while missing := self._services_of(names) - answered - self._mute:
            answered |= {service for service in missing if self._answers(service, asked_s)}
            if time.monotonic() > end:
                self._mute |= missing - answered
                return sorted(service.rpartition("/")[0] for service in missing - answered)
            time.sleep(POLL_S)
        return []

    def meet(self, topics: Iterable[str], limit_s: float = DISCOVERY_S) -> None:
        """As `wait`, of topics that are known to be published; a warning names who could not be met.

        In lock-step every node meets those whom it hears before an episode: nothing is said twice there, and one
        message that is not sent is waited for in vain.
        """
        end, names = time.monotonic() + limit_s, tuple(topics)
        while (unheard := self._unpublished(names)) and time.monotonic() < end:
            time.sleep(POLL_S)
        self._mute |= unheard
        if strangers := [*sorted(unheard), *self.wait(names, max(end - time.monotonic(), 0.0))]:
            text = f"{', '.join(strangers)}: not met within {limit_s:g} s; what is published first may be missed"
            self._node.get_logger().warning(text)

    def _unpublished(self, topics: Iterable[str]) -> set[str]:
        return {topic for topic in topics if topic not in self._mute and not self._node.count_publishers(topic)}

    def _services_of(self, topics: Iterable[str]) -> set[str]:
        """The parameter services of all publishing nodes but those of this participant, which know of all it has.

        A node's services come before its publishers.
        """
        own = self._own()
        infos = [info for topic in topics for info in self._node.get_publishers_info_by_topic(topic)]
        infos = [info for info in infos if _participant(info) not in own]
        found: set[str] = set()
        for name, space in {(info.node_name, info.node_namespace) for info in infos}:
            service = f"{space.rstrip('/')}/{name}/get_parameters"
            with suppress(NodeNameNonExistentError):  # one that is no node of ROS
                served = self._node.get_service_names_and_types_by_node(name, space) if name != UNKNOWN else []
                found |= {service} if name == UNKNOWN or service in dict(served) else set()
        return found

    def _own(self) -> set[bytes]:
        """The participant of this node; there may be another of the same name."""
        name, space = self._node.get_name(), self._node.get_namespace()
        infos = self._node.get_publishers_info_by_topic("/parameter_events")
        return {_participant(info) for info in infos if (info.node_name, info.node_namespace) == (name, space)}

    def _answers(self, service: str, asked_s: dict[str, float]) -> bool:
        if UNKNOWN in service:
            return False
        if service not in self._services:
            self._services[service] = self._node.create_client(GetParameters, service, callback_group=self._group)
        client = self._services[service]
        with client.handle:
            if service in asked_s and client.handle.take_response(client.srv_type.Response)[1] is not None:
                return True
        if client.service_is_ready() and time.monotonic() - asked_s.get(service, -ASK_AGAIN_S) >= ASK_AGAIN_S:
            asked_s[service] = time.monotonic()
            with client.handle:
                client.handle.send_request(GetParameters.Request())
        return False


def _participant(info: Any) -> bytes:
    """Of an endpoint: its GUID without the entity's identifier (RTPS 2.5, 9.3.1)."""
    return bytes(info.endpoint_gid[:GUID_PREFIX_BYTES])
