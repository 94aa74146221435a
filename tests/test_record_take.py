"""Whatever goes wrong in a take: no arm is left armed without one, nothing is handed back that nobody took, and a take
that is over keeps no other from being recorded.
"""

from __future__ import annotations

import math
from contextlib import suppress
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
from builtin_interfaces.msg import Time

from e0_ros import interfaces
from e0_ros.core.live_status import Status
from e0_ros.core.take_session import TakeSession
from e0_ros.graph_client import GraphCallError, GraphRefusal
from e0_ros.interfaces import Service
from e0_ros.record_command import Recorder
from e0_ros.record_take import Takes

STEPS = (interfaces.SET_INSTRUCTION, interfaces.ARM, interfaces.START_EPISODE, interfaces.END_EPISODE)


@dataclass
class FakeGraph:
    """Services that agree but for the one that refuses, and whether the arm is armed."""

    refuses: Service | None = None
    armed: bool = False
    called: list[Service] = field(default_factory=list)
    sim: Any = None
    deaf: Service | None = None
    """It does not answer."""
    arm_fault: str = ""
    from_home_rad: float = math.nan

    def spin(self, _: float) -> None: ...

    def health(self) -> None: ...

    def status(self, *_: Any) -> Status:
        return Status()

    def has(self, service: Service) -> bool:
        return service in (interfaces.DISARM, *STEPS)

    def call(self, service: Service, **_: Any) -> Any:
        self.called.append(service)
        if service is self.refuses:
            raise GraphRefusal(f"{service.owner} refused")
        if service is self.deaf:
            raise GraphCallError(f"{service.owner} did not answer")
        if service in (interfaces.ARM, interfaces.DISARM):
            self.armed = service is interfaces.ARM
        return SimpleNamespace(bag="", duration=1.0, bytes=1, message="")

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


def test_nothing_is_handed_back_that_was_not_taken_over_in_this_take() -> None:
    graph = FakeGraph()
    takes = Takes(graph)
    takes.start("lift it")
    before = list(graph.called)
    with pytest.raises(GraphCallError, match="nobody took over"):
        takes.hand_back()
    takes.take_over()
    takes.hand_back()
    assert graph.called == [*before, interfaces.ENGAGE, interfaces.RELEASE, interfaces.ARM]
    with pytest.raises(GraphCallError, match="nobody took over"):
        takes.hand_back()
    takes.take_over()
    takes.end("failure")
    takes.start("lift it")
    with pytest.raises(GraphCallError, match="nobody took over"):
        takes.hand_back()


@dataclass
class Person:
    """Presses one key after the other and leaves; while the second is pressed, a service refuses or is deaf."""

    graph: FakeGraph
    keys: str
    refuses: Service | None = None
    deaf: Service | None = None
    pressed: int = 0
    ended: bool = False

    def key(self) -> str:
        now = self.pressed == 1
        self.graph.refuses, self.graph.deaf = (self.refuses, self.deaf) if now else (None, None)
        key = self.keys[self.pressed : self.pressed + 1]
        self.pressed, self.ended = self.pressed + 1, not key
        return key


@pytest.mark.parametrize("refuses", [interfaces.END_EPISODE, interfaces.DISARM], ids=lambda service: service.name)
def test_a_take_that_could_not_be_ended_as_asked_does_not_keep_the_next_one_from_being_recorded(
    refuses: Service, capsys: pytest.CaptureFixture[str]
) -> None:
    graph: Any = FakeGraph()
    person: Any = Person(graph, " s s", refuses=refuses)
    Recorder(Takes(graph), TakeSession(["lift it"]), person).run()
    said = capsys.readouterr().out
    assert f"error: {refuses.owner} refused" in said
    assert said.count("recording (no bag") == 2 and said.count("success  ") == 1
    assert ("kept unlabelled" in said) is (refuses is interfaces.END_EPISODE)


def test_a_take_whose_end_nobody_answers_may_still_run_and_can_be_ended_again(
    capsys: pytest.CaptureFixture[str],
) -> None:
    graph: Any = FakeGraph()
    person: Any = Person(graph, " ss", deaf=interfaces.END_EPISODE)
    Recorder(Takes(graph), TakeSession(["lift it"]), person).run()
    said = capsys.readouterr().out
    assert "error: episode_recorder did not answer" in said and said.count("success  ") == 1
