import time
from typing import Any

import pytest
import rclpy
from rclpy.serialization import deserialize_message
from std_msgs.msg import String

from e0_ros.interfaces import Qos, Topic
from e0_ros.raw_inputs import RawInputs

pytestmark = pytest.mark.ros
TOPICS = tuple(Topic(f"/raw/{name}", "std_msgs/msg/String", Qos(depth=100), "", "") for name in "ab")


class Graph:
    def __init__(self) -> None:
        self.node = rclpy.create_node("raw_inputs")
        self.texts: list[str] = []
        self.numbers: list[int] = []
        self.after = lambda text: None
        self.inputs = RawInputs(self.node, TOPICS, self._on_message)
        self.publishers = [self.node.create_publisher(String, t.name, t.qos.profile()) for t in TOPICS]
        end = time.monotonic() + 20.0
        while time.monotonic() < end and any(p.get_subscription_count() < 1 for p in self.publishers):
            time.sleep(0.01)
        self.inputs.wait_for_publishers(20.0)

    def _on_message(self, _: Topic, data: bytes, info: Any) -> None:
        text = deserialize_message(data, String).data
        self.texts.append(text)
        self.numbers.append(info["publication_sequence_number"])
        self.after(text)


@pytest.fixture
def graph(ros: None) -> Any:
    graph = Graph()
    yield graph
    graph.node.destroy_node()


def test_messages_come_in_the_order_of_arrival_over_all_topics(graph: Graph) -> None:
    sent = []
    for i in range(40):
        sent.append(f"{i}")
        graph.publishers[(i // 3) % 2].publish(String(data=sent[-1]))
    graph.inputs.drain(1.0, 20.0)
    assert graph.texts == sent


def test_drain_goes_on_while_messages_come(graph: Graph) -> None:
    def answer(text: str) -> None:
        if int(text) < 20:
            graph.publishers[int(text) % 2].publish(String(data=str(int(text) + 1)))

    graph.after = answer
    graph.publishers[0].publish(String(data="0"))
    graph.inputs.drain(1.0, 20.0)
    assert graph.texts == [str(i) for i in range(21)]


def test_drain_ends_at_its_limit_even_if_messages_never_do(graph: Graph) -> None:
    graph.after = lambda text: graph.publishers[0].publish(String(data=text))
    graph.publishers[0].publish(String(data="again"))
    graph.inputs.drain(1.0, 1.2)
    assert len(graph.texts) > 1


def test_the_publishers_numbers_count_up(graph: Graph) -> None:
    for _ in range(5):
        graph.publishers[1].publish(String(data="x"))
    graph.inputs.drain(1.0, 20.0)
    assert graph.numbers == list(range(graph.numbers[0], graph.numbers[0] + 5))


def test_an_executor_does_not_take_messages_away(graph: Graph) -> None:
    graph.publishers[0].publish(String(data="mine"))
    rclpy.spin_once(graph.node, timeout_sec=0.3)
    assert graph.texts == []
    graph.inputs.drain(1.0, 20.0)
    assert graph.texts == ["mine"]
