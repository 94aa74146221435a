"""Shared fixtures. Every test run has a ROS domain of its own and stays on this host."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import bare_machine
from tests.domain import keep_to_itself

keep_to_itself()


@pytest.fixture
def ros() -> Iterator[None]:
    """An initialised rclpy."""
    import rclpy

    rclpy.init()
    yield
    rclpy.try_shutdown()


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with little on it and an archive of few packages."""
    return bare_machine.script(tmp_path, monkeypatch)
