"""The loop of `e0 record` with an arm that ends a take: what the take is labelled with."""

from __future__ import annotations

import signal
from dataclasses import dataclass, field
from typing import Any

import pytest

from e0_ros.core.live_status import Status
from e0_ros.core.take_session import TakeSession
from e0_ros.record_command import Recorder
from e0_ros.record_take import Ended

INACTIVE, REFLEX = "the controller is inactive", "reflex: cartesian_reflex"


@dataclass
class Arm:
    """A graph's client whose time is what it has spun; its arm says one thing after the other."""

    words: dict[float, str]
    now_s: float = 0.0
    sim: None = None
    leaving: bool = False

    @property
    def arm_fault(self) -> str:
        said = [text for at_s, text in self.words.items() if at_s <= self.now_s]
        return said[-1] if said else ""

    def spin(self, seconds: float) -> None:
        self.now_s += seconds

    def status(self, *_: Any) -> Status:
        return Status()


@dataclass
class OneTake:
    """Takes without a graph, and the keyboard of a person who starts one and leaves once it has ended."""

    client: Arm
    instruction: str = ""
    bytes_per_s: float = 0.0
    labels: list[tuple[str, str]] = field(default_factory=list)
    keys: list[str] = field(default_factory=lambda: [" "])
    rested: bool = False

    @property
    def ended(self) -> bool:
        return bool(self.labels) or self.client.now_s > 5.0

    def rest(self) -> None:
        self.rested = True

    def start(self, *_: Any) -> str:
        return "bag"

    def end(self, outcome: str, note: str) -> Ended:
        self.labels.append((outcome, note))
        return Ended(outcome, "bag", 1.0, 1)

    def key(self) -> str:
        return self.keys.pop() if self.keys else ""


@pytest.mark.parametrize(
    ("words", "fault"),
    [
        pytest.param({0.2: INACTIVE, 0.4: REFLEX}, REFLEX, id="the cause is heard after its consequence"),
        pytest.param({0.2: INACTIVE}, INACTIVE, id="no cause is ever named"),
        pytest.param({0.2: REFLEX, 0.3: ""}, REFLEX, id="the fault has passed meanwhile"),
    ],
)
def test_a_take_that_the_arm_ends_bears_the_cause(words: dict[float, str], fault: str) -> None:
    takes: Any = OneTake(Arm(words))
    Recorder(takes, TakeSession(["lift it"]), takes).run()
    assert takes.labels == [("failure", f"arm: {fault}")]


def test_whoever_leaves_between_takes_leaves_an_arm_that_is_not_armed() -> None:
    takes: Any = OneTake(Arm({}), keys=["q"])
    Recorder(takes, TakeSession(["lift it"]), takes).run()
    assert takes.rested and not takes.labels


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_is_told_to_whoever_waits_for_the_arm(number: signal.Signals) -> None:
    takes: Any = OneTake(Arm({}))
    takes.start = lambda *_: signal.raise_signal(number) or "bag"
    Recorder(takes, TakeSession(["lift it"]), takes).run()
    assert takes.client.leaving and takes.labels == [("unlabelled", "interrupted")]
