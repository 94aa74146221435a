"""Shared fixtures. Every file of tests has a ROS domain of its own and stays on this host."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from e0_ros.child import adopt_orphans
from e0_ros.environment import calm_matrices
from e0_ros.own_domain import own_domain
from tests import bare_machine
from tests.domain import descendants, end, left_behind
from tests.person import Person, Seat

calm_matrices()
if not any(Path("/dev", name).exists() for name in ("nvidiactl", "dxg")):
    os.environ["TRITON_INTERPRET"] = "1"  # read where Triton is first imported, which torch's compiler does too


def pytest_configure() -> None:
    """See what the processes of a test leave behind."""
    adopt_orphans()


@pytest.fixture(scope="module", autouse=True)
def domain() -> Iterator[None]:
    """A ROS domain for each file of tests."""
    with own_domain():
        yield


@pytest.fixture(autouse=True)
def nothing_left_behind(domain: None) -> Iterator[None]:
    """A process that a test leaves behind would speak in the tests that follow: it is killed, and the test fails."""
    before = set(descendants())
    yield
    left = left_behind(before)
    end(left)
    assert not left, f"these processes were left behind, and were killed: {'; '.join(left.values())}"


@pytest.fixture
def ros() -> Iterator[None]:
    """An initialised rclpy."""
    import rclpy

    rclpy.init()
    yield
    rclpy.try_shutdown()


@pytest.fixture
def person_at() -> Iterator[Seat]:
    """People at terminals, who are gone after the test."""
    with ExitStack() as people:
        yield lambda words: people.enter_context(Person(words))


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with little on it and an archive of few packages."""
    return bare_machine.script(tmp_path, monkeypatch)
