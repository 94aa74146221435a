"""Shared fixtures. Every test run has a ROS domain of its own and stays on this host."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.domain import keep_to_itself

keep_to_itself()


@pytest.fixture
def ros() -> Iterator[None]:
    """An initialised rclpy."""
    import rclpy

    rclpy.init()
    yield
    rclpy.try_shutdown()
