"""Several evaluations beside each other as one HTML file: no other file, no request to anywhere, nothing unescaped."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from e0_policy.files import write_whole
from sim.comparison import ALL, COLUMNS, ONLY_FIRST, ONLY_SECOND, Run, paired, rates, shown, table_rows
from sim.eval_charts import STYLE, success_bars
from sim.eval_pictures import first_frame_path
from sim.paper import AVERAGE, cell, rate_cells, table_of, words

FRAMES_SHOWN = 40
"""Most first frames of scenes that only one of two runs mastered."""
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
_STYLE = """
.seeds td{padding:0 6px 0 0;border:0}.seeds i{display:inline-block;width:11px;height:11px;margin:1px;border-radius:2px;
background:var(--mute)}.seeds i.success{background:var(--good)}.seeds i.failure{background:var(--bad)}
.seeds i.error{background:var(--warn)}.seeds i.failure{transform:scaleY(.45)}
.rates td{white-space:nowrap}.rates td:first-child,.rates td:nth-child(2){white-space:normal}
"""
_NOTE = (
    "A pair is a task and seed that both ran without an error. Difference: second minus first, in points, with its "
    "95 % interval (Bonett and Price 2012). p: McNemar's exact test, two-sided, not corrected for several comparisons; "
    "it asks whether the pairs that only one run mastered are split more unevenly than a coin would."
)


def write_page(path: Path, runs: Sequence[Run], told: Sequence[Mapping[str, Any]]) -> None:
    """Write the page, whole or not at all.

    Args:
        path: of the HTML file.
        runs: the first is what the others are compared with.
        told: `sim.comparison.compare` of the first run with each of the others.

    """
    tasks = list(dict.fromkeys(task for t in told for task in t["tasks"]))
    title = " · ".join(run.name for run in runs)
    pairs = "".join(_pair(runs[0], other, t) for other, t in zip(runs[1:], told, strict=True))
    body = f"<h1>{escape(title)}</h1>{_overview(runs, tasks)}{pairs}{_seeds(runs, tasks)}"
    page = (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        f'<meta name="viewport" content="width=device-width"><style>{STYLE}{_STYLE}</style></head>'
        f'<body>{body}<p class="soft">{_NOTE}</p></body></html>\n'
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, page)


def _overview(runs: Sequence[Run], tasks: Sequence[str]) -> str:
    rows = [(run.name, run.title, *rates(run, tasks)) for run in runs]
    bars = {task: success_bars([(run.name[-26:], run.figures(task), False) for run in runs]) for task in tasks}
    paper = _paper(runs)
    charts = "".join(f"<section><h2>{escape(task)}</h2>{chart}</section>" for task, chart in bars.items())
    own = _table(("run", "what", *tasks), rows).replace(" (", "<br>(")
    return f'<section class="rates">{own}</section>{paper}<div class="grid">{charts}</div>'


def _paper(runs: Sequence[Run]) -> str:
    """The paper's rows for the tasks that every run has, then the runs'."""
    shared = [task for task in _tasks(runs[0]) if all(task in _tasks(run) for run in runs[1:])]
    if (table := table_of(shared)) is None:
        return ""
    whole = len(shared) == len(table.columns) - 1
    columns = [c for c in table.columns if c in shared or (whole and c == AVERAGE)]
    rows = [(f"{model} (paper)", *map(cell, values)) for model, values in table.pick(columns).items()]
    for run in runs:
        own = rate_cells({task: run.figures(task)["success_rate"] for task in shared})
        rows.append((run.name, *(own[c] for c in columns)))
    note = f'<p class="soft">{escape(". ".join(words(table)))}</p>'
    head = f"{table.title} [{table.unit}]"
    return f"<section><h2>Beside the paper</h2>{_table((head, *columns), rows)}{note}</section>"


def _tasks(run: Run) -> list[str]:
    return list(dict.fromkeys(job.task for job in sorted(run.rollouts)))


def _pair(first: Run, second: Run, told: Mapping[str, Any]) -> str:
    differ = "".join(
        f"<dt>{escape(name)}</dt><dd>{escape(shown(a))} → {escape(shown(b))}</dd>"
        for name, (a, b) in told["differences"].items()
    )
    left_out = f" {told['left_out']} rollouts have no counterpart or ended with an error." if told["left_out"] else ""
    return (
        f"<section><h2>{escape(first.name)} (first) against {escape(second.name)} (second)</h2>"
        f"{_table(COLUMNS, table_rows(told))}"
        f'<p class="soft">{left_out}</p><dl>{differ}</dl>{_frames(first, second)}</section>'
    )


def _frames(first: Run, second: Run) -> str:
    parts = []
    for job, kind in paired(first, second).items():
        path = first_frame_path(first.folder, job)
        if kind in (ONLY_FIRST, ONLY_SECOND) and path.is_file() and len(parts) < FRAMES_SHOWN:
            winner = first if kind == ONLY_FIRST else second
            picture = base64.b64encode(path.read_bytes()).decode()
            caption = f"{job.task} {job.seed}: only {winner.name}"
            parts.append(
                f'<figure><img alt="" src="data:image/jpeg;base64,{picture}"><figcaption>{escape(caption)}</figcaption>'
                "</figure>"
            )
    return f'<h2>Scenes that only one of them mastered</h2><div class="frames">{"".join(parts)}</div>' if parts else ""


def _seeds(runs: Sequence[Run], tasks: Sequence[str]) -> str:
    parts = []
    for task in (t for t in tasks if t != ALL):
        jobs = sorted({job for run in runs for job in run.rollouts if job.task == task})
        rows = "".join(
            f"<tr><td>{escape(run.name)}</td><td>{''.join(_cell(run, job) for job in jobs)}</td></tr>" for run in runs
        )
        parts.append(f'<h2>{escape(task)}</h2><table class="seeds">{rows}</table>')
    head = "<h2>Seed by seed <small>green and tall succeeded, red and low failed, grey was not run</small></h2>"
    return f"<section>{head}{''.join(parts)}</section>"


def _cell(run: Run, job: Any) -> str:
    outcome = run.rollouts[job].outcome if job in run.rollouts else "not run"
    return f'<i class="{outcome}" title="{job.seed}: {outcome}"></i>'


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    names = "".join(f"<th>{escape(name)}</th>" for name in head)
    lines = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><tr>{names}</tr>{lines}</table>"
