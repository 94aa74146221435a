"""Evaluations of the plant, in processes as users start them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from unittest.mock import Mock

import pytest

from e0_ros.config import ConfigError
from e0_ros.policies import settings_of
from sim import eval as evaluation_command
from sim import eval_run
from sim.eval import angles_of, main, seed_range
from sim.eval_pictures import first_frame_path, video_path
from sim.eval_rollouts import ERROR, POLICY, Job, Rollout
from sim.eval_run import EvaluationStopped, Plan, evaluate
from sim.evaluation import EvalConfig, RolloutRunner, completed

PLANT = EvalConfig(simulator="fr3_plant", mode="direct", size=32)
REACH = ("Reach-v0",)


def rows(folder: Path) -> list[str]:
    """Rows without the wall time, in the order of their seeds."""
    lines = (folder / "rollouts.csv").read_text().splitlines()
    column = lines[0].split(",").index("wall_s")
    return sorted(",".join(v for i, v in enumerate(line.split(",")) if i != column) for line in lines[1:])


def test_a_simulator_takes_the_checkpoint_of_its_own_rows_alone(tmp_path, capsys):
    pytest.importorskip("torch", reason="torch is not installed (extra [policy])")
    from tests.e0_policy.tiny import tiny_checkpoint, tiny_step_checkpoint

    joints, steps = str(tiny_checkpoint(tmp_path / "joints")), str(tiny_step_checkpoint(tmp_path / "steps"))
    assert completed(EvalConfig(simulator="libero", checkpoint=steps)).views == ("base", "wrist")
    for simulator, mode, checkpoint, taken in (
        ("libero", "lockstep", joints, r"simulator libero takes ee_delta_step \(dx, dy"),
        ("libero", "raw", joints, r"simulator libero takes ee_delta_step \(dx, dy"),
        ("robotwin", "direct", steps, r"simulator robotwin takes ee_delta_step \(left_joint1"),
        ("fr3_plant", "direct", steps, "simulator fr3_plant takes joint_position or ee_pose"),
    ):
        with pytest.raises(ConfigError, match=taken):
            completed(EvalConfig(simulator=simulator, mode=mode, checkpoint=checkpoint))
    out = ["--out", str(tmp_path / "run")]
    assert main(["--task", "Lift", "--simulator", "libero", "--checkpoint", joints, *out]) == 2
    assert "predicts joint_position (panda_joint1" in capsys.readouterr().err and not (tmp_path / "run").exists()


def test_processes_and_their_order_change_nothing_and_a_second_call_runs_nothing(tmp_path):
    told = evaluate(PLANT, Plan(REACH, range(4), workers=2, videos=1), tmp_path / "two")
    assert (told["episodes"], told["success_rate"], told["errors"], told["missing"]) == (4, 1.0, 0, 0)
    with RolloutRunner(completed(PLANT)) as runner:
        alone = [runner.run(Job(POLICY, "Reach-v0", seed)) for seed in (3, 1, 0, 2)]
    digests = {line.split(",")[3]: line for line in rows(tmp_path / "two")}
    assert all(r.digest in digests[str(r.seed)] for r in alone)
    ran: list[Rollout] = []
    again = evaluate(PLANT, Plan(REACH, range(4), workers=2, videos=1), tmp_path / "two", ran.append)
    assert again == told and not ran
    assert (tmp_path / "two" / "report.html").read_text().count("<video") == 1
    assert video_path(tmp_path / "two", Job(POLICY, "Reach-v0", 0)).stat().st_size > 1000
    assert all(first_frame_path(tmp_path / "two", r.job).is_file() for r in alone)


def test_seeds_that_the_checkpoint_learned_from_are_in_the_summary(monkeypatch):
    """Of the tasks that were run; of a policy that tells none, and of the expert, nothing is known."""
    card = Mock(training={"learned_seeds": {"Reach-v0": "2:9", "Detour-v0": "0:9"}})
    monkeypatch.setattr(eval_run, "card_of", lambda config: card if config.checkpoint else None)
    done = [Mock(task="Reach-v0", seed=seed) for seed in range(4)]
    assert eval_run._learned(EvalConfig(checkpoint="a"), done) == {"Reach-v0": "2:4"}
    assert eval_run._learned(EvalConfig(), done) == {}


def test_a_killed_evaluation_goes_on_where_it_was(tmp_path):
    words = ["--task", "Reach-v0", "--simulator", "fr3_plant", "--size", "32", "--seeds", "0:6", "--direct",
             "--videos", "0", "--out", str(tmp_path / "run"), "--json", str(tmp_path / "figures.json")]  # fmt: skip
    command = [sys.executable, "-m", "sim.eval", *words]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert process.stdout is not None
    while "2/6" not in (line := process.stdout.readline()):
        assert line, "it ended before the second rollout"
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    before = rows(tmp_path / "run")
    assert 2 <= len(before) < 6
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert f"{len(before)} of 6 rollouts are there already" in done.stdout
    assert set(before) < set(rows(tmp_path / "run")) and len(rows(tmp_path / "run")) == 6
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert {"success_rate", "episodes", "wilson_low", "wilson_high", "errors", "max_steps"} <= set(figures)
    assert (figures["episodes"], figures["success_rate"]) == (6, 1.0)


def test_an_exception_is_an_error_and_the_next_rollout_is_not_hurt(monkeypatch):
    with RolloutRunner(completed(PLANT)) as runner:
        good = runner.run(Job(POLICY, "Reach-v0", 0))
        from sim.fr3_plant import Fr3Plant

        with monkeypatch.context() as patch:
            patch.setattr(Fr3Plant, "privileged", lambda self: 1 / 0)
            bad = runner.run(Job(POLICY, "Reach-v0", 0))
        assert (bad.outcome, bad.error) == (ERROR, "ZeroDivisionError: division by zero")
        assert runner.run(Job(POLICY, "Reach-v0", 0)).digest == good.digest


def test_nothing_but_errors_stops_the_evaluation_and_leaves_its_report(tmp_path, monkeypatch):
    def broken(config, assignments, folder, workers, limit_s, on_rollout):
        for given in assignments:
            on_rollout(given, Rollout(POLICY, given.job.task, given.job.seed, ERROR, error="no driver"))

    monkeypatch.setattr(eval_run, "run_in_pool", broken)
    with pytest.raises(EvaluationStopped, match="5 errors one after another; the last: no driver"):
        evaluate(PLANT, Plan(REACH, range(20)), tmp_path)
    told = json.loads((tmp_path / "summary.json").read_text())
    assert (told["episodes"], told["errors"], told["missing"]) == (5, 5, 15)
    assert "15 rollouts are not run yet" in (tmp_path / "report.html").read_text()


def test_errors_of_controls_alone_are_an_exit_status(tmp_path, monkeypatch):
    told = {"episodes": 1, "errors": 0, "control_errors": 3}
    monkeypatch.setattr(evaluation_command, "_evaluate", lambda config, plan, folder: told)
    monkeypatch.setattr(evaluation_command, "table", str)
    words = ["--task", "Reach-v0", "--simulator", "fr3_plant", "--out", str(tmp_path)]
    assert main(words) == 1
    told["control_errors"] = 0
    assert main(words) == 0


def test_a_process_that_dies_or_hangs_is_an_error_of_its_rollout_alone(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", f"{Path(__file__).parent / 'deadly'}:{os.environ.get('PYTHONPATH', '')}")
    plan = Plan(REACH, range(4), limit_s=20.0)
    told = evaluate(PLANT, plan, tmp_path)
    assert (told["episodes"], told["errors"], told["successes"]) == (4, 2, 2)
    text = "\n".join(rows(tmp_path))
    assert "the process of the rollout died (SIGSEGV)" in text and "no end after 20 s" in text


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--task", "Reach-v1"], "no task 'Reach-v1'; did you mean 'Reach-v0'"),
        (["--task", "Reach-v0", "--seeds", "5"], "A:B with A < B is needed"),
        (["--task", "Reach-v0", "--seeds", "5:5"], "A:B with A < B is needed"),
        (["--task", "Reach-v0", "--set", "steps"], "NAME=VALUE is needed"),
        (["--task", "Reach-v0", "--raw"], "--raw is for maniskill"),
        (["--task", "Reach-v0", "--checkpoint", "nowhere"], "nowhere holds no checkpoint"),
        (["--task", "Reach-v0", "--workers", "0"], "workers is 0"),
        (["--task", "Reach-v0", "--workers", "3"], "only direct and raw"),
    ],
)
def test_wrong_arguments_end_with_one_line_and_status_2(words, text, capsys, tmp_path):
    assert main([*words, "--simulator", "fr3_plant", "--out", str(tmp_path / "out")]) == 2
    err = capsys.readouterr().err
    assert text in err and len(err.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_a_wrong_setting_of_inference_ends_with_its_name(tmp_path, capsys):
    pytest.importorskip("torch", reason="torch is not installed (extra [policy])")
    from tests.e0_policy.tiny import tiny_checkpoint

    checkpoint = tiny_checkpoint(tmp_path / "tiny")
    words = ["--task", "Reach-v0", "--simulator", "fr3_plant", "--direct", "--out", str(tmp_path / "out")]
    assert main([*words, "--checkpoint", str(checkpoint), "--set", "stepz=3"]) == 2
    assert "unknown setting 'stepz'" in capsys.readouterr().err


def test_arguments_as_written():
    assert list(seed_range("3:6")) == [3, 4, 5]
    assert settings_of(["steps=4", "noise=redraw"]) == "{steps: 4, noise: redraw}"


def test_angles_are_lists_of_degrees():
    assert angles_of([]) == [0.0] and angles_of(["0,5", "10"]) == [0.0, 5.0, 10.0]
    for words in (["five"], ["5,"], ["inf"]):
        with pytest.raises(ConfigError, match="degrees are needed"):
            angles_of(words)


def test_cameras_of_a_simulator_without_a_scene_cannot_be_moved(capsys):
    words = ["--task", "Reach-v0", "--simulator", "fr3_plant", "--direct", "--camera-shift", "5"]
    assert main(words) == 2
    assert "cameras cannot be moved" in capsys.readouterr().err
