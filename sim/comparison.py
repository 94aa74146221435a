"""Two evaluations on the same scenes, pair by pair: what a difference of two success rates is worth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from e0_ros.config import ConfigError
from sim.eval_rollouts import ERROR, POLICY, SUCCESS, Job, Rollout, read_run
from sim.eval_summary import figures, moved_cameras, policy_name, rate
from sim.statistics import mcnemar_p, paired_difference

ALL = "all"
REAL = "real"
"""The simulator of trials on the bench."""
BOTH, ONLY_FIRST, ONLY_SECOND, NEITHER = "both", "only_first", "only_second", "neither"
COLUMNS = ("task", "pairs", "first", "second", "both", "only first", "only second", "neither", "difference", "p")


@dataclass(frozen=True)
class Run:
    """An evaluation that was run: its folder, configuration, and the policy's rollouts, controls left out."""

    folder: Path
    configuration: Mapping[str, Any]
    rollouts: Mapping[Job, Rollout]

    @property
    def name(self) -> str:
        """Its folder's name."""
        return self.folder.resolve().name

    @property
    def title(self) -> str:
        """What was run, in words."""
        parts = (
            policy_name(self.configuration),
            str(self.configuration.get("mode", "")),
            moved_cameras(self.configuration),
        )
        return ", ".join(part for part in parts if part)

    def figures(self, task: str) -> dict[str, Any]:
        """Figures of a task, or of all."""
        return figures([r for r in self.rollouts.values() if task in (ALL, r.task)])


def open_run(folder: Path) -> Run:
    """Read an evaluation's folder.

    Raises:
        ConfigError: it holds none.

    """
    configuration, rollouts = read_run(folder)
    return Run(folder, configuration, {j: r for j, r in rollouts.items() if j.condition == POLICY})


def compare(first: Run, second: Run) -> dict[str, Any]:
    """Figures of every task that both ran, and of `ALL` if there are several; keys are those of `COLUMNS`.

    A pair is a task and seed that both ran without an error.

    Raises:
        ConfigError: they have no pair, are of different simulators, or of different plans of trials.

    """
    if first.configuration.get("simulator") != second.configuration.get("simulator"):
        raise ConfigError(f"{first.folder} and {second.folder} are of different simulators; their scenes differ")
    plans = {run.configuration.get("plan", run.folder) for run in (first, second)}
    if first.configuration.get("simulator") == REAL and len(plans) > 1:
        raise ConfigError(
            f"{first.folder} and {second.folder} are of different plans of trials: their scenes were set up apart, and "
            "no two are a pair; give both policies to one e0 trials plan"
        )
    outcomes = paired(first, second)
    if not outcomes:
        raise ConfigError(f"{first.folder} and {second.folder} have no task and seed in common")
    tasks = list(dict.fromkeys(job.task for job in outcomes))
    rows = {task: _figures([kind for job, kind in outcomes.items() if job.task == task]) for task in tasks}
    if len(tasks) > 1:
        rows[ALL] = _figures(list(outcomes.values()))
    return {
        "first": str(first.folder),
        "second": str(second.folder),
        "differences": differences(first.configuration, second.configuration),
        "left_out": len({*first.rollouts, *second.rollouts}) - len(outcomes),
        "tasks": rows,
    }


def paired(first: Run, second: Run) -> dict[Job, str]:
    """Which of the two succeeded, for every pair, in the order of tasks and seeds."""
    kinds = {(True, True): BOTH, (True, False): ONLY_FIRST, (False, True): ONLY_SECOND, (False, False): NEITHER}
    found = {}
    for job in sorted(set(first.rollouts) & set(second.rollouts)):
        a, b = first.rollouts[job].outcome, second.rollouts[job].outcome
        if ERROR not in (a, b):
            found[job] = kinds[a == SUCCESS, b == SUCCESS]
    return found


def differences(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """What the configurations do not share: the first's value and the second's; `settings.steps` is within one."""
    a, b = _flat(first), _flat(second)
    return {name: (a.get(name), b.get(name)) for name in sorted({*a, *b}) if a.get(name) != b.get(name)}


def shown(value: Any) -> str:
    """A value of a configuration as it is written; a dash for none."""
    return "-" if value in (None, "", [], ()) else str(value)


def _flat(values: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    """Values within mappings by names with dots."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        found |= _flat(value, f"{before}{name}.") if isinstance(value, Mapping) else {f"{before}{name}": value}
    return found


def _figures(kinds: Sequence[str]) -> dict[str, Any]:
    counts = {kind: kinds.count(kind) for kind in (BOTH, ONLY_FIRST, ONLY_SECOND, NEITHER)}
    a, b = counts[ONLY_FIRST], counts[ONLY_SECOND]
    change, low, high = paired_difference(a, b, len(kinds))
    return {
        "pairs": len(kinds),
        "first": counts[BOTH] + a,
        "second": counts[BOTH] + b,
        **counts,
        "difference": change,
        "difference_low": low,
        "difference_high": high,
        "mcnemar_p": mcnemar_p(a, b),
    }


def table_rows(told: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Rows under `COLUMNS`."""
    return [
        (
            task,
            str(f["pairs"]),
            *(f"{f[side]} = {100 * f[side] / f['pairs']:.0f} %" for side in ("first", "second")),
            *(str(f[kind]) for kind in (BOTH, ONLY_FIRST, ONLY_SECOND, NEITHER)),
            f"{100 * f['difference']:+.0f} ({100 * f['difference_low']:+.0f} to {100 * f['difference_high']:+.0f})",
            p_value(f["mcnemar_p"]),
        )
        for task, f in told["tasks"].items()
    ]


def p_value(p: float) -> str:
    """A p value as it is written."""
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def table(first: Run, second: Run, told: Mapping[str, Any]) -> str:
    """What is printed of a comparison."""
    rows = [COLUMNS, *table_rows(told)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(COLUMNS))]
    lines = [f"first   {first.name}: {first.title}", f"second  {second.name}: {second.title}"]
    lines += [f"differ  {name}: {shown(a)} → {shown(b)}" for name, (a, b) in told["differences"].items()]
    lines += ["", *("  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows)]
    if told["left_out"]:
        lines.append(f"{told['left_out']} rollouts have no counterpart or ended with an error")
    return "\n".join(f"  {line}".rstrip() for line in lines)


def rates(run: Run, tasks: Sequence[str]) -> list[str]:
    """A run's own success rates with Wilson intervals, by task."""
    return [rate(run.figures(task)) for task in tasks]
