from __future__ import annotations

import json

import numpy as np
import pytest

from e0_policy.embodiment import load_embodiment
from e0_policy.policy import PolicyOutput
from e0_policy.types import NoChunk, Observation
from sim import handover, handover_command
from sim.direct import START_NS
from sim.fr3_plant import Fr3Plant
from sim.handover import MS, TICK_NS, Busy, Planner, drawn_motion, measure_plans, measure_policy
from sim.sources import PolicySource

FR3 = load_embodiment("fr3")
MOTION = drawn_motion(FR3, 0, seconds=3.0)


def test_a_motion_begins_at_rest_at_home_and_moves() -> None:
    np.testing.assert_array_equal(MOTION[0], FR3.home)
    assert np.abs(MOTION[1] - MOTION[0]).max() < 0.01 and np.ptp(MOTION, axis=0).min() > 0.01
    assert not np.array_equal(MOTION, drawn_motion(FR3, 1, seconds=3.0))


def test_what_continues_a_plan_agrees_with_it_where_it_is_committed() -> None:
    planner = Planner(FR3, MOTION, 0, continues=True)
    first = planner.plan(START_NS, None, START_NS)
    later = START_NS + 4 * TICK_NS
    second = planner.plan(later, first, later + 100 * MS)
    np.testing.assert_array_equal(second.rows[:3], first.rows[4:7])
    assert 1e-4 < np.abs(second.rows[3, :-1] - first.rows[7, :-1]).max() < 0.01
    other = Planner(FR3, MOTION, 0, continues=False)
    other.plan(START_NS, None, START_NS)
    np.testing.assert_array_equal(other.plan(later, first, later).rows[0, :-1], MOTION[4])


def test_figures_are_the_same_again_and_tell_the_strategies_apart() -> None:
    runs = {s: measure_plans("fr3", MOTION, s, 100, 0) for s in ("committed", "replace")}
    assert runs["committed"] == measure_plans("fr3", MOTION, "committed", 100, 0)
    assert all(r.violations == 0 and r.held < 0.2 and r.plans > 5 and r.error_mrad < 20 for r in runs.values())
    assert runs["committed"].seam_jerk < 0.6 * runs["replace"].seam_jerk


class Still:
    """Plans to stay where the arm is."""

    embodiment, checkpoint, execution_horizon = "fr3", "still", 2

    def __init__(self) -> None:
        self.told: list[bool] = []

    def reset(self) -> None:
        pass

    def infer(self, observation: Observation, plan: object) -> PolicyOutput:
        self.told.append(plan is not None)
        return PolicyOutput(np.tile(np.append(observation.joint_positions, 1.0), (8, 1)), TICK_NS)


@pytest.mark.parametrize(("strategy", "told"), [("committed", True), ("blend", False)])
def test_a_policy_has_one_plan_in_the_making_and_hears_of_the_last_only_if_it_continues_it(strategy, told) -> None:
    policy = Still()
    found = measure_policy(Fr3Plant(("base",), 16, 16), PolicySource(policy, FR3), "Reach-v0", strategy, 150, 0)
    assert found.success is False and found.violations == 0 and found.held < 0.1
    assert 45 <= found.plans <= 50, "200 ticks, a plan every four of them"
    assert not policy.told[0] and all(t is told for t in policy.told[1:])
    assert found.error_mrad < 1e-6


def test_a_busy_policy_says_so() -> None:
    source = PolicySource(Still(), FR3)
    busy = Busy(source, 100, continues=True)
    seen = Observation(START_NS, {}, FR3.home, 1.0, embodiment="fr3", joint_names=FR3.joint_names)
    busy.answer(seen, None)
    assert not busy.looks(START_NS + 2 * TICK_NS) and busy.looks(START_NS + 3 * TICK_NS)
    later = Observation(START_NS + TICK_NS, {}, FR3.home, 1.0, embodiment="fr3", joint_names=FR3.joint_names)
    answer = busy.answer(later, None)
    assert isinstance(answer, NoChunk) and answer.keep


def test_the_command_writes_table_figures_and_plot_and_goes_on(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(handover_command, "drawn_motion", lambda arm, seed: drawn_motion(arm, seed, seconds=2.0))
    arguments = [
        "--out",
        str(tmp_path),
        "--motions",
        "2",
        "--strategies",
        "blend",
        "replace",
        "--latencies",
        "0",
        "200",
    ]
    assert handover_command.main([*arguments, "--json", str(tmp_path / "own.json")]) == 0
    told = json.loads((tmp_path / "own.json").read_text())
    assert len(told["runs"]) == 8 and len(told["summary"]) == 4
    assert all(row["n"] == 2 and row["violations"] == 0 and row["seam_jerk"] > 0 for row in told["summary"])
    printed = capsys.readouterr().out
    assert printed.count("| plans |") == 4 and (tmp_path / "table.md").read_text() in printed
    assert (tmp_path / "plans.png").stat().st_size > 10_000
    monkeypatch.setattr(handover_command, "measure_plans", lambda *a: pytest.fail("measured again"))
    assert handover_command.main(arguments) == 0


def test_wrong_arguments(tmp_path, capsys) -> None:
    assert handover_command.main(["--out", str(tmp_path), "--latencies", "-5"]) == 2
    assert "allowed is 0 to 2000" in capsys.readouterr().err
    assert handover.thinking_ns(0) == 0 and handover.thinking_ns(120) == 4 * TICK_NS
