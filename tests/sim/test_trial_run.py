"""Trials with a person's keys, over a graph that is not there."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from e0_ros import interfaces
from e0_ros.graph_client import GraphRefusal
from e0_ros.interfaces import Service
from e0_ros.resolve import GraphError
from sim import trial_conditions
from sim.trial_bench import Bench
from sim.trial_conditions import conditions, keep_conditions
from sim.trial_plan import draw, read_plan
from sim.trial_run import Quit, run_trials
from sim.trial_store import TrialStore
from sim.trials import main
from tests.sim.test_trial_plan import POLICIES, done
from tests.test_record_take import STEPS, FakeGraph


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


FRANKA = ("robot_ip:=172.16.0.2", "serials:=1,2")
SERVED = ("--policy", "ours=ws://127.0.0.1:8000", "--policy", "pi05=ws://127.0.0.1:8001")


def test_nobody_knows_an_order_that_was_drawn_without_a_seed(tmp_path: Path) -> None:
    for name, seed in (("a", ()), ("b", ()), ("c", ("--seed", "1")), ("d", ("--seed", "1"))):
        assert main(["plan", *SERVED, *seed, "--out", str(tmp_path / name)]) == 0
    a, b, c, d = (read_plan(tmp_path / name) for name in "abcd")
    assert a.trials != b.trials and a.seed != b.seed and c == d


def test_trials_go_on_only_under_the_conditions_that_they_began_under(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out, settings = tmp_path / "trials", tmp_path / "mine.yaml"
    settings.write_text("chunk_executor: {velocity_scale: 0.2}")
    words = ["simulator:=fr3_plant", f"settings:={settings}"]
    assert main(["plan", *SERVED, "--out", str(out)]) == 0
    keep_conditions(out, conditions("franka", FRANKA), begun=False)
    keep_conditions(out, conditions("sim", words), begun=False)
    store = TrialStore(out)
    store.add(done(1, "policy_1", "failure"))
    store.close()
    keep_conditions(out, conditions("sim", [*words, "python:=python3", "speed:=1"]), store.begun)

    def refused(*changed: str) -> str:
        assert main(["run", str(out), *changed]) == 2
        return capsys.readouterr().err

    assert "arguments.speed was 1.0 and is 0.25; go on as it was begun" in refused("sim", *words, "speed:=0.25")
    assert "graph was sim and is franka" in refused("franka", *FRANKA)
    settings.write_text("chunk_executor: {velocity_scale: 0.5}")
    assert "arguments.settings.chunk_executor.velocity_scale was 0.2 and is 0.5" in refused("sim", *words)
    settings.write_text("chunk_executor: {velocity_scale: 0.2}")
    monkeypatch.setattr(trial_conditions, "code_version", lambda: "another")
    assert "and is another" in refused("sim", *words)


def test_another_address_or_camera_is_no_other_condition() -> None:
    assert conditions("franka", FRANKA) == conditions("franka", ["robot_ip:=172.16.0.3", "serials:=3,4"])


def test_a_policy_that_is_not_the_one_that_was_planned_is_not_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint, out = tmp_path / "mine", tmp_path / "trials"
    checkpoint.mkdir()
    training = {"weights_sha256": "1" * 64, "sha256": "2" * 64, "embodiment": "fr3", "execution_horizon": 8,
                "model": {"views": ["base"], "image_size": 224}, "training": {},
                "transform": {"actions": {"names": []}}}  # fmt: skip
    (checkpoint / "config.json").write_text(json.dumps(training))
    assert main(["plan", "--policy", f"ours={checkpoint}", "--out", str(out)]) == 0
    (checkpoint / "config.json").write_text(json.dumps({**training, "weights_sha256": "3" * 64}))
    assert main(["run", str(out), "franka", *FRANKA]) == 2
    assert f"holds {'3' * 16}/22222222, and the trials were planned with {'1' * 16}/" in capsys.readouterr().err


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


@dataclass
class Refuses(FakeGraph):
    """Refuses a service once. Knows the scenes of the takes that it began."""

    scenes: list[int] = field(default_factory=list)

    def call(self, service: Service, **fields: Any) -> Any:
        try:
            reply = super().call(service, **fields)
        except GraphRefusal:
            self.refuses = None
            raise
        self.scenes += [fields["seed"]] if service is interfaces.START_EPISODE else []
        return reply


@pytest.mark.parametrize("refuses", STEPS[:3], ids=lambda service: service.name)
def test_a_start_that_is_refused_is_tried_again_in_the_same_scene(tmp_path: Path, refuses: Service) -> None:
    plan, store, said = draw("e0_real", ["pick"], POLICIES, 1, 0), TrialStore(tmp_path), list[str]()
    person = bench(tmp_path, "  s s", said, client := Refuses(refuses))
    run_trials(plan, store, person)
    assert f"  error: {refuses.owner} refused" in said
    assert len(person.started) == 2 and client.scenes == [0, 0]


@dataclass
class Away(FakeGraph):
    """An arm that its policies leave away from home."""

    from_home_rad: float = 0.3

    def bring(self, service: Service) -> None:
        assert service is interfaces.HOME
        self.from_home_rad = 0.001

    def arm(self, not_before: Any) -> None:
        super().arm(not_before)
        self.from_home_rad = 0.3


def test_no_policy_begins_where_another_left_the_arm_unless_it_is_asked_for_twice(tmp_path: Path) -> None:
    plan, store, said = draw("e0_real", ["pick"], POLICIES, 1, 0), TrialStore(tmp_path), list[str]()
    run_trials(plan, store, bench(tmp_path, " h s  f", said, Away()))
    hint = "  0.30 rad from home: h brings the arm home, space once more starts from here"
    assert said.count(hint) == 2
    assert [(t.outcome, t.note) for t in store.done.values()] == [("success", ""), ("failure", "0.30 rad from home")]


def test_a_verdict_that_the_recorder_refuses_counts_and_says_so(tmp_path: Path) -> None:
    plan, store = draw("e0_real", ["pick"], POLICIES, 1, 0), TrialStore(tmp_path)
    run_trials(plan, store, bench(tmp_path, " s f", client=Refuses(interfaces.END_EPISODE)))
    first, second = TrialStore(tmp_path).done.values()
    assert (first.outcome, second.outcome, second.note) == ("success", "failure", "")
    assert first.note == "episode_recorder refused; no take runs any more, what was recorded is kept unlabelled"


def test_a_failure_stays_one_if_nobody_tells_how_far_it_came(tmp_path: Path) -> None:
    plan, store = draw("e0_real", ["stack"], POLICIES, 1, 0), TrialStore(tmp_path)
    with pytest.raises(Quit):
        run_trials(plan, store, bench(tmp_path, " f"))
    (kept,) = TrialStore(tmp_path).done.values()
    assert (kept.outcome, kept.stages, kept.of) == ("failure", 0, 0)
    run_trials(plan, store, bench(tmp_path, " f2"))
    assert [(t.outcome, t.stages, t.of) for t in store.done.values()] == [("failure", 0, 0), ("failure", 2, 3)]


def test_a_graph_that_stops_is_no_failure_of_the_policy(tmp_path: Path) -> None:
    @dataclass
    class Stops(FakeGraph):
        def health(self) -> None:
            if self.armed:
                raise GraphError("the graph has stopped")

    plan, store = draw("e0_real", ["pick"], POLICIES, 1, 0), TrialStore(tmp_path)
    with pytest.raises(GraphError):
        run_trials(plan, store, bench(tmp_path, " ", client=Stops()))
    assert not store.done
