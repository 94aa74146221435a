"""Rollouts of an evaluation on a Ray cluster: `run_in_pool` with actors in the place of processes."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from e0_ros.config import ConfigError
from e0_ros.ray_cluster import cluster
from sim.eval_pool import ONE_THREAD, Assignment, RolloutWorker
from sim.eval_rollouts import Rollout
from sim.evaluation import EvalConfig, error_of


def run_on_ray(
    config: EvalConfig,
    assignments: Sequence[Assignment],
    folder: Path,
    address: str,
    workers: int,
    limit_s: float,
    on_rollout: Callable[[Assignment, Rollout], None],
) -> None:
    """Run rollouts in actors of one CPU each: one per CPU of the cluster, but at most `workers` if that is above 1.

    An actor that dies or takes longer than `limit_s` over a rollout makes that rollout an error and is replaced. First
    frames and videos are written by the actors: `folder` must be the same on every machine.

    Raises:
        ConfigError: no Ray or no cluster; or the rollouts cannot begin.

    """
    if not assignments:
        return
    for name in ONE_THREAD:  # a local cluster's processes inherit it; Ray itself gives others one thread per CPU
        os.environ.setdefault(name, "1")
    with cluster(address) as ray:
        count = max(1, int(ray.cluster_resources().get("CPU", 1)))
        count = min(count, workers) if workers > 1 else count
        make = lambda: ray.remote(num_cpus=1)(RolloutWorker).remote(config, folder.absolute())  # noqa: E731
        waiting, busy = deque(assignments), {}

        def give(actor: Any) -> None:
            if waiting:
                given = waiting.popleft()
                busy[actor.run.remote(given)] = _At(actor, given, time.monotonic())

        for _ in range(min(count, len(waiting))):
            give(make())
        while busy:
            ended, _ = ray.wait(list(busy), timeout=1.0)
            late = [answer for answer in busy if answer not in ended and busy[answer].overdue(limit_s)]
            for answer in (*ended, *late):
                at = busy.pop(answer)
                rollout = _result(ray, answer, at) if answer in ended else None
                if rollout is None:  # it died, or was late
                    ray.kill(at.actor)
                    reason = f"no end after {limit_s:.0f} s" if answer in late else "the process of the rollout died"
                    rollout, at.actor = error_of(at.given.job, reason), make() if waiting else None
                give(at.actor)
                on_rollout(at.given, rollout)


@dataclass
class _At:
    """An actor and what it is at."""

    actor: Any
    given: Assignment
    since_s: float

    def overdue(self, limit_s: float) -> bool:
        """Whether it has taken too long."""
        return time.monotonic() - self.since_s > limit_s


def _result(ray: Any, answer: Any, at: _At) -> Rollout | None:
    """An actor's answer; None if it died.

    Raises:
        ConfigError: rollouts cannot begin.

    """
    try:
        said = ray.get(answer)
    except ray.exceptions.RayActorError:
        return None
    if isinstance(said, str):
        raise ConfigError(said)
    result: Rollout = said
    return result
