from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from e0_ros.config import ConfigError
from sim.comparison import compare, open_run
from sim.paper import paper_tables
from sim.trial_plan import PLAN, benchmark, draw, order, read_plan
from sim.trial_report import reveal, write_reports
from sim.trial_sheet import write_sheets
from sim.trial_store import Done, TrialStore

POLICIES = {
    label: {"checkpoint": f"/secret/{label}", "settings": {}, "name": f"{label}{label}/1"}
    for label in ("ours", "baseline")
}


def test_the_shipped_tasks_are_those_of_the_papers_table() -> None:
    shipped = benchmark("e0_real")
    assert (*shipped.tasks, "average") == paper_tables()["2"].columns and shipped.trials == 20
    assert shipped.tasks["stack"].instruction == "Pick up the red block and stack it on the green block."
    assert {task.demonstrations for task in shipped.tasks.values()} == {50, 80}
    assert all(task.limit_s > 0 and task.criterion for task in shipped.tasks.values())


@given(st.integers(1, 5), st.integers(0, 40), st.integers(0, 1000))
def test_every_policy_runs_once_in_each_scene_and_as_often_at_each_place(count: int, scenes: int, seed: int) -> None:
    drawn = order(count, scenes, random.Random(seed))
    assert len(drawn) == scenes and all(sorted(turn) == list(range(count)) for turn in drawn)
    for place in range(count):
        often = Counter(turn[place] for turn in drawn)
        assert max(often.values(), default=0) - min((often[who] for who in range(count)), default=0) <= 1


def test_the_same_seed_draws_the_same_and_another_one_another() -> None:
    drawn = [draw("e0_real", [], POLICIES, 0, seed) for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2] and len(drawn[0].trials) == 8 * 20 * 2
    firsts = Counter(t.policy for t in drawn[0].trials if t.task == "pick" and t.number % 2)
    assert firsts["policy_1"] == firsts["policy_2"] == 10
    assert (
        len({tuple(draw("e0_real", [], POLICIES, 1, seed).sealed["policy_1"].items()).__str__() for seed in range(20)})
        == 2
    )


def test_nothing_that_a_person_sees_names_a_policy(tmp_path: Path) -> None:
    plan = draw("e0_real", ["stack", "pick"], POLICIES, 3, 0)
    plan.write(tmp_path)
    assert read_plan(tmp_path) == plan
    sheets = write_sheets(tmp_path, plan).read_text()
    for word in ("ours", "baseline", "policy_", "secret"):
        assert word not in sheets
    for word in ("ours", "baseline", "secret"):
        assert word not in (tmp_path / PLAN).read_text()
    assert sheets.index("Stack block") < sheets.index("Pick block") and "red block above the green one" in sheets
    with pytest.raises(ConfigError, match="has trials already"):
        plan.write(tmp_path)


def done(number: int, policy: str, outcome: str, scene: int = 0, stages: int = 0) -> Done:
    return Done(number, "stack", scene, policy, outcome, stages, 3, 12.5, 45.0)


def test_verdicts_survive_a_kill_and_errors_are_run_again(tmp_path: Path) -> None:
    store = TrialStore(tmp_path)
    store.add(done(1, "policy_1", "error"))
    store.add(done(2, "policy_2", "success"))
    assert store.missing(1) and not store.missing(2) and store.missing(3)
    store.add(done(1, "policy_1", "failure", stages=2))
    store.close()
    with (tmp_path / "trials.csv").open("a") as file:
        file.write("3,stack,0,poli")
    again = TrialStore(tmp_path)
    assert again.done == {1: done(1, "policy_1", "failure", stages=2), 2: done(2, "policy_2", "success")}
    again.add(done(3, "policy_1", "success", 1))
    again.close()
    assert list(TrialStore(tmp_path).done) == [1, 2, 3]


def test_names_are_told_at_the_end_or_early_and_then_the_report_says_so(tmp_path: Path) -> None:
    plan = draw("e0_real", ["stack"], POLICIES, 2, 0)
    results = {t.number: done(t.number, t.policy, "success", t.scene, 3) for t in plan.trials[:3]}
    with pytest.raises(ConfigError, match="3 of 4 trials are done"):
        reveal(tmp_path, plan, results, early=False)
    assert reveal(tmp_path, plan, results, early=True) == 3
    results[4] = done(4, plan.trials[3].policy, "failure", plan.trials[3].scene, 1)
    assert reveal(tmp_path, plan, results, early=False) == 3
    told = write_reports(tmp_path, plan, results, 3, 0)
    loser = plan.sealed[plan.trials[3].policy]["label"]
    assert told[loser]["tasks"]["stack"]["successes"] == 1 and told[loser]["scores"]["stack"] == pytest.approx(4 / 6)
    assert told[loser]["configuration"]["blind_trials"] == "3 of 4"
    page = (tmp_path / loser / "report.html").read_text()
    assert "1 of 3 stages" in page and "E0 (paper)" in page and "Table 2" in page


def test_policies_of_two_plans_met_in_no_scene(tmp_path: Path) -> None:
    runs = []
    for month in ("may", "june"):
        plan, folder = draw("e0_real", ["stack"], POLICIES, 2, 0), tmp_path / month
        plan.write(folder)
        results = {t.number: done(t.number, t.policy, "success", t.scene, 3) for t in plan.trials}
        write_reports(folder, read_plan(folder), results, 4, 0)
        runs += [open_run(folder / label) for label in POLICIES]
    ours, baseline, later, _ = runs
    assert compare(ours, baseline)["tasks"]["stack"]["pairs"] == 2
    for other in (later, replace(later, configuration={"simulator": "real"})):
        with pytest.raises(ConfigError, match="different plans of trials"):
            compare(ours, other)


@pytest.mark.parametrize(
    ("tasks", "policies", "text"),
    [(["stak"], POLICIES, "did you mean 'stack'"), ([], {}, "at least one policy")],
)
def test_wrong_plans_are_refused(tasks: list[str], policies: dict, text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        draw("e0_real", tasks, policies, 1, 0)


def test_wrong_benchmarks_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no benchmark 'none'"):
        benchmark("none")
    file = tmp_path / "mine.yaml"
    file.write_text("source: x\ntrials: 1\ntasks: {a: {title: A, instruction: B, criterion: C, limit: 3}}")
    with pytest.raises(ConfigError, match=r"task a: unknown key 'limit'; did you mean 'limit_s'"):
        benchmark(str(file))
    file.write_text("tasks: {}")
    with pytest.raises(ConfigError, match="is no benchmark of real tasks: KeyError: 'source'"):
        benchmark(str(file))
