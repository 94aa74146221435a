"""An evaluation from configuration to report: what `e0 eval` does, for other code to call.

told = evaluate(EvalConfig(mode="direct", checkpoint="runs/nano/checkpoint"), Plan(("PickCube-v1",), range(5000, 5040)),
                Path("runs/selection"))
told["success_rate"], told["wilson_low"], told["tasks"]["PickCube-v1"]["successes"]
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from e0_policy.files import finite, write_json
from e0_policy.learned_seeds import met_again, seed_ranges
from e0_ros.config import ConfigError
from sim.eval_pictures import bag_video, video_path
from sim.eval_pool import Assignment, run_in_pool
from sim.eval_report import write_report
from sim.eval_rollouts import BLANK, ERROR, FAILURE, OTHER, POLICY, SUCCESS, Job, Rollout, RolloutStore
from sim.eval_summary import summary
from sim.evaluation import GRAPH_MODES, EvalConfig, card_of, check_tasks, completed, identity, other_instruction

BAD_IN_A_ROW = 5
"""So many errors one after another end an evaluation: something is wrong with all of it."""
SUMMARY, REPORT = "summary.json", "report.html"


class EvaluationStopped(RuntimeError):
    """Errors, one after another; the message has the last one."""


@dataclass(frozen=True)
class Plan:
    """Which rollouts.

    Attributes:
        tasks: each with every seed.
        seeds: of the scenes.
        controls: how many of the seeds are also run with black pictures, and with another task's instruction.
        workers: processes of a direct or raw evaluation, and of the controls.
        videos: how many successes and how many failures of each task to show.
        limit_s: longest time for a direct or raw rollout.
        keep_bags: over the graph, record every rollout; else bags are made in real time only, where they become the
            videos.
        ray: address of a Ray cluster for what would run in processes here, or `local`; empty: none.

    """

    tasks: tuple[str, ...]
    seeds: Sequence[int]
    controls: int = 0
    workers: int = 1
    videos: int = 0
    limit_s: float = 900.0
    keep_bags: bool = False
    ray: str = ""

    def __post_init__(self) -> None:
        for name, low in (("controls", 0), ("workers", 1), ("videos", 0)):
            if getattr(self, name) < low:
                raise ConfigError(f"{name} is {getattr(self, name)}; allowed is {low} and up")

    def jobs(self, config: EvalConfig) -> list[Job]:
        """Every rollout: task x seed, then the controls of a checkpoint."""
        jobs = [Job(POLICY, task, seed) for task in self.tasks for seed in self.seeds]
        for condition in (BLANK, OTHER) if config.checkpoint else ():
            for task in self.tasks:
                if condition == BLANK or other_instruction(config.simulator, task):
                    jobs += [Job(condition, task, seed) for seed in self.seeds[: self.controls]]
        return jobs


def evaluate(
    config: EvalConfig,
    plan: Plan,
    folder: Path,
    on_rollout: Callable[[Rollout], None] | None = None,
    on_begin: Callable[[int, int], None] | None = None,
    on_step: Callable[[Any], None] | None = None,
) -> dict[str, Any]:
    """Run what is missing of an evaluation in `folder`, write summary and report there, return the summary.

    Controls run in the direct loop if the evaluation is over the graph.

    Args:
        config: what is evaluated.
        plan: the rollouts.
        folder: of this evaluation; rollouts already in it are kept.
        on_rollout: called after each rollout.
        on_begin: called once with the number of rollouts in all and of those that are done already.
        on_step: over the graph, called at each control step with the episode of `sim.evaluator`.

    Raises:
        ConfigError: a wrong task, checkpoint or setting, or the folder is of another configuration.
        EvaluationStopped: five errors in a row. Summary and report are written all the same, also on Ctrl-C.

    """
    config = completed(config)
    check_tasks(config.simulator, plan.tasks)
    if config.mode in GRAPH_MODES and plan.ray:
        raise ConfigError("--ray: only direct and raw evaluations run on a cluster; a graph is this machine's")
    if config.mode in GRAPH_MODES and plan.workers > 1 and not (config.checkpoint and plan.controls):
        raise ConfigError(f"{plan.workers} workers: only direct and raw evaluations use more than one process")
    store = RolloutStore(folder, identity(config))
    jobs = plan.jobs(config)
    if on_begin:
        on_begin(len(jobs), len(jobs) - len(store.missing(jobs)))
    take = _Intake(store, on_rollout)
    try:
        _run(config, plan, store.missing(jobs), folder, take, on_step)
        _make_videos(config, plan, store, jobs, folder)
    finally:
        store.close()
        told = _tell(store, jobs, folder, config)
    return told


@dataclass
class _Intake:
    """Stores each rollout and stops the evaluation if nothing but errors comes."""

    store: RolloutStore
    on_rollout: Callable[[Rollout], None] | None
    bad: int = 0

    def __call__(self, rollout: Rollout) -> None:
        self.store.add(rollout)
        if self.on_rollout:
            self.on_rollout(rollout)
        self.bad = self.bad + 1 if rollout.outcome == ERROR else 0
        if self.bad >= BAD_IN_A_ROW:
            raise EvaluationStopped(f"{self.bad} errors one after another; the last: {rollout.error}")


def _run(
    config: EvalConfig,
    plan: Plan,
    jobs: Sequence[Job],
    folder: Path,
    take: Callable[[Rollout], None],
    on_step: Callable[[Any], None] | None,
) -> None:
    local = list(jobs)
    if config.mode in GRAPH_MODES:
        from sim.eval_graph import run_over_graph

        graph, local = [j for j in jobs if j.condition == POLICY], [j for j in jobs if j.condition != POLICY]
        record = plan.keep_bags or (config.mode == "realtime" and plan.videos > 0)
        run_over_graph(config, graph, folder, record, lambda _, rollout: take(rollout), on_step)
    in_process = replace(config, mode="direct") if config.mode in GRAPH_MODES else config
    assignments = [Assignment(job) for job in local]
    _in_processes(in_process, plan, assignments, folder, lambda _, rollout: take(rollout))


def _in_processes(
    config: EvalConfig,
    plan: Plan,
    assignments: Sequence[Assignment],
    folder: Path,
    on_rollout: Callable[[Assignment, Rollout], None],
) -> None:
    """Rollouts in processes of this machine, or of a Ray cluster."""
    if plan.ray:
        from sim.eval_ray import run_on_ray

        run_on_ray(config, assignments, folder, plan.ray, plan.workers, plan.limit_s, on_rollout)
    else:
        run_in_pool(config, assignments, folder, plan.workers, plan.limit_s, on_rollout)


def _make_videos(config: EvalConfig, plan: Plan, store: RolloutStore, jobs: Sequence[Job], folder: Path) -> None:
    """Videos of the first successes and failures of each task.

    In real time they are made from the bags. Else the rollout is run once more with an onlooker: it is the same to the
    bit.
    """
    done = [store.rollouts[job] for job in jobs if job in store.rollouts and job.condition == POLICY]
    kinds = [(task, outcome) for task in plan.tasks for outcome in (SUCCESS, FAILURE)]
    shown = [r for kind in kinds for r in [r for r in done if (r.task, r.outcome) == kind][: plan.videos]]
    missing = [r for r in shown if not video_path(folder, r.job).is_file()]
    if config.mode == "realtime":
        for rollout in missing:
            if Path(rollout.bag).exists() and rollout.bag:
                bag_video(Path(rollout.bag), video_path(folder, rollout.job))
        if not plan.keep_bags:
            shutil.rmtree(folder / "bags", ignore_errors=True)
        return
    same = replace(config, mode="direct" if config.mode == "lockstep" else config.mode)
    again = [Assignment(r.job, video_path(folder, r.job)) for r in missing]

    def check_same(given: Assignment, rollout: Rollout) -> None:
        """A video of something else than what was counted is none."""
        if given.video and rollout.digest != store.rollouts[given.job].digest:
            given.video.unlink(missing_ok=True)

    _in_processes(same, plan, again, folder, check_same)


def _learned(config: EvalConfig, done: Sequence[Rollout]) -> dict[str, str]:
    """By task the seeds of rollouts that the checkpoint has learned from, where it tells."""
    training = card.training if (card := card_of(config)) else {}
    tasks = sorted({rollout.task for rollout in done})
    again = {task: met_again(training, task, [r.seed for r in done if r.task == task]) for task in tasks}
    return {task: seed_ranges(seeds) for task, seeds in again.items() if seeds}


def _tell(store: RolloutStore, jobs: Sequence[Job], folder: Path, config: EvalConfig) -> dict[str, Any]:
    done = [store.rollouts[job] for job in jobs if job in store.rollouts]
    about = {"missing": len(jobs) - len(done), "learned_seeds": _learned(config, done)}
    told: dict[str, Any] = finite({**summary(done, identity(config)), **about})
    write_json(folder / SUMMARY, told)
    write_report(folder / REPORT, told, done, folder)
    return told
