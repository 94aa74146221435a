"""Trial sheets to print: what to set up, when it is a success, a line per trial; no policy is named."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path

from sim.trial_plan import RealTask, Trial, TrialPlan, benchmark

SHEET = "sheets.html"
_STYLE = """
body{font:12px/1.45 system-ui,sans-serif;margin:0 auto;max-width:760px;color:#111}
section{break-after:page;padding:12px 0}h1{font-size:19px;margin:0}p{margin:2px 0}
table{border-collapse:collapse;width:100%;margin-top:10px}
th,td{border:1px solid #888;padding:5px 7px;text-align:left}th{background:#eee}
td.box{width:46px}td.note{width:38%}.soft{color:#555}
dl{display:grid;grid-template-columns:max-content 1fr;gap:1px 12px;margin:8px 0}dt{color:#555}dd{margin:0}
"""


def write_sheets(folder: Path, plan: TrialPlan) -> Path:
    """One sheet per task; returns the file."""
    source, path = benchmark(plan.benchmark).source, folder / SHEET
    sheets = "".join(
        _sheet(task, [trial for trial in plan.trials if trial.task == name], source)
        for name, task in plan.tasks.items()
    )
    path.write_text(
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Trial sheets</title>'
        f"<style>{_STYLE}</style></head><body>{sheets}</body></html>\n",
        encoding="utf-8",
    )
    return path


def _sheet(task: RealTask, trials: Sequence[Trial], source: str) -> str:
    told = [
        ("told the policy", task.instruction),
        ("success", task.criterion),
        ("failure", f"anything else after {task.limit_s:g} s, or a stop"),
        *([("stages", ", ".join(f"{i + 1} {stage}" for i, stage in enumerate(task.stages)))] if task.stages else []),
        *([("scenes", task.scenes)] if task.scenes else []),
        ("every scene", "is set up anew before each trial, by its first picture (key o)"),
    ]
    names = ["trial", "scene", "success", "failure", *(["stages"] if task.stages else []), "time [s]", "notes"]
    boxes = len(names) - 3
    rows = "".join(
        f"<tr><td>{t.number}</td><td>{t.scene}</td>{'<td class=box></td>' * boxes}<td class=note></td></tr>"
        for t in trials
    )
    head = "".join(f"<th>{name}</th>" for name in names)
    items = "".join(f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in told)
    return (
        f"<section><h1>{escape(task.title)}</h1><p class=soft>{escape(source)}</p><dl>{items}</dl>"
        f"<p>date ............................ person ............................</p>"
        f"<table><tr>{head}</tr>{rows}</table></section>"
    )
