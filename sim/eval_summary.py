"""Figures of an evaluation: from rollouts to what a table, a JSON file and a report show."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sim.eval_rollouts import CONDITIONS, ERROR, POLICY, SUCCESS, Rollout
from sim.statistics import percentile, wilson_interval


def figures(rollouts: Sequence[Rollout]) -> dict[str, Any]:
    """Figures of some rollouts. Errors are counted and left out of everything else; NaN: nothing to measure."""
    valid = [r for r in rollouts if r.outcome != ERROR]
    successes = [r for r in valid if r.outcome == SUCCESS]
    low, high = wilson_interval(len(successes), len(valid))
    judged = [r.violations for r in valid if r.violations >= 0]
    return {
        "episodes": len(rollouts),
        "errors": len(rollouts) - len(valid),
        "successes": len(successes),
        "success_rate": len(successes) / len(valid) if valid else 0.0,
        "wilson_low": low,
        "wilson_high": high,
        "time_to_success_s_median": percentile([r.time_to_success_s for r in successes], 0.5),
        "jerk_rad_s3_median": percentile(_known(r.jerk_rad_s3 for r in valid), 0.5),
        "latency_ms_p50": percentile(_known(r.latency_ms_p50 for r in valid), 0.5),
        "latency_ms_p99": max(_known(r.latency_ms_p99 for r in valid), default=math.nan),
        "violations": sum(judged) if judged else None,
        "stale_observations": sum(r.stale for r in valid),
        "refused_chunks": sum(r.refused for r in valid),
        "holds": sum(r.holds for r in valid),
        "steps": sum(r.steps for r in valid),
        "wall_s": sum(_known(r.wall_s for r in valid)),
    }


def summary(rollouts: Sequence[Rollout], configuration: Mapping[str, Any]) -> dict[str, Any]:
    """The whole evaluation: pooled figures of the policy, figures by task, figures of the controls by task.

    `task_average` is the mean of the tasks' success rates, each task weighing the same.
    """
    main = [r for r in rollouts if r.condition == POLICY]
    by_task = {task: figures([r for r in main if r.task == task]) for task in _tasks(main)}
    rates = [f["success_rate"] for f in by_task.values() if f["episodes"] > f["errors"]]
    controls = {}
    for condition in CONDITIONS:
        own = [r for r in rollouts if r.condition == condition]
        if own and condition != POLICY:
            controls[condition] = {task: figures([r for r in own if r.task == task]) for task in _tasks(own)}
    limits = sorted({r.max_steps for r in main if r.max_steps})
    return {
        **figures(main),
        "task_average": sum(rates) / len(rates) if rates else 0.0,
        "max_steps": limits[0] if len(limits) == 1 else limits,
        "seeds": {task: _ranges(r.seed for r in main if r.task == task) for task in by_task},
        "tasks": by_task,
        "controls": controls,
        "configuration": dict(configuration),
    }


def finite(value: Any) -> Any:
    """The same value with NaN as None, as JSON wants it."""
    if isinstance(value, Mapping):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def rate(f: Mapping[str, Any]) -> str:
    """A success rate with its interval, in words: `31/40 = 78 % (62 to 88)`."""
    valid = f["episodes"] - f["errors"]
    if not valid:
        return "no valid rollout"
    interval = f"({100 * f['wilson_low']:.0f} to {100 * f['wilson_high']:.0f})"
    return f"{f['successes']}/{valid} = {100 * f['success_rate']:.0f} % {interval}"


def _tasks(rollouts: Iterable[Rollout]) -> list[str]:
    return list(dict.fromkeys(r.task for r in rollouts))


def _known(values: Iterable[float]) -> list[float]:
    return [value for value in values if not math.isnan(value)]


def _ranges(seeds: Iterable[int]) -> str:
    """Seeds in short, `A:B` without B: `0:100,200:210`."""
    ordered = sorted(set(seeds))
    starts = [s for s in ordered if s - 1 not in ordered]
    ends = [s + 1 for s in ordered if s + 1 not in ordered]
    return ",".join(f"{a}:{b}" for a, b in zip(starts, ends, strict=True))
