"""Trials with a person's keys, over a graph that is not there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sim.trial_bench import Bench
from sim.trial_plan import draw, read_plan
from sim.trial_run import run_trials
from sim.trial_store import TrialStore
from sim.trials import main
from tests.sim.test_trial_plan import POLICIES
from tests.test_record_take import FakeGraph


@dataclass
class Keys:
    """A person who presses one key after the other, and whose terminal is closed then."""

    keys: str
    pressed: int = 0
    ended: bool = False

    def key(self) -> str:
        key = self.keys[self.pressed : self.pressed + 1]
        self.pressed, self.ended = self.pressed + 1, not key
        return key


@dataclass
class FakeBench(Bench):
    """Counts how often its graph is started."""

    client: Any = field(default_factory=FakeGraph)
    started: list[str] = field(default_factory=list)

    @contextmanager
    def up(self, policy: Mapping[str, Any]) -> Iterator[Any]:
        self.started.append(policy["label"])
        yield self.client


def bench(folder: Path, keys: str, said: list[str] | None = None, client: FakeGraph | None = None) -> FakeBench:
    person: Any = Keys(keys)
    say = ([] if said is None else said).append
    return FakeBench("franka", (), folder, person, say, client or FakeGraph())


SERVED = ("--policy", "ours=ws://127.0.0.1:8000", "--policy", "pi05=ws://127.0.0.1:8001")


def test_nobody_knows_an_order_that_was_drawn_without_a_seed(tmp_path: Path) -> None:
    for name, seed in (("a", ()), ("b", ()), ("c", ("--seed", "1")), ("d", ("--seed", "1"))):
        assert main(["plan", *SERVED, *seed, "--out", str(tmp_path / name)]) == 0
    a, b, c, d = (read_plan(tmp_path / name) for name in "abcd")
    assert a.trials != b.trials and a.seed != b.seed and c == d


def test_the_graph_is_started_for_every_trial_whichever_policy_comes(tmp_path: Path) -> None:
    plan, store = draw("e0_real", ["pick"], POLICIES, 2, 0), TrialStore(tmp_path)
    person = bench(tmp_path, " s e s s s")
    run_trials(plan, store, person)
    assert person.started == [plan.sealed[trial.policy]["label"] for trial in plan.trials]


def test_a_single_policy_has_nothing_to_hide(tmp_path: Path) -> None:
    plan, store = draw("e0_real", ["pick"], {"ours": POLICIES["ours"]}, 3, 0), TrialStore(tmp_path)
    person = bench(tmp_path, " s s s")
    run_trials(plan, store, person)
    run_trials(plan, store, person)
    assert person.started == ["ours"]
