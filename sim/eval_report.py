"""The report of an evaluation as one HTML file: no other file, no request to anywhere, nothing unescaped."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from e0_policy.files import write_whole
from sim.demonstration import PERIOD_NS
from sim.eval_charts import STYLE, success_bars, success_curves
from sim.eval_pictures import first_frame_path, video_path
from sim.eval_rollouts import CONDITIONS, ERROR, FAILURE, POLICY, SUCCESS, Rollout
from sim.eval_summary import COLUMNS, learned_words, moved_cameras, number, percent, policy_name, table_rows
from sim.paper import beside, words

_STEP_S = PERIOD_NS / 1e9
_POLICY = "default-src 'none'; img-src data:; media-src data:; style-src 'unsafe-inline'"
_ORDER = (ERROR, FAILURE, SUCCESS)
FRAMES_SHOWN = 120
"""Most first frames per task and condition; errors and failures come first."""


def write_report(path: Path, told: Mapping[str, Any], rollouts: Sequence[Rollout], folder: Path) -> None:
    """Write the report, whole or not at all; pictures and videos are those of the evaluation's folder."""
    tasks = ", ".join(told["tasks"]) or "nothing"
    title = f"{tasks}: {policy_name(told['configuration'])}, {told['configuration']['mode']}"
    body = (
        f"<h1>{escape(title)}</h1>{_lead(told)}{_cards(told)}"
        f'<div class="grid"><section><h2>Success</h2>{_bars(told)}</section>'
        f"<section><h2>Succeeded by <small>per cent of the rollouts; dashed: the benchmark's registered limit</small>"
        f"</h2>{_curves(told, rollouts)}</section></div>"
        f"{_figures(told)}{_paper(told)}{_videos(rollouts, folder)}{_frames(rollouts, folder)}{_list(rollouts)}"
        f"{_configuration(told)}"
    )
    page = (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        f'<meta name="viewport" content="width=device-width"><style>{STYLE}</style></head><body>{body}</body></html>\n'
    )
    write_whole(path, page)


def _lead(told: Mapping[str, Any]) -> str:
    c = told["configuration"]
    how = {
        "lockstep": "over the ROS graph in lock-step",
        "realtime": "over the ROS graph in real time",
        "direct": "the graph's own cores in one process",
        "real": "on the bench, judged by a person",
        "raw": "raw: the benchmark's own controller, one row per step; no executor",
    }[c["mode"]]
    seeds = ", ".join(f"{escape(task)} {text}" for task, text in told["seeds"].items())
    missing = f" <b>{told['missing']} rollouts are not run yet.</b>" if told.get("missing") else ""
    cameras = f" · {escape(text)}" if (text := moved_cameras(c)) else ""
    missing += f" <b>Not unseen: {escape(words)}.</b>" if (words := learned_words(told)) else ""
    code = f"code {escape(c['code_version'])}"
    return f'<p class="lead">{how}{cameras} · {c["simulator"]} · seeds {seeds} · {code}{missing}</p>'


def _cards(told: Mapping[str, Any]) -> str:
    valid, single = told["episodes"] - told["errors"], len(told["tasks"]) == 1
    rate = told["success_rate"] if single else told["task_average"]
    errors = told["errors"] + told["control_errors"]
    cards = [
        (percent(rate), "success" if single else "success, mean of the tasks", ""),
        (f"{100 * told['wilson_low']:.0f} to {100 * told['wilson_high']:.0f} %", f"95 % Wilson, {valid} rollouts", ""),
        (f"{number(told['time_to_success_s_median'], '.2f')} s", "median time to success", ""),
        (f"{number(told['latency_ms_p50'])} ms", "median inference", ""),
        (f"{number(told['jerk_rad_s3_median'], '.0f')} rad/s³", "median RMS jerk", ""),
        (number(told["violations"], "d"), "limit violations", "bad" if told["violations"] else "good"),
        (str(errors), "errors, not counted", "bad" if errors else "good"),
    ]
    shown = [card for card in cards if not card[0].startswith("-")]
    return (
        '<div class="cards">'
        + "".join(f'<div class="card {css}"><b>{value}</b><span>{label}</span></div>' for value, label, css in shown)
        + "</div>"
    )


def _bars(told: Mapping[str, Any]) -> str:
    rows = []
    for task, f in told["tasks"].items():
        rows.append((task, f, False))
        rows += [(CONDITIONS[c], tasks[task], True) for c, tasks in told["controls"].items() if task in tasks]
    return success_bars(rows)


def _curves(told: Mapping[str, Any], rollouts: Sequence[Rollout]) -> str:
    curves = {}
    for task, f in told["tasks"].items():
        times = [r.time_to_success_s for r in rollouts if (r.task, r.condition, r.outcome) == (task, POLICY, SUCCESS)]
        limits = f["official_steps"] * _STEP_S, f["max_steps"] * _STEP_S
        curves[task] = (times, f["episodes"] - f["errors"], *limits)
    return success_curves(curves)


def _figures(told: Mapping[str, Any]) -> str:
    head = "".join(f"<th>{name}</th>" for name in COLUMNS)
    count = len(told["tasks"])
    rows = "".join(
        f"<tr{' class=control' if i >= count else ''}>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>"
        for i, row in enumerate(table_rows(told))
    )
    note = (
        "Errors are faults of simulator, graph or code and count neither way. Median time is to success. Jerk is the "
        "root mean square of the third difference of the commanded joint positions every 50 ms, median of the "
        "rollouts. Inference: median / slowest. Violations: limits of the arm broken by a command, found by the "
        "independent judge. "
        "A control takes a part of the input away, and runs without the graph whatever the mode; where it succeeds as "
        "often, that part is not used."
    )
    return f'<section><h2>Figures</h2><table><tr>{head}</tr>{rows}</table><p class="soft">{note}</p></section>'


def _paper(told: Mapping[str, Any]) -> str:
    """The paper's rows for the same tasks."""
    if (found := beside(told)) is None:
        return ""
    table, rows = found
    names = "".join(f"<th>{escape(cell)}</th>" for cell in rows[0])
    lines = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows[1:])
    note = f'<p class="soft">{escape(". ".join(words(table)))}</p>'
    return f"<section><h2>Beside the paper</h2><table><tr>{names}</tr>{lines}</table>{note}</section>"


def _videos(rollouts: Iterable[Rollout], folder: Path) -> str:
    shown = "".join(
        f'<figure><video controls muted loop preload="metadata" src="data:video/mp4;base64,{_base64(path)}"></video>'
        f"<figcaption>{_tag(r)} {escape(r.task)}, seed {r.seed}, {r.steps} of {r.max_steps} steps</figcaption></figure>"
        for r in rollouts
        if (path := video_path(folder, r.job)).is_file()
    )
    note = "the line is the tool's planned path, the bar its rows: blue is sure, red is unsure, grey is past"
    return f'<section><h2>Videos <small>{note}</small></h2><div class="videos">{shown}</div></section>' if shown else ""


def _frames(rollouts: Sequence[Rollout], folder: Path) -> str:
    groups: dict[tuple[str, str], list[Rollout]] = {}
    for r in sorted(rollouts, key=lambda r: _ORDER.index(r.outcome)):
        groups.setdefault((r.task, r.condition), []).append(r)
    parts = []
    for (task, condition), own in sorted(groups.items(), key=lambda item: [*CONDITIONS].index(item[0][1])):
        figures = "".join(
            f'<figure class="{r.outcome}" title="{r.outcome}, {r.steps} steps"><img alt="" '
            f'src="data:image/jpeg;base64,{_base64(path)}"><figcaption>{r.seed}</figcaption></figure>'
            for r in own[: FRAMES_SHOWN if condition == POLICY else 0]
            if (path := first_frame_path(folder, r.job)).is_file()
        )
        if figures:
            parts.append(f'<h2>{escape(task)}</h2><div class="frames">{figures}</div>')
    title = "<h2>First frames <small>failures first; green succeeded, red failed</small></h2>"
    return f"<section>{title}{''.join(parts)}</section>" if parts else ""


def _list(rollouts: Sequence[Rollout]) -> str:
    head = ("task", "seed", "given", "outcome", "steps", "time [s]", "jerk", "plans", "inference [ms]", "holds",
            "refused", "stale", "violations", "error")  # fmt: skip
    rows = "".join(
        f"<tr><td>{escape(r.task)}</td><td>{r.seed}</td><td>{CONDITIONS[r.condition]}</td><td>{_tag(r)}</td>"
        f"<td>{r.steps}/{r.max_steps}</td><td>{number(r.time_to_success_s, '.2f')}</td>"
        f"<td>{number(r.jerk_rad_s3, '.0f')}</td><td>{r.plans}</td><td>{number(r.latency_ms_p50)}</td>"
        f"<td>{r.holds}</td><td>{r.refused}</td><td>{r.stale}</td><td>{r.violations if r.violations >= 0 else '-'}</td>"
        f"<td>{escape(r.error)}</td></tr>"
        for r in rollouts
    )
    names = "".join(f"<th>{name}</th>" for name in head)
    count = f"All {len(rollouts)} rollouts"
    return f"<section><details><summary>{count}</summary><table><tr>{names}</tr>{rows}</table></details></section>"


def _configuration(told: Mapping[str, Any]) -> str:
    items = "".join(f"<dt>{escape(k)}</dt><dd>{escape(str(v)) or '-'}</dd>" for k, v in told["configuration"].items())
    return f"<section><h2>Configuration</h2><dl>{items}</dl></section>"


def _tag(rollout: Rollout) -> str:
    return f'<span class="tag {rollout.outcome}">{rollout.outcome}</span>'


def _base64(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()
