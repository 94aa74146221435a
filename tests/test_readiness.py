"""Who may be in a ROS domain in which a graph is about to be started."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.ros

import rclpy  # noqa: E402

from e0_ros.readiness import require_alone, wait_until_alone  # noqa: E402
from e0_ros.resolve import GraphError, resolve  # noqa: E402


def test_hidden_nodes_and_where_rivals_are_named_all_others_disturb_nobody(ros: None) -> None:
    graph = resolve("sim", {"simulator": "fr3_plant"})
    rivals = graph.rivals
    nodes = [rclpy.create_node(name) for name in ("_ros2cli_daemon_0", "estop", "foxglove_bridge")]
    assert wait_until_alone(5.0, rivals) == []
    assert wait_until_alone(0.0) == ["estop", "foxglove_bridge"]
    nodes.append(rclpy.create_node("gello_teleop"))
    assert wait_until_alone(0.0, rivals) == ["gello_teleop"], "ours, though of another graph"
    with pytest.raises(GraphError, match=r"\(gello_teleop\).*another ROS_DOMAIN_ID"):
        require_alone(graph, 0.0)
    for node in nodes[1:]:
        node.destroy_node()
    assert wait_until_alone(5.0) == []
    nodes[0].destroy_node()
