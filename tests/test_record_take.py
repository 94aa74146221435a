"""Whatever goes wrong in a take, the arm is not left armed without one."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
from builtin_interfaces.msg import Time

from e0_ros import interfaces
from e0_ros.graph_client import GraphCallError
from e0_ros.interfaces import Service
from e0_ros.record_take import Takes

STEPS = (interfaces.SET_INSTRUCTION, interfaces.ARM, interfaces.START_EPISODE, interfaces.END_EPISODE)


@dataclass
class FakeGraph:
    """Services that agree but for the one that refuses, and whether the arm is armed."""

    refuses: Service | None = None
    armed: bool = False
    called: list[Service] = field(default_factory=list)
    sim: Any = None

    def has(self, service: Service) -> bool:
        return service in (interfaces.DISARM, *STEPS)

    def call(self, service: Service, **_: Any) -> Any:
        self.called.append(service)
        if service is self.refuses:
            raise GraphCallError(f"{service.owner} refused")
        if service in (interfaces.ARM, interfaces.DISARM):
            self.armed = service is interfaces.ARM
        return SimpleNamespace(bag="", duration=1.0, bytes=1)

    def arm(self, _: Time) -> None:
        self.armed = True  # an executor may have armed though its answer did not come
        self.call(interfaces.ARM)


def take(graph: Any, arm: bool = True) -> None:
    """One take, as far as it goes."""
    takes = Takes(graph, arm=arm)
    takes.start("lift it")
    assert graph.armed is arm
    takes.end("success")


@pytest.mark.parametrize("refuses", STEPS, ids=lambda service: service.name)
def test_a_service_that_refuses_leaves_an_arm_that_is_not_armed(refuses: Service) -> None:
    graph = FakeGraph(refuses, armed=True)
    with pytest.raises(GraphCallError, match="refused"):
        take(graph)
    assert not graph.armed


def test_a_take_ends_disarmed_and_is_recorded_while_armed() -> None:
    graph = FakeGraph()
    take(graph)
    assert not graph.armed
    assert [s for s in graph.called if s in (interfaces.ARM, interfaces.START_EPISODE, interfaces.END_EPISODE)] == [
        interfaces.ARM,
        interfaces.START_EPISODE,
        interfaces.END_EPISODE,
    ]


@pytest.mark.parametrize("refuses", [None, *STEPS])
def test_who_never_arms_never_disarms_either(refuses: Service | None) -> None:
    graph = FakeGraph(refuses)
    with suppress(GraphCallError):
        take(graph, arm=False)
    assert not {interfaces.ARM, interfaces.DISARM} & set(graph.called)
