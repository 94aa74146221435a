"""What the E0 paper reports, to be shown beside one's own figures: `config/benchmarks/e0_paper.yaml`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import yaml

from e0_policy.resources import config_dir

AVERAGE = "average"


@dataclass(frozen=True)
class PaperTable:
    """A table of the paper: a success rate per model and column, None where it has a dash."""

    number: str
    title: str
    unit: str
    columns: tuple[str, ...]
    rows: Mapping[str, tuple[float | None, ...]]
    note: str
    source: str

    def pick(self, columns: Sequence[str]) -> dict[str, tuple[float | None, ...]]:
        """Rows cut to some columns; models without any of them are left out."""
        where = [self.columns.index(column) for column in columns]
        cut = {model: tuple(values[i] for i in where) for model, values in self.rows.items()}
        return {model: values for model, values in cut.items() if any(value is not None for value in values)}


@lru_cache
def paper_tables() -> dict[str, PaperTable]:
    """Every table by its number."""
    data = yaml.safe_load((config_dir() / "benchmarks" / "e0_paper.yaml").read_text(encoding="utf-8"))
    return {
        number: PaperTable(
            number,
            table["title"],
            table["unit"],
            tuple(table["columns"]),
            {model: tuple(values) for model, values in table["rows"].items()},
            table.get("note", ""),
            f"{data['source']}, Table {number}",
        )
        for number, table in data["tables"].items()
    }


def table_of(tasks: Sequence[str]) -> PaperTable | None:
    """The smallest table that has all of some tasks; None if there is none."""
    fitting = [table for table in paper_tables().values() if tasks and set(tasks) <= set(table.columns)]
    return min(fitting, key=lambda table: len(table.columns), default=None)


def beside(told: Mapping[str, Any]) -> tuple[PaperTable, list[tuple[str, ...]]] | None:
    """The paper's rows for the tasks of an evaluation's summary, then its own, the first line being the head.

    Averages are shown when every task of the table was run; a task that ended with errors alone has a dash.
    """
    tasks = _by_column(told["tasks"])
    table = table_of(list(tasks))
    if table is None:
        return None
    whole = set(tasks) == set(table.columns) - {AVERAGE}
    columns = [c for c in table.columns if c in tasks or (whole and c == AVERAGE)]
    rows = [(f"{model} (paper)", *map(cell, values)) for model, values in table.pick(columns).items()]
    rates = {task: f["success_rate"] for task, f in tasks.items()}
    official = {task: _official(f) for task, f in tasks.items()}
    limited = any(f["official_steps"] for f in told["tasks"].values())
    own_rows = (("this run", rates), *((("this run, official limits", official),) if limited else ()))
    for name, own in own_rows:
        cells = rate_cells(own)
        rows.append((name, *(cells[column] for column in columns)))
    counts = {task: f["episodes"] - f["errors"] for task, f in tasks.items()}
    rows.append(("rollouts of this run", *(str(counts.get(c, sum(counts.values()))) for c in columns)))
    if limited:
        limits = {task: f"{f['max_steps']} / {f['official_steps']}" for task, f in tasks.items()}
        rows.append(("its steps / official limit", *(limits.get(c, "") for c in columns)))
    return table, [(f"{table.title} [{table.unit}]", *columns), *rows]


def _by_column(tasks: Mapping[str, Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """Figures by the paper's columns: LIBERO's tasks `<suite>/<number>` are pooled by suite, each task weighing one."""
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for task, figures in tasks.items():
        groups.setdefault(task.split("/")[0], []).append(figures)
    return {name: own[0] if len(own) == 1 else _pooled(own) for name, own in groups.items()}


def _pooled(own: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    known = [f for f in own if f["success_rate"] is not None]
    pooled = {
        "success_rate": _mean([f["success_rate"] for f in known]),
        "episodes": sum(f["episodes"] for f in own),
        "errors": sum(f["errors"] for f in own),
        "max_steps": max(f["max_steps"] for f in own),
        "official_steps": own[0]["official_steps"],
    }
    if any("official" in f for f in known):
        pooled["official"] = {"success_rate": _mean([_official(f) for f in known])}
    return pooled


def _official(figures: Mapping[str, Any]) -> float | None:
    """Success rate within the official limit; None if there was no valid rollout."""
    found: float | None = figures.get("official", figures)["success_rate"]
    return found


def _mean(shares: Sequence[float | None]) -> float | None:
    """None if one of them is missing, or all."""
    known = [share for share in shares if share is not None]
    return sum(known) / len(known) if known and len(known) == len(shares) else None


def rate_cells(rates: Mapping[str, float | None]) -> dict[str, str]:
    """Success rates and their average in percent; a task without a valid rollout has a dash, and so has the average."""
    shares = {**rates, AVERAGE: _mean(list(rates.values()))}
    return {column: cell(None if share is None else 100 * share) for column, share in shares.items()}


def text_beside(told: Mapping[str, Any]) -> str:
    """The same as lines; empty if the paper has none of the tasks."""
    if (found := beside(told)) is None:
        return ""
    table, rows = found
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ["  ".join(text.ljust(w) for text, w in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join(f"  {line}" for line in [*lines, *words(table)])


def words(table: PaperTable) -> list[str]:
    """Where a table is from, and what to know about it."""
    return [f"source: {table.source}; it states neither step limits nor seeds", *filter(None, [table.note])]


def cell(value: float | None) -> str:
    """A rate as a table has it; a dash if there is none."""
    return "-" if value is None else f"{value:.1f}"
