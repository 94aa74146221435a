"""The report of `e0 inspect` as one HTML file: no other file, no request to anywhere, nothing from data unescaped."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

from e0_policy.files import write_whole
from e0_ros.core.inspection import Stream, TakeReport
from e0_ros.core.inspection_plot import STYLE
from e0_ros.core.inspection_totals import Totals
from e0_ros.inspect_page import PAGE_STYLE, SCRIPT, histogram, ranges
from e0_ros.inspect_table import COLUMNS, figures


def write_html(path: Path, takes: Sequence[TakeReport], totals: Totals, title: str, limit_bytes: int) -> int:
    """Write the report, takes in the order given; returns how many takes have their pictures left out.

    Pictures and plots go in as far as `limit_bytes` allows, in that order, so that what is suspicious has them.
    """
    rows, left_out, size = [], 0, 0
    for take in takes:
        pictures = size < limit_bytes
        rows.append(_take(take, pictures))
        left_out += not pictures
        size += len(rows[-1])
    text = _page(rows, takes, totals, title, left_out)
    write_whole(path, text)
    return left_out


def _page(rows: Iterable[str], takes: Sequence[TakeReport], totals: Totals, title: str, left_out: int) -> str:
    digest = base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode()
    policy = f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    head = "".join(
        f'<th title="{escape(meaning)}">{name}{f" <small>{unit}</small>" if unit else ""}</th>'
        for name, unit, meaning, _ in COLUMNS
    )
    cut = f'<p class="soft">{left_out} takes are without pictures, to keep this file small.</p>' if left_out else ""
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        f'<meta name="viewport" content="width=device-width"><style>{PAGE_STYLE}{STYLE}</style>'
        "<noscript><style>.more{display:table-row!important}</style></noscript></head><body>"
        f"<header><h1>{escape(title)}</h1>{_cards(totals)}</header>"
        f'<div class="grid">{_tasks(totals)}{_lengths(takes)}{_joints(totals)}</div>'
        '<h2>Takes <small class="soft">what is suspicious first; a click on a row opens it, one on a heading sorts'
        '</small></h2><p class="tools"><input id="find" type="search" placeholder="filter by name, task, finding">'
        '<label><input id="only" type="checkbox"> suspicious only</label></p>'
        f'{cut}<div class="wide"><table id="takes"><thead><tr>{head}</tr></thead>{"".join(rows)}</table></div>'
        f"<script>{SCRIPT}</script></body></html>\n"
    )


def _cards(totals: Totals) -> str:
    cards = [
        (f"{totals.takes}", "takes", ""),
        (f"{totals.suspicious}", "suspicious", "bad" if totals.suspicious else "good"),
        (f"{totals.unreadable}", "damaged or unreadable", "bad" if totals.unreadable else "good"),
        (_hours(totals.duration_s), "of data", ""),
        (f"{totals.frames:,}", "frames", ""),
        (f"{totals.size_bytes / 1e9:.2f} GB", "in bags", "") if totals.size_bytes else ("", "", ""),
    ]
    return (
        '<div class="cards">'
        + "".join(
            f'<div class="card {css}"><b>{value}</b><span>{label}</span></div>' for value, label, css in cards if value
        )
        + "</div>"
    )


def _hours(seconds: float) -> str:
    return f"{seconds / 3600:.2f} h" if seconds >= 3600 else f"{seconds / 60:.1f} min"


def _tasks(totals: Totals) -> str:
    outcomes = sorted({outcome for counts in totals.instructions.values() for outcome in counts})
    head = "".join(f"<th>{escape(outcome or 'no label')}</th>" for outcome in outcomes)
    rows = "".join(
        f"<tr><td>{escape(task)}</td><td>{escape(text) or '<i>none</i>'}</td>"
        + "".join(f'<td class="n">{counts.get(outcome, "")}</td>' for outcome in outcomes)
        + "</tr>"
        for (task, text), counts in sorted(totals.instructions.items())[:50]
    )
    return f"<section><h2>Tasks</h2><table><tr><th>task</th><th>instruction</th>{head}</tr>{rows}</table></section>"


def _lengths(takes: Sequence[TakeReport]) -> str:
    lengths = [take.duration_s for take in takes if take.duration_s > 0]
    return f"<section><h2>Length of the takes</h2>{histogram(lengths, 's')}</section>" if len(lengths) > 1 else ""


def _joints(totals: Totals) -> str:
    return "".join(
        f"<section><h2>Joint ranges <small class='soft'>{escape(name or 'no embodiment named')}</small></h2>"
        f"{ranges(joints)}</section>"
        for name, joints in sorted(totals.joints.items())[:6]
    )


def _take(take: TakeReport, pictures: bool) -> str:
    css = "fault" if take.fault else "suspect" if take.findings else "fine"
    cells = "".join(f'<td class="n" data-v="{_sortable(v)}">{text}</td>' for v, text in figures(take))
    strip = _strip(take, take.views[:1]) if pictures else ""
    said = "".join(f"<li>{escape(text)}</li>" for text in [take.fault, *take.findings] if text)
    first = f'<tr class="row"><td data-v="{escape(take.name)}"><span class="dot"></span>{escape(take.name)}</td>'
    task = f"<td>{escape(take.task)} <span class='soft'>{escape(take.instruction)}</span></td>"
    outcome = f'<td><span class="tag {_outcome(take.outcome)}">{escape(take.outcome) or "–"}</span></td>'
    span = len(COLUMNS)
    found = f'<tr class="found"><td>{strip}</td><td colspan="{span - 1}"><ul>{said}</ul></td></tr>'
    more = _detail(take) if pictures else f'<p class="soft">No pictures here; inspect {escape(take.path)} alone.</p>'
    return (
        f'<tbody class="{css}">{first}{task}{outcome}{cells}</tr>{found if strip or said else ""}'
        f'<tr class="more"><td colspan="{span}">{more}</td></tr></tbody>\n'
    )


def _outcome(outcome: str) -> str:
    return outcome if outcome in ("success", "failure") else "other"


def _sortable(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"


def _strip(take: TakeReport, views: Sequence[str]) -> str:
    pictures = [picture for view in views for picture in take.thumbnails.get(view, [])]
    return f'<div class="strip">{"".join(map(_picture, pictures))}</div>' if pictures else ""


def _picture(jpeg: bytes) -> str:
    return f'<img alt="" src="data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}">'


def _detail(take: TakeReport) -> str:
    views = "".join(
        f"<figure>{_strip(take, (view,))}<figcaption>{escape(view)}</figcaption></figure>"
        for view in take.views
        if take.thumbnails.get(view)
    )
    about = [("path", take.path), ("embodiment", take.embodiment), ("seed", take.seed), ("note", take.note)]
    about += [("held", f"{seconds:.2f} s: {reason}") for reason, seconds in list(take.holds.items())[:8]]
    about += [("stale", f"{count} x {reason}") for reason, count in take.stale.items()]
    facts = "".join(f"<dt>{key}</dt><dd>{escape(value)}</dd>" for key, value in about if value)
    streams = "".join(map(_stream, take.streams[:40]))
    head = "<tr><th>stream</th><th>n</th><th>Hz</th><th>gap ms</th><th>at s</th><th>skew ms</th><th>frozen ms</th></tr>"
    table = f'<table class="streams">{head}{streams}</table>' if streams else ""
    return f'<div class="views">{views}</div><dl>{facts}</dl><div class="plots">{take.plot}</div>{table}'


def _stream(s: Stream) -> str:
    timed = (f"{s.rate_hz:.1f}", f"{s.gap_ms:.1f}", f"{s.gap_at_s:.2f}") if s.count > 1 else ("", "", "")
    extra = ("" if value is None else f"{value:.1f}" for value in (s.skew_ms, s.frozen_ms))
    cells = "".join(f'<td class="n">{text}</td>' for text in (str(s.count), *timed, *extra))
    return f'<tr><td title="{escape(s.type)}">{escape(s.name)}</td>{cells}</tr>'
