"""Figures of an evaluation: from rollouts to what a table, a JSON file and a report show."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from e0_policy.learned_seeds import seed_ranges
from sim.eval_rollouts import CONDITIONS, ERROR, POLICY, SUCCESS, Rollout
from sim.simulators import official_steps
from sim.statistics import percentile, wilson_interval


def figures(rollouts: Sequence[Rollout]) -> dict[str, Any]:
    """Figures of some rollouts. Errors are counted and left out of everything else; NaN, None: nothing to measure."""
    valid = [r for r in rollouts if r.outcome != ERROR]
    successes = [r for r in valid if r.outcome == SUCCESS]
    low, high = wilson_interval(len(successes), len(valid))
    judged = [r.violations for r in valid if r.violations >= 0]
    return {
        "episodes": len(rollouts),
        "errors": len(rollouts) - len(valid),
        "successes": len(successes),
        "success_rate": len(successes) / len(valid) if valid else None,
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

    `task_average` is the mean of the tasks' success rates, each task weighing the same. `official` counts only
    successes within the limit that the benchmark registers, `official_steps`, where that is shorter. `errors` are the
    policy's, `control_errors` those of the controls.
    """
    main = [r for r in rollouts if r.condition == POLICY]
    by_task = {task: _with_official(own, configuration) for task, own in _by_task(main).items()}
    rates = [f["success_rate"] for f in by_task.values() if f["success_rate"] is not None]
    limits = sorted({r.max_steps for r in main if r.max_steps})
    return {
        **figures(main),
        "task_average": sum(rates) / len(rates) if rates else None,
        "control_errors": sum(r.condition != POLICY and r.outcome == ERROR for r in rollouts),
        "max_steps": limits[0] if len(limits) == 1 else limits,
        "seeds": {task: seed_ranges(r.seed for r in main if r.task == task) for task in by_task},
        "tasks": by_task,
        "controls": {
            condition: {task: figures(one) for task, one in _by_task(own).items()}
            for condition in CONDITIONS
            if condition != POLICY and (own := [r for r in rollouts if r.condition == condition])
        },
        "configuration": dict(configuration),
    }


def _with_official(rollouts: Sequence[Rollout], configuration: Mapping[str, Any]) -> dict[str, Any]:
    found = figures(rollouts)
    found["max_steps"] = max(r.max_steps for r in rollouts)
    found["official_steps"] = limit = official_steps(str(configuration["simulator"]), rollouts[0].task)
    if 0 < limit < found["max_steps"]:
        valid = found["episodes"] - found["errors"]
        within = sum(r.outcome == SUCCESS and r.steps <= limit for r in rollouts)
        found["official"] = {"successes": within, "success_rate": within / valid if valid else None}
    return found


def rate(f: Mapping[str, Any]) -> str:
    """A success rate with its interval: `31/40 = 78 % (62 to 88)`."""
    valid = f["episodes"] - f["errors"]
    if not valid:
        return "no valid rollout"
    interval = f"({100 * f['wilson_low']:.0f} to {100 * f['wilson_high']:.0f})"
    return f"{f['successes']}/{valid} = {100 * f['success_rate']:.0f} % {interval}"


def number(value: float | None, form: str = ".1f") -> str:
    """A figure, or a dash if there is none."""
    return "-" if value is None or not math.isfinite(value) else format(value, form)


def percent(share: float | None) -> str:
    """A share in percent, or a dash if there is none."""
    return "-" if share is None else f"{100 * share:.0f} %"


def moved_cameras(configuration: Mapping[str, Any]) -> str:
    """How the fixed cameras of a run were moved, in words; empty if they were not."""
    angle = configuration.get("camera_shift_deg", 0.0)
    if not angle:
        return ""
    knowing = "calibrated again" if configuration.get("camera_poses") == "true" else "not calibrated again"
    return f"fixed cameras moved by {angle:g} deg, {knowing}"


def learned_words(told: Mapping[str, Any]) -> str:
    """Which of the seeds of a run its policy has learned from, in words; empty if none, or if that is not known."""
    learned = told.get("learned_seeds") or {}
    return f"it has learned from {', '.join(f'{task} {seeds}' for task, seeds in learned.items())}" if learned else ""


def policy_name(configuration: Mapping[str, Any]) -> str:
    """Which policy a run had, in words."""
    name = str(configuration.get("checkpoint", "")).rpartition("/")[0]
    return (name if " " in name else f"E0 {name}") if name else "scripted expert"


COLUMNS = (
    "task",
    "success (95 % Wilson)",
    "limit",
    "in official",
    "median time",
    "jerk",
    "inference",
    "violations",
    "errors",
)


def table_rows(told: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Rows under `COLUMNS`: one per task, then the controls."""
    rows: list[tuple[str, ...]] = [
        (
            task,
            rate(f),
            f"{f['max_steps']} steps",
            f"{percent(f['official']['success_rate'])} in {f['official_steps']}" if "official" in f else "-",
            f"{number(f['time_to_success_s_median'], '.2f')} s",
            f"{number(f['jerk_rad_s3_median'], '.0f')} rad/s3",
            f"{number(f['latency_ms_p50'])} / {number(f['latency_ms_p99'])} ms",
            number(f["violations"], "d"),
            str(f["errors"]),
        )
        for task, f in told["tasks"].items()
    ]
    for condition, tasks in told["controls"].items():
        for task, f in tasks.items():
            rows.append((f"{task}: {CONDITIONS[condition]}", rate(f), "", "", "", "", "", "", str(f["errors"])))
    return rows


def table(told: Mapping[str, Any]) -> str:
    """The closing table. Median time is to success; inference is the median and the slowest plan's."""
    rows = [COLUMNS, *table_rows(told)]
    refused = told["refused_chunks"]
    used = [
        i
        for i in range(len(COLUMNS))
        if any(row[i] not in ("", "-", "- s", "- / - ms", "- rad/s3") for row in rows[1:])
    ]
    widths = [max(len(row[i]) for row in rows) for i in used]
    lines = ["  ".join(row[i].ljust(w) for i, w in zip(used, widths, strict=True)).rstrip() for row in rows]
    lines += (
        [f"{refused} chunks were refused: rows out of limits or workspace, or too far from the arm"] if refused else []
    )
    lines += [f"NOT UNSEEN: {words}; take seeds from where these end"] if (words := learned_words(told)) else []
    return "\n".join(f"  {line}" for line in lines)


def _by_task(rollouts: Iterable[Rollout]) -> dict[str, list[Rollout]]:
    found: dict[str, list[Rollout]] = {}
    for rollout in rollouts:
        found.setdefault(rollout.task, []).append(rollout)
    return found


def _known(values: Iterable[float]) -> list[float]:
    return [value for value in values if not math.isnan(value)]
