"""Settings that are lists, as ROS parameters."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from rclpy.node import Node
from rclpy.parameter import Parameter

from e0_ros.config import ConfigError, check, declare_parameters, setting

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
