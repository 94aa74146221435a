"""Raw subscriptions to many topics: serialised messages in, with the publisher's own number of each."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from operator import itemgetter
from typing import Any

from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, ReliabilityPolicy

from e0_ros.interfaces import Qos, Topic, message_class
from e0_ros.introductions import Introductions
from e0_ros.polled import Polled

IMAGE_HISTORY = 60
HISTORY = 2000
"""Messages per topic that DDS keeps until the next poll."""

Handler = Callable[[Topic, bytes, Any], None]
"""Called with the topic, CDR bytes, and rclpy's message info."""


class RawInputs:
    """One raw subscription per topic, with the QoS that its publishers offer.

    Nothing arrives but through `poll`: rclpy's executor rebuilds its wait set for every message, which at 1 kHz and
    twenty topics takes half a core, while taking what DDS has kept every few milliseconds takes a few percent.
    """

    def __init__(self, node: Node, topics: Sequence[Topic], handler: Handler) -> None:
        self._node, self._topics, self._handler, self._group = node, topics, handler, Polled()
        self.qos = {topic.name: topic.qos for topic in topics}
        self._subscriptions = {topic.name: self._subscribe(topic) for topic in topics}
        self._introductions = Introductions(node)

    def poll(self) -> int:
        """Hand over what has arrived, in the order of arrival over all topics; returns how many messages."""
        arrived: list[tuple[int, Topic, bytes, Any]] = []
        for topic in self._topics:
            subscription = self._subscriptions[topic.name]
            with subscription.handle:
                for _ in range(HISTORY):
                    taken = subscription.handle.take_message(subscription.msg_type, True)
                    if taken is None:
                        break
                    arrived.append((taken[1]["received_timestamp"], topic, *taken))
        for _, topic, data, info in sorted(arrived, key=itemgetter(0)):
            self._handler(topic, data, info)
        return len(arrived)

    def drain(self, quiet_s: float, limit_s: float) -> None:
        """Take what was published before now: until nothing came for `quiet_s`, at most for `limit_s`.

        DDS gives no order between topics, so the last message before a request may arrive after the request.
        """
        start = last = time.monotonic()
        while (now := time.monotonic()) < min(start + limit_s, last + quiet_s):
            if self.poll():
                last = now
            time.sleep(0.002)

    def wait_for_publishers(self, limit_s: float) -> None:
        """Wait until every publisher that discovery knows is matched, at most for `limit_s`."""
        end = time.monotonic() + limit_s
        while time.monotonic() < end and any(map(self._unmatched, self._topics)):
            time.sleep(0.01)

    def introduce(self, limit_s: float) -> list[str]:
        """Wait until every node that publishes here knows of these subscriptions; those that have not said so."""
        return self._introductions.wait([topic.name for topic in self._topics], limit_s)

    def follow_publishers(self) -> None:
        """Subscribe anew where a publisher offers less than the graph declares (a camera with best effort)."""
        for topic in self._topics:
            offers = self._node.get_publishers_info_by_topic(topic.name)
            for offer in offers:
                if offer.topic_type != topic.type:
                    text = f"{topic.name} is published as {offer.topic_type}, which is not recorded: {topic.type} is"
                    self._node.get_logger().warning(text, throttle_duration_sec=60.0)
            wanted = _requested(topic.qos, [offer.qos_profile for offer in offers])
            if wanted != self.qos[topic.name]:
                self.qos[topic.name] = wanted
                self._node.destroy_subscription(self._subscriptions[topic.name])
                self._subscriptions[topic.name] = self._subscribe(topic)
                self._introductions.renew()

    def _subscribe(self, topic: Topic) -> Any:
        depth = IMAGE_HISTORY if topic.type == "sensor_msgs/msg/Image" else HISTORY
        profile = replace(self.qos[topic.name], depth=depth).profile()
        kind, group = message_class(topic.type), self._group
        return self._node.create_subscription(kind, topic.name, lambda _: None, profile, raw=True, callback_group=group)

    def _unmatched(self, topic: Topic) -> bool:
        matched = self._subscriptions[topic.name].get_publisher_count()
        return bool(matched < self._node.count_publishers(topic.name))


def _requested(declared: Qos, offers: Sequence[Any]) -> Qos:
    reliable = all(offer.reliability == ReliabilityPolicy.RELIABLE for offer in offers)
    latched = all(offer.durability == DurabilityPolicy.TRANSIENT_LOCAL for offer in offers)
    return replace(declared, reliable=declared.reliable and reliable, latched=declared.latched and latched)
