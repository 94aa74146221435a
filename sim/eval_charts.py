"""Charts and style of an evaluation's report, as SVG and CSS."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

STYLE = """
:root{--bg:#f6f7f9;--card:#fff;--ink:#1f2430;--soft:#667085;--line:#e3e6eb;--accent:#2563eb;--bad:#c92a2a;
--good:#2b8a3e;--warn:#b35c00;--mute:#adb5bd}
@media (prefers-color-scheme:dark){:root{--bg:#0b0e14;--card:#11151d;--ink:#e6e8ee;--soft:#98a1b3;--line:#262c3a;
--accent:#6ea8ff;--bad:#ff8787;--good:#69db7c;--warn:#ffb86b;--mute:#5c677d}}
*{box-sizing:border-box}
body{margin:0 auto;max-width:1240px;padding:28px 24px 60px;background:var(--bg);color:var(--ink);
font:14px/1.5 system-ui,sans-serif}
h1{font-size:23px;margin:0 0 2px;overflow-wrap:anywhere}h2{font-size:15px;margin:0 0 8px}
.soft,small{color:var(--soft);font-weight:400}
.lead{margin:0 0 16px;color:var(--soft)}
.cards{display:flex;flex-wrap:wrap;gap:10px;margin-bottom:14px}
.card{background:var(--card);border:1px solid var(--line);border-radius:8px;padding:10px 16px;min-width:120px}
.card b{display:block;font-size:22px;font-variant-numeric:tabular-nums;white-space:nowrap}
.card span{color:var(--soft);font-size:12px}
.card.bad b{color:var(--bad)}.card.good b{color:var(--good)}
.grid{display:grid;grid-template-columns:repeat(auto-fit,minmax(480px,1fr));gap:14px}
section{background:var(--card);border:1px solid var(--line);border-radius:8px;padding:14px 16px;margin-bottom:14px;
overflow-x:auto}
.grid section{margin-bottom:0}.grid{margin-bottom:14px}
svg{width:100%;height:auto;font:12px system-ui,sans-serif;display:block}
svg text{fill:var(--ink)}svg .s{fill:var(--soft)}
table{border-collapse:collapse;width:100%}th{text-align:left;font-weight:600;font-size:12px;color:var(--soft)}
td,th{padding:5px 10px 5px 0;border-bottom:1px solid var(--line);vertical-align:top;font-variant-numeric:tabular-nums}
.control td{color:var(--soft)}
.frames{display:flex;flex-wrap:wrap;gap:6px}
figure{margin:0}figcaption{color:var(--soft);font-size:11px;text-align:center}
.frames img{display:block;height:76px;border-radius:4px;border:3px solid var(--mute)}
.success img{border-color:var(--good)}.failure img{border-color:var(--bad)}.error img{border-color:var(--warn)}
.videos{display:flex;flex-wrap:wrap;gap:14px}.videos video{display:block;width:360px;max-width:100%;border-radius:6px}
.videos figcaption{font-size:12px;text-align:left;margin-top:3px}
.tag{border:1px solid;border-radius:10px;padding:0 8px;font-size:12px}
.tag.success{color:var(--good)}.tag.failure{color:var(--bad)}.tag.error{color:var(--warn)}
dl{display:grid;grid-template-columns:max-content 1fr;gap:2px 16px;margin:0}dt{color:var(--soft)}
dd{margin:0;overflow-wrap:anywhere}
summary{cursor:pointer;font-weight:600}details table{margin-top:10px;font-size:12px}
"""
_LEFT, _RIGHT, _WIDTH = 190, 470, 640


def success_bars(rows: Sequence[tuple[str, Mapping[str, Any], bool]]) -> str:
    """Success rates as bars with their Wilson intervals; a row is a label, figures, and whether it is a control."""
    parts = []
    for percent in range(0, 101, 25):
        x = _LEFT + (_RIGHT - _LEFT) * percent / 100
        parts.append(f'<path d="M{x:.0f} 8V{18 + 30 * len(rows)}" stroke="var(--line)"/>')
        parts.append(f'<text class="s" x="{x:.0f}" y="{32 + 30 * len(rows)}" text-anchor="middle">{percent} %</text>')
    for i, (label, f, control) in enumerate(rows):
        parts.append(_bar(label, f, control, 12 + 30 * i))
    return f'<svg viewBox="0 0 {_WIDTH} {40 + 30 * len(rows)}" role="img">{"".join(parts)}</svg>'


def _bar(label: str, f: Mapping[str, Any], control: bool, y: int) -> str:
    span, valid = _RIGHT - _LEFT, f["episodes"] - f["errors"]
    soft = "s" if control else ""
    name = f'<text class="{soft}" x="{_LEFT - 10}" y="{y + 15}" text-anchor="end">{escape(label)}</text>'
    if not valid:
        return f'{name}<text class="s" x="{_LEFT + 8}" y="{y + 15}">no valid rollout</text>'
    end, low, high = (_LEFT + span * f[key] for key in ("success_rate", "wilson_low", "wilson_high"))
    colour, middle = ("var(--mute)" if control else "var(--accent)"), y + 11
    return (
        f'{name}<rect x="{_LEFT}" y="{y + 2}" width="{max(end - _LEFT, 1):.1f}" height="18" rx="3" fill="{colour}"/>'
        f'<path d="M{low:.1f} {middle}H{high:.1f}M{low:.1f} {middle - 5}v10M{high:.1f} {middle - 5}v10" '
        'stroke="var(--ink)" stroke-width="1.4" fill="none"/>'
        f'<text x="{_RIGHT + 14}" y="{y + 15}">{f["successes"]}/{valid}  '
        f'<tspan class="s">{100 * f["wilson_low"]:.0f} to {100 * f["wilson_high"]:.0f} %</tspan></text>'
    )


def success_curves(curves: Mapping[str, tuple[Sequence[float], int, float, float]]) -> str:
    """Share of the rollouts that have succeeded by a time.

    `curves[task]` is its times to success [s], its number of valid rollouts, its official limit and its limit [s]
    (0: none).
    """
    longest = max((limit for _, _, _, limit in curves.values()), default=1.0) or 1.0
    left, right, top, bottom = 44, 620, 10, 190
    x = lambda t: left + (right - left) * min(t / longest, 1.0)  # noqa: E731
    y = lambda share: bottom - (bottom - top) * share  # noqa: E731
    parts = [
        f'<path d="M{left} {y(s):.0f}H{right}" stroke="var(--line)"/>'
        f'<text class="s" x="{left - 8}" y="{y(s) + 4:.0f}" text-anchor="end">{100 * s:.0f}</text>'
        for s in (0.0, 0.25, 0.5, 0.75, 1.0)
    ]
    colours = ("var(--accent)", "var(--warn)", "var(--good)", "var(--bad)", "var(--mute)")
    for i, (task, (times, count, official, limit)) in enumerate(curves.items()):
        colour, path, done = colours[i % len(colours)], f"M{left} {bottom}", 0
        for time_s in sorted(times):
            path += f"H{x(time_s):.1f}V{y((done := done + 1) / max(count, 1)):.1f}"
        parts.append(f'<path d="{path}H{x(limit):.1f}" fill="none" stroke="{colour}" stroke-width="2"/>')
        if 0 < official < limit:
            dashes = f'stroke="{colour}" stroke-dasharray="3 4"'
            parts.append(f'<path d="M{x(official):.1f} {top}V{bottom}" {dashes}><title>official limit</title></path>')
        parts.append(f'<text x="{left + 10}" y="{top + 14 + 16 * i}" style="fill:{colour}">{escape(task)}</text>')
    axis = "".join(
        f'<text class="s" x="{x(t):.0f}" y="{bottom + 17}" text-anchor="middle">{t:g} s</text>'
        for t in (longest * k / 4 for k in range(5))
    )
    return f'<svg viewBox="0 0 {_WIDTH} {bottom + 24}" role="img">{"".join(parts)}{axis}</svg>'
