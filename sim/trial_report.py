"""Trials as evaluations: a folder per policy that `e0 compare` reads, reports, and the paper's rows beside them."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2

from e0_policy.files import finite, write_json
from e0_ros.config import ConfigError
from sim.comparison import REAL
from sim.demonstration import PERIOD_NS
from sim.eval_pictures import bag_video, first_frame_path, video_path, write_first_frame
from sim.eval_report import write_report
from sim.eval_rollouts import ERROR, FAILURE, POLICY, SUCCESS, Job, Rollout, RolloutStore
from sim.eval_run import REPORT, SUMMARY
from sim.eval_summary import summary
from sim.trial_conditions import kept_conditions
from sim.trial_plan import TrialPlan
from sim.trial_store import Done

REVEALED = "revealed.json"


def reveal(folder: Path, plan: TrialPlan, done: Mapping[int, Done], early: bool) -> int:
    """How many trials were run before anybody was told which policy is which.

    Raises:
        ConfigError: not all were run, and nobody asked for the names all the same.

    """
    ran, path = sum(trial.outcome != ERROR for trial in done.values()), folder / REVEALED
    if path.is_file():
        return int(json.loads(path.read_text(encoding="utf-8"))["after"])
    if ran < len(plan.trials) and not early:
        raise ConfigError(
            f"{ran} of {len(plan.trials)} trials are done; the names are told when all are, or now with --reveal, "
            "after which the rest is not blind and the report says so"
        )
    path.write_text(json.dumps({"after": ran}) + "\n", encoding="utf-8")
    return ran


def write_reports(
    folder: Path, plan: TrialPlan, done: Mapping[int, Done], blind: int, videos: int
) -> dict[str, dict[str, Any]]:
    """Write a folder per policy, named by its label; returns their summaries."""
    told = {}
    for mark, policy in plan.sealed.items():
        own = [trial for trial in done.values() if trial.policy == mark]
        told[policy["label"]] = _write_one(folder, folder / policy["label"], plan, policy, own, blind, videos)
    return told


def _write_one(
    folder: Path,
    out: Path,
    plan: TrialPlan,
    policy: Mapping[str, Any],
    own: Sequence[Done],
    blind: int,
    videos: int,
) -> dict[str, Any]:
    rows = [_rollout(trial) for trial in own]
    shutil.rmtree(out, ignore_errors=True)
    configuration = {
        "simulator": REAL,
        "mode": REAL,
        "checkpoint": policy["name"],
        "settings": dict(policy["settings"]),
        "benchmark": plan.benchmark,
        "plan": plan.identity,
        "seed": plan.seed,
        "blind_trials": f"{min(blind, len(plan.trials))} of {len(plan.trials)}",
        **kept_conditions(folder),
    }
    store = RolloutStore(out, configuration)
    for row in rows:
        store.add(row)
    store.close()
    _pictures(folder, out, own, videos)
    missing = sum(trial.policy == own[0].policy for trial in plan.trials) - len(rows) if own else len(plan.trials)
    figures = {**summary(rows, configuration), "missing": missing, "scores": _scores(own)}
    told: dict[str, Any] = finite(figures)
    write_json(out / SUMMARY, told)
    write_report(out / REPORT, told, rows, out)
    return told


def _rollout(trial: Done) -> Rollout:
    steps = lambda seconds: round(seconds * 1e9 / PERIOD_NS)  # noqa: E731
    note = f"{trial.stages} of {trial.of} stages" if trial.of and trial.outcome == FAILURE else ""
    return Rollout(
        POLICY,
        trial.task,
        trial.scene,
        trial.outcome,
        steps=steps(trial.time_s),
        max_steps=steps(trial.limit_s),
        time_to_success_s=trial.time_s if trial.outcome == SUCCESS else math.nan,
        wall_s=trial.time_s,
        bag=trial.bag,
        error=", ".join(filter(None, (trial.note, note))),
    )


def _scores(own: Sequence[Done]) -> dict[str, float]:
    """Mean share of the stages reached, of tasks that have stages."""
    found: dict[str, list[float]] = {}
    for trial in own:
        if trial.of and trial.outcome != ERROR:
            found.setdefault(trial.task, []).append(trial.stages / trial.of)
    return {task: sum(shares) / len(shares) for task, shares in found.items()}


def _pictures(folder: Path, out: Path, own: Sequence[Done], videos: int) -> None:
    """First frames of all, and videos of the first successes and failures of each task."""
    shown: dict[tuple[str, str], int] = {}
    for trial in own:
        job, bag = Job(POLICY, trial.task, trial.scene), Path(trial.bag)
        scene = sorted((folder / "scenes" / f"{trial.task}-{trial.scene}").glob("*.png"))
        if scene:
            write_first_frame(first_frame_path(out, job), {p.stem: cv2.imread(str(p))[..., ::-1] for p in scene})
        kind = trial.task, trial.outcome
        if trial.bag and bag.exists() and shown.setdefault(kind, 0) < videos:
            shown[kind] += 1
            bag_video(bag, video_path(out, job))
