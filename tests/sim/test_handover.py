from __future__ import annotations

import json
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from e0_policy.dataset import DatasetError
from e0_policy.embodiment import load_embodiment
from e0_policy.packed_writer import Header, PackedWriter
from e0_policy.policy import PolicyOutput
from e0_policy.types import NoChunk, Observation
from e0_ros.core.plan_keeper import InForce
from sim import handover, handover_command
from sim.collect_config import CollectConfig
from sim.collect_episode import demonstrations, take
from sim.direct import START_NS
from sim.evaluation import EvalConfig, completed
from sim.fr3_plant import Fr3Plant
from sim.handover import (
    EVERY_NS,
    HORIZON,
    MS,
    TICK_NS,
    Busy,
    Figures,
    Planner,
    RecordedPlans,
    drawn_motion,
    measure_plans,
    measure_policy,
    measure_recorded,
)
from sim.sources import PolicySource
from tests.test_policies import DATA as CARD
from tests.test_policies import write as write_card

FR3 = load_embodiment("fr3")
MOTION = drawn_motion(FR3, 0, seconds=3.0)
ROWS = np.column_stack((MOTION, np.linspace(1.0, 0.0, len(MOTION))))


def test_a_motion_begins_at_rest_at_home_and_moves() -> None:
    np.testing.assert_array_equal(MOTION[0], FR3.home)
    assert np.abs(MOTION[1] - MOTION[0]).max() < 0.01 and np.ptp(MOTION, axis=0).min() > 0.01
    assert not np.array_equal(MOTION, drawn_motion(FR3, 1, seconds=3.0))


def test_what_continues_a_plan_agrees_with_it_where_it_is_committed() -> None:
    planner = Planner(FR3, ROWS, 0, continues=True)
    first = planner.plan(START_NS, None, START_NS)
    later = START_NS + 4 * TICK_NS
    second = planner.plan(later, first, later + 100 * MS)
    np.testing.assert_array_equal(second.rows[:3], first.rows[4:7])
    assert 1e-4 < np.abs(second.rows[3, :-1] - first.rows[7, :-1]).max() < 0.01
    other = Planner(FR3, ROWS, 0, continues=False)
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


REACH = CollectConfig(("Reach-v0",), ("base",), episodes=1, size_px=16)


@pytest.fixture(scope="module")
def demos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One solved episode of seed 3, as `e0 collect` keeps it."""
    taken = take(REACH, "Reach-v0", 3, keep=True).taken
    assert taken is not None
    names = (*FR3.joint_names, "gripper")
    writer = PackedWriter(tmp_path_factory.mktemp("demos") / "one", Header("fr3", TICK_NS, ("base",), 16, names))
    writer.add(taken.episode, {"base": taken.images[0]})
    return writer.close()


def test_a_demonstrations_plans_solve_its_own_scene_again_with_the_same_figures(demos: Path) -> None:
    rows, plant = demonstrations(demos, "Reach-v0")[3], Fr3Plant(("base",), 16, 16)
    found = measure_recorded(plant, rows, "Reach-v0", "committed", 100, 3)
    assert found.success and found.violations == 0 and found.held == 0.0
    assert found.plans >= len(rows) * TICK_NS // (EVERY_NS + 2 * TICK_NS)
    assert found == measure_recorded(plant, rows, "Reach-v0", "committed", 100, 3)
    assert found.seam_jerk < 0.6 * measure_recorded(plant, rows, "Reach-v0", "replace", 100, 3).seam_jerk
    assert not measure_recorded(plant, rows[:1], "Reach-v0", "committed", 100, 3).success


def test_latency_delays_a_demonstration_and_takes_nothing_from_it() -> None:
    source = RecordedPlans(FR3, ROWS, 0, 120, continues=True)
    seen = Observation(START_NS, {}, FR3.home, 1.0, embodiment="fr3", joint_names=FR3.joint_names)
    first = source.answer(seen, None)
    ends = np.arange(HORIZON) - 3
    np.testing.assert_allclose(first.rows[:, :-1], MOTION[np.maximum(ends, 0)], atol=0.02)
    np.testing.assert_array_equal(first.rows[:, -1], ROWS[np.maximum(ends, 0), -1])
    np.testing.assert_array_equal(first.rows[0, :-1], MOTION[0])
    assert not source.looks(START_NS)
    soon = Observation(START_NS + TICK_NS, {}, FR3.home, 1.0, embodiment="fr3", joint_names=FR3.joint_names)
    assert isinstance(source.answer(soon, None), NoChunk)
    later_ns = START_NS + EVERY_NS
    later = Observation(later_ns, {}, FR3.home, 1.0, embodiment="fr3", joint_names=FR3.joint_names)
    told = InForce(later_ns, "policy", first.session, first.sequence, later_ns, first.t0_ns)
    np.testing.assert_array_equal(source.answer(later, told).rows[:4, :-1], first.rows[4:8, :-1])
    source.reset("", 0)
    np.testing.assert_array_equal(source.answer(later, None).rows[0], ROWS[0])


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"period_ns": 10**8}, "100000000 ns apart; needed are 50000000"),
        ({"representation": "ee_delta_step"}, "ee_delta_step; needed are joint_position"),
    ],
)
def test_a_folder_of_other_rows_or_without_the_task_is_refused(
    demos: Path, tmp_path: Path, changed: dict, told: str
) -> None:
    with pytest.raises(DatasetError, match="no episode of Detour-v0; it has Reach-v0"):
        demonstrations(demos, "Detour-v0")
    for path in demos.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    index = json.loads((tmp_path / "index.json").read_text())
    (tmp_path / "index.json").write_text(json.dumps({**index, **changed}))
    with pytest.raises(DatasetError, match=told):
        demonstrations(tmp_path, "Reach-v0")


def test_demonstrations_are_rows_of_the_same_table_with_success(demos: Path, tmp_path: Path, capsys) -> None:
    arguments = ["--out", str(tmp_path), "--motions", "0", "--demonstrations", str(demos), "--latencies", "0"]
    assert handover_command.main([*arguments, "--strategies", "blend", "--task", "Detour-v0"]) == 2
    assert "no episode of Detour-v0" in capsys.readouterr().err
    assert handover_command.main([*arguments, "--strategies", "blend", "--task", "Reach-v0"]) == 0
    assert "| recorded | 0 | blend | 1/1 |" in capsys.readouterr().out
    (row,) = json.loads((tmp_path / "handover.json").read_text())["summary"]
    assert row["successes"] == row["n"] == 1 and row["seam_jerk"] > 0 and row["violations"] == 0
    assert (tmp_path / "recorded.png").stat().st_size > 10_000


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
    capsys.readouterr()
    other = tmp_path / "other.npz"
    np.savez(other, rows=np.ones((100, 8)), period_ns=50_000_000, embodiment="fr3")
    assert handover_command.main([*arguments, "--recording", str(other)]) == 2
    assert "runs-plans.json is of another configuration: recording was '' and is '" in capsys.readouterr().err
    (tmp_path / "runs-plans.json").write_text("[]")
    assert handover_command.main(arguments) == 2
    assert "was measured with an older version" in capsys.readouterr().err


def test_runs_of_what_has_changed_where_it_lay_are_refused(tmp_path, demos, monkeypatch, capsys) -> None:
    for measure in ("_recorded", "_policy"):
        monkeypatch.setattr(handover_command, measure, lambda *_: lambda *run: Figures(*run, 1, 1, 1, 0, 1, 0, True))
    recording, shown = tmp_path / "motion.npz", Path(shutil.copytree(demos, tmp_path / "demos"))
    np.savez(recording, rows=ROWS, period_ns=TICK_NS, embodiment="fr3")
    policy = ["--checkpoint", str(write_card(tmp_path / "policy")), "--simulator", "fr3_plant", "--seeds", "0:1"]
    words = ["--out", str(tmp_path / "out"), "--strategies", "blend", "--latencies", "0", "--task", "Reach-v0"]
    words += ["--motions", "1", "--recording", str(recording), "--demonstrations", str(shown), *policy]
    assert handover_command.main(words) == handover_command.main(words) == 0

    np.savez(recording, rows=ROWS[1:], period_ns=TICK_NS, embodiment="fr3")
    assert handover_command.main(words) == 2
    assert "runs-plans.json is of another configuration: recording was" in capsys.readouterr().err
    np.savez(recording, rows=ROWS, period_ns=TICK_NS, embodiment="fr3")
    actions = np.load(shown / "actions.npy")
    np.save(shown / "actions.npy", actions + 0.01)
    assert handover_command.main(words) == 2
    assert "runs-recorded.json is of another configuration: demonstrations was" in capsys.readouterr().err
    shutil.rmtree(shown)
    shutil.copytree(demos, shown)
    write_card(tmp_path / "policy", {**CARD, "weights_sha256": "ef" * 32})
    assert handover_command.main(words) == 2
    told = f"runs-policy.json is of another configuration: checkpoint was '{'ab' * 8}/cdcdcdcd' and is '{'ef' * 8}/"
    assert told in capsys.readouterr().err
    monkeypatch.setattr(handover_command, "code_version", lambda: "other")
    assert handover_command.main(words) == 2 and "code_version was" in capsys.readouterr().err


def test_a_policy_of_others_plans_for_the_simulators_arm() -> None:
    pytest.importorskip("msgpack", reason="msgpack is not installed (extra [remote])")
    pytest.importorskip("websockets", reason="websockets is not installed (extra [remote])")
    from tests.e0_policy.policy_servers import serving

    with serving(lambda request: {"actions": request["observation/state"][None]}) as address:
        config = completed(EvalConfig(simulator="fr3_plant", mode="direct", checkpoint=address))
        measure = handover_command._policy(config, "Reach-v0")
    assert isinstance(measure, partial) and measure.args[0].embodiment == "fr3"


def test_wrong_arguments(tmp_path, capsys) -> None:
    assert handover_command.main(["--out", str(tmp_path), "--latencies", "-5"]) == 2
    assert "allowed is 0 to 2000" in capsys.readouterr().err
    assert handover.thinking_ns(0) == 0 and handover.thinking_ns(120) == 4 * TICK_NS
