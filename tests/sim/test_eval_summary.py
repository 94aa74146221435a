from __future__ import annotations

import json

import pytest

from e0_policy.files import finite
from sim.eval_report import write_report
from sim.eval_rollouts import BLANK, POLICY, Rollout
from sim.eval_summary import figures, summary, table

CONFIGURATION = {"simulator": "maniskill", "mode": "direct", "checkpoint": "abc/def", "code_version": "v"}


def rollout(seed: int, outcome: str, task: str = "PickCube-v1", condition: str = POLICY, steps: int = 60) -> Rollout:
    time_s = steps / 20 if outcome == "success" else float("nan")
    return Rollout(condition, task, seed, outcome, steps, 200, time_s, 12.0, 5, 8.0, 9.0, violations=0)


def test_an_error_counts_neither_way():
    f = figures([rollout(0, "success"), rollout(1, "failure"), rollout(2, "error")])
    assert (f["episodes"], f["errors"], f["successes"], f["success_rate"]) == (3, 1, 1, 0.5)
    assert f["wilson_low"] == pytest.approx(0.0945, abs=1e-4)
    nothing = figures([rollout(0, "error")])
    assert (nothing["success_rate"], nothing["wilson_low"], nothing["wilson_high"]) == (None, 0.0, 1.0)


def test_a_summary_has_the_keys_that_scripts_rely_on_and_controls_do_not_mix_in():
    rollouts = [rollout(s, "success") for s in range(4)] + [rollout(s, "failure", condition=BLANK) for s in range(2)]
    rollouts += [rollout(s, "failure", "PushCube-v1") for s in range(12)]
    told = finite(summary(rollouts, CONFIGURATION))
    assert (told["episodes"], told["success_rate"], told["task_average"]) == (16, 0.25, 0.5)
    assert (told["errors"], told["max_steps"], told["violations"]) == (0, 200, 0)
    assert told["seeds"] == {"PickCube-v1": "0:4", "PushCube-v1": "0:12"}
    assert told["controls"]["blank"]["PickCube-v1"]["success_rate"] == 0.0
    assert json.loads(json.dumps(told, allow_nan=False)) == told


def test_controls_that_only_raised_have_no_rate_and_are_counted(tmp_path):
    rollouts = [rollout(0, "success"), rollout(0, "error", condition=BLANK), rollout(1, "error", condition=BLANK)]
    told = finite(summary(rollouts, CONFIGURATION))
    assert (told["errors"], told["control_errors"]) == (0, 2)
    assert told["controls"]["blank"]["PickCube-v1"]["success_rate"] is None
    assert "black pictures  no valid rollout" in table(told)
    write_report(tmp_path / "report.html", told, rollouts, tmp_path)
    assert "<b>2</b><span>errors, not counted" in (tmp_path / "report.html").read_text()


def test_an_evaluation_of_errors_alone_has_no_rate(tmp_path):
    told = finite(summary([rollout(0, "error"), rollout(0, "error", "PushCube-v1")], CONFIGURATION))
    assert (told["success_rate"], told["task_average"]) == (None, None)
    assert "no valid rollout" in table(told)
    write_report(tmp_path / "report.html", told, [], tmp_path)
    assert "mean of the tasks" not in (tmp_path / "report.html").read_text()


def test_success_within_the_official_limit_is_counted_apart():
    told = summary([rollout(0, "success", steps=50), rollout(1, "success", steps=51)], CONFIGURATION)
    assert told["tasks"]["PickCube-v1"]["official"] == {"successes": 1, "success_rate": 0.5}
    assert told["success_rate"] == 1.0


def test_the_table_names_tasks_limits_and_controls():
    told = summary([rollout(0, "success"), rollout(0, "failure", condition=BLANK)], CONFIGURATION)
    text = table(told)
    assert "1/1 = 100 % (21 to 100)" in text and "200 steps" in text and "0 % in 50" in text
    assert "PickCube-v1: black pictures  0/1 = 0 % (0 to 79)" in text


def test_seeds_that_the_policy_learned_from_are_told(tmp_path):
    told = {**summary([rollout(0, "success")], CONFIGURATION), "learned_seeds": {"PickCube-v1": "0:1"}}
    words = "it has learned from PickCube-v1 0:1"
    assert f"NOT UNSEEN: {words}" in table(told)
    write_report(tmp_path / "report.html", told, [rollout(0, "success")], tmp_path)
    assert f"Not unseen: {words}." in (tmp_path / "report.html").read_text()
    told["learned_seeds"] = {}
    assert "UNSEEN" not in table(told)
