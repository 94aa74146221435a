"""Settings as ROS parameters: lists, and what a node's command line says of them."""

from __future__ import annotations

import sys
from dataclasses import dataclass

import pytest
from rclpy.node import Node
from rclpy.parameter import Parameter

from e0_ros.config import ConfigError, check, declare_parameters, setting
from e0_ros.nodes import chunk_executor
from e0_ros.process import run_node

pytestmark = pytest.mark.ros


@dataclass(frozen=True)
class Lists:
    numbers: tuple[float, ...] = setting((), "numbers that may be left out", low=0.0)
    names: tuple[str, ...] = setting((), "names that may be left out")
    known: tuple[float, ...] = setting((1.0,), "numbers with a default")

    def __post_init__(self) -> None:
        check(self)


def declared(**values: object) -> Lists:
    overrides = [Parameter(name, value=value) for name, value in values.items()]
    node = Node("lists", parameter_overrides=overrides)
    try:
        return declare_parameters(node, Lists)
    finally:
        node.destroy_node()


def test_a_list_without_a_default_takes_values_of_its_own_type_only(ros) -> None:
    assert declared() == Lists()
    assert declared(numbers=[""], names=[""]) == Lists(), "how a launcher writes an empty list"
    assert declared(numbers=[33.5, 0.0], names=["a", "b"]) == Lists((33.5, 0.0), ("a", "b"))
    assert declared(numbers=[3, 4]).numbers == (3.0, 4.0)
    for wrong in (["a"], [-1.0], 5.0):
        with pytest.raises(ConfigError, match=r"Lists\.numbers"):
            declared(numbers=wrong)
    with pytest.raises(ConfigError, match=r"Lists\.names"):
        declared(names=[1.0])


def test_help_lists_the_nodes_parameters_and_other_words_are_refused(monkeypatch, capsys) -> None:
    monkeypatch.setattr(
        sys, "argv", ["/install/lib/e0_ros/chunk_executor", "--help", "--ros-args", "-p", "lead_ms:=3.0"]
    )
    assert chunk_executor.main() == 0
    out = capsys.readouterr().out
    assert "ros2 run e0_ros chunk_executor" in out and '  output:="joint_trajectory"' in out and "  lead_ms:=" in out
    assert run_node(pytest.fail, ["--rate", "3"]) == 2
    assert "'--rate' is no argument of a node" in capsys.readouterr().err
