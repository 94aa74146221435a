"""Rollouts over the ROS graph, launched as users launch it; after an error the graph is started anew."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import yaml

from e0_ros.readiness import wait_until_alone
from sim.demonstration import PERIOD_NS
from sim.eval_pictures import first_frame_path, write_first_frame
from sim.eval_rollouts import Job, Rollout
from sim.evaluation import EvalConfig, card_of, ended, error_of, inference_figures, inference_settings
from sim.evaluator import Episode, EvaluationError, Evaluator
from sim.runs import graph_up

PATIENCE_S, EMPTY_S = 120.0, 15.0
"""Longest inference in lock-step; longest wait for a graph before this one to be gone."""


def run_over_graph(
    config: EvalConfig,
    jobs: Sequence[Job],
    folder: Path,
    record: bool,
    on_rollout: Callable[[Job, Rollout], None],
    on_step: Callable[[Episode], None] | None = None,
) -> None:
    """Run rollouts one after the other; logs go to `folder/graph-<n>/logs`, bags to `folder/bags` if `record`.

    Raises:
        GraphError: the graph cannot be launched as asked, or did not come up.
        EvaluationError: its services did not come up, or the ROS domain is not empty.

    """
    waiting, number = deque(jobs), sum(1 for _ in folder.glob("graph-*"))
    while waiting:
        number += 1
        if others := wait_until_alone(EMPTY_S):
            names = ", ".join(others[:4])
            raise EvaluationError(f"this ROS domain has nodes already ({names}); end them or set another ROS_DOMAIN_ID")
        own = {"task": waiting[0].task, "record": record, "bag_dir": str(folder / "bags")}
        with graph_up(
            {**graph_arguments(config), **own}, folder / f"graph-{number}", graph_settings(config)
        ) as evaluator:
            _serve(evaluator, waiting, config, folder, on_rollout, on_step)


def graph_arguments(config: EvalConfig) -> dict[str, Any]:
    """Arguments of the graph `sim` for a completed configuration."""
    card = card_of(config)
    there = config.checkpoint if "://" in config.checkpoint else str(Path(config.checkpoint).resolve())
    source = {"source": "policy", "checkpoint": there} if card else {}
    arm = {"embodiment": card.embodiment} if card and card.embodiment and config.simulator == "fr3_plant" else {}
    where = {"simulator": config.simulator, "mode": config.mode, "views": config.views, "size": config.size}
    where |= {"sim_python": config.sim_python} if config.sim_python else {}
    return {**where, **source, **arm}


def graph_settings(config: EvalConfig) -> dict[str, dict[str, Any]]:
    """Settings of nodes that an evaluation has of its own."""
    settings: dict[str, dict[str, Any]] = {"bridge": {"judge": True, "timeout_s": PATIENCE_S}}
    settings["bridge"] |= {"camera_shift_deg": config.camera_shift_deg, "camera_poses": config.camera_poses}
    if not config.checkpoint:
        settings["experts"] = {"control": config.control}
    else:
        inference = yaml.safe_dump(inference_settings(config.settings), default_flow_style=True).strip()
        told = config.camera_shift_deg > 0 and config.camera_poses == "true"
        settings["policy"] = {"device": config.device, "settings": inference, "camera_places": told}
        settings["policy"]["doubt_nats"] = config.doubt_nats
    return settings


def _serve(
    evaluator: Evaluator,
    waiting: deque[Job],
    config: EvalConfig,
    folder: Path,
    on_rollout: Callable[[Job, Rollout], None],
    on_step: Callable[[Episode], None] | None,
) -> None:
    """Rollouts until none is left or one ends with an error of the graph."""
    judged = 0
    while waiting:
        job, begin = waiting.popleft(), time.perf_counter()
        episode = evaluator.run(0, job.task, job.seed, config.max_steps, on_step)
        rollout = rollout_of(job, episode, judged, time.perf_counter() - begin)
        judged = max(judged, episode.violations)
        if episode.first:
            write_first_frame(first_frame_path(folder, job), episode.first)
        on_rollout(job, rollout)
        if episode.error:
            return


def rollout_of(job: Job, episode: Episode, judged: int, wall_s: float) -> Rollout:
    """An episode of the evaluator as a rollout; `judged` violations had been counted before it."""
    if broken := episode.error or (episode.fault and f"the policy: {episode.fault}"):
        return error_of(job, broken)
    return ended(
        job,
        episode,
        PERIOD_NS,
        violations=episode.violations - judged if episode.violations >= 0 else -1,
        wall_s=wall_s,
        bag=episode.bag,
        **inference_figures(episode.inference_ms),
    )
