"""An episode's signals as one SVG: a panel per joint, the gripper and the cameras' timing; holds and refusals marked.

The picture takes its colours from the page around it (light or dark); `standalone` adds a style of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from itertools import pairwise

import numpy as np

from e0_policy.embodiment import Embodiment
from e0_policy.types import FloatArray
from e0_ros.core.traces import Trace, Traces

COLUMNS = 3
PANEL_W, PANEL_H = 340, 128
LEFT, RIGHT, TOP, BOTTOM = 44, 8, 20, 20
BINS = 64
MAX_MARKS = 200
STYLE = """
.e0plot{--ink:#1f2430;--soft:#667085;--grid:#e3e6eb;--measured:#2563eb;--commanded:#d9480f;background:#fff;
font:11px system-ui,sans-serif}
@media (prefers-color-scheme:dark){.e0plot{--ink:#e6e8ee;--soft:#98a1b3;--grid:#2b3140;--measured:#6ea8ff;
--commanded:#ff9f5a;background:#11151d}}
.e0plot text{fill:var(--soft)}.e0plot .t{fill:var(--ink);font-weight:600}.e0plot .f{fill:none;stroke:var(--grid)}
.e0plot .m{fill:none;stroke:var(--measured);stroke-width:1.5}
.e0plot .c{fill:none;stroke:var(--commanded);stroke-width:1.1;stroke-dasharray:4 2}
.e0plot .l{stroke:#e03131;stroke-width:1;stroke-dasharray:2 3;fill:none}
.e0plot .hold{fill:#f59f00;opacity:.22}.e0plot .stopped{fill:#e03131;opacity:.25}
.e0plot .disarmed{fill:#868e96;opacity:.2}.e0plot .armed{fill:#339af0;opacity:.13}
.e0plot .refused{stroke:#e03131;stroke-width:1.2}
"""
_SHADED = ("HOLD", "STOPPED", "DISARMED", "ARMED")


def plot(
    traces: Traces, arm: Embodiment | None, image_stamps_ns: Mapping[str, Sequence[int]], *, standalone: bool = False
) -> str:
    """The SVG. Limits are drawn where they come into sight; `arm` None: there are none."""
    cells = [_joint(traces, arm, column) for column in range(len(traces.joint_names))]
    cells.append(_panel("gripper opening", [(traces.gripper_measured, 0), (traces.gripper_commanded, 0)], traces, 0, 1))
    cells.append(_intervals(traces, image_stamps_ns))
    rows = -(-len(cells) // COLUMNS)
    width, height = COLUMNS * PANEL_W, rows * PANEL_H + 22
    placed = "".join(
        f'<g transform="translate({i % COLUMNS * PANEL_W},{i // COLUMNS * PANEL_H})">{cell}</g>'
        for i, cell in enumerate(cells)
    )
    style = f"<style>{STYLE}</style>" if standalone else ""
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="e0plot" viewBox="0 0 {width} {height}" width="{width}" '
        f'role="img">{style}{placed}{_legend(height, traces)}</svg>'
    )


def _joint(traces: Traces, arm: Embodiment | None, column: int) -> str:
    limits: tuple[float, ...] = ()
    if arm is not None and arm.joint_names == traces.joint_names:
        limits = (float(arm.position_lower[column]), float(arm.position_upper[column]))
    signals = [(traces.measured, column), (traces.commanded, column)]
    return _panel(f"{traces.joint_names[column]} [rad]", signals, traces, limits=limits)


def _panel(
    title: str,
    signals: Sequence[tuple[Trace, int]],
    traces: Traces,
    low: float | None = None,
    high: float | None = None,
    limits: Sequence[float] = (),
) -> str:
    shown = [(t.time_s, t.values[:, c]) for t, c in signals if len(t.time_s)]
    low, high = _range([v for _, v in shown]) if low is None or high is None else (low, high)
    scale = _Scale(_end_s(traces), low - 0.06 * (high - low), high + 0.06 * (high - low))
    parts = [_frame(title, scale, low, high), _marks(traces, scale)]
    parts += [f'<path class="l" d="M{LEFT} {scale.y(v):.1f}H{PANEL_W - RIGHT}"/>' for v in limits if scale.sees(v)]
    for css, (times, values) in zip("mc", shown, strict=False):
        parts.append(f'<path class="{css}" d="{scale.path(times, values)}"/>')
    return "".join(parts)


def _intervals(traces: Traces, image_stamps_ns: Mapping[str, Sequence[int]]) -> str:
    curves = []
    for stamps in image_stamps_ns.values():
        times = np.asarray(stamps, np.int64)
        if len(times) > 1:
            curves.append(((times[1:] - traces.start_ns) / 1e9, np.diff(times) / 1e6))
    high = max([1.0, *(float(v.max()) for _, v in curves)])
    scale = _Scale(_end_s(traces), 0.0, 1.1 * high)
    paths = "".join(f'<path class="m" d="{scale.path(t, v)}"/>' for t, v in curves[:8])
    return _frame("time between images [ms]", scale, 0.0, high) + paths


class _Scale:
    """From seconds and values to a panel's pixels."""

    def __init__(self, end_s: float, low: float, high: float) -> None:
        self.end_s, self._low, self._high = end_s, low, high

    def x(self, time_s: FloatArray | float) -> FloatArray:
        part: FloatArray = np.clip(np.asarray(time_s, np.float64) / self.end_s, 0.0, 1.0)
        return LEFT + (PANEL_W - LEFT - RIGHT) * part

    def y(self, value: FloatArray | float) -> FloatArray:
        part: FloatArray = (np.asarray(value) - self._low) / (self._high - self._low)
        return TOP + (PANEL_H - TOP - BOTTOM) * (1.0 - np.clip(part, 0.0, 1.0))

    def sees(self, value: float) -> bool:
        return self._low <= value <= self._high

    def path(self, times: FloatArray, values: FloatArray) -> str:
        """A line through at most `2 * BINS` points: of each bin of time its lowest and its highest value."""
        keep = _extremes(values) if len(values) > 2 * BINS else np.arange(len(values))
        x, y = self.x(times[keep]), self.y(values[keep])
        return "M" + "L".join(f"{a:.1f} {b:.1f}" for a, b in zip(x, y, strict=True)) if len(keep) else ""


def _extremes(values: FloatArray) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
    edges = np.linspace(0, len(values), BINS + 1).astype(np.int64)
    kept = {0, len(values) - 1}
    for start, end in pairwise(edges.tolist()):
        kept |= {start + int(values[start:end].argmin()), start + int(values[start:end].argmax())}
    return np.array(sorted(kept), np.int64)


def _range(curves: Sequence[FloatArray]) -> tuple[float, float]:
    if not curves:
        return -1.0, 1.0
    low, high = min(float(v.min()) for v in curves), max(float(v.max()) for v in curves)
    middle, half = (low + high) / 2, max((high - low) / 2, 0.02)
    return middle - half, middle + half


def _end_s(traces: Traces) -> float:
    signals = (traces.measured, traces.commanded, traces.gripper_measured)
    return max([0.1, *(float(t.time_s[-1]) for t in signals if len(t.time_s))])


def _frame(title: str, scale: _Scale, low: float, high: float) -> str:
    bottom, right = PANEL_H - BOTTOM, PANEL_W - RIGHT
    return (
        f'<path class="f" d="M{LEFT} {TOP}H{right}V{bottom}H{LEFT}Z"/><text class="t" x="{LEFT}" y="14">'
        f"{escape(title[:48])}</text>"
        f'<text x="{LEFT - 4}" y="{scale.y(high) + 4:.0f}" text-anchor="end">{high:.2f}</text>'
        f'<text x="{LEFT - 4}" y="{scale.y(low) + 2:.0f}" text-anchor="end">{low:.2f}</text>'
        f'<text x="{LEFT}" y="{bottom + 13}">0</text>'
        f'<text x="{right}" y="{bottom + 13}" text-anchor="end">{scale.end_s:.1f} s</text>'
    )


def _marks(traces: Traces, scale: _Scale) -> str:
    parts = []
    for span in [s for s in traces.spans if s.mode in _SHADED][:MAX_MARKS]:
        left, right = float(scale.x(span.start_s)), float(scale.x(span.end_s))
        parts.append(
            f'<rect class="{span.mode.lower()}" x="{left:.1f}" y="{TOP}" width="{max(right - left, 0.5):.1f}" '
            f'height="{PANEL_H - TOP - BOTTOM}"><title>{escape(f"{span.mode} {span.reason}"[:120])}</title></rect>'
        )
    for time_s, reason in traces.refusals[:MAX_MARKS]:
        x = float(scale.x(time_s))
        line = f'<path class="refused" d="M{x:.1f} {TOP}V{PANEL_H - BOTTOM}">'
        parts.append(f"{line}<title>refused: {escape(reason[:120])}</title></path>")
    return "".join(parts)


def _legend(height: int, traces: Traces) -> str:
    y = height - 10
    items = [("m", "measured"), ("c", "commanded"), ("l", "limit")]
    parts = [
        f'<path class="{css}" d="M{LEFT + 110 * i} {y}h26"/><text x="{LEFT + 110 * i + 32}" y="{y + 4}">{text}</text>'
        for i, (css, text) in enumerate(items)
    ]
    modes = sorted({s.mode for s in traces.spans if s.mode in _SHADED}, key=_SHADED.index)
    for i, mode in enumerate(modes, len(items)):
        x = LEFT + 110 * i
        parts.append(f'<rect class="{mode.lower()}" x="{x}" y="{y - 7}" width="26" height="13"/>')
        parts.append(f'<text x="{x + 32}" y="{y + 4}">{mode.lower()}</text>')
    if traces.refusals:
        x = LEFT + 110 * (len(items) + len(modes))
        parts.append(f'<path class="refused" d="M{x} {y - 7}v13"/><text x="{x + 8}" y="{y + 4}">chunk refused</text>')
    return "".join(parts)
