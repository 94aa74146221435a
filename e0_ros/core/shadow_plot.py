"""A shadow run as one SVG: per joint what was done, and each plan from the moment it was made."""

from __future__ import annotations

from html import escape

import numpy as np

from e0_policy.types import FloatArray
from e0_ros.core.shadow import Shadow

COLUMNS, WIDTH, HEIGHT, EDGE = 2, 520, 150, 24
STYLE = "text{font:11px system-ui,sans-serif;fill:#667085}path{fill:none}.d{stroke:#2563eb;stroke-width:1.8}"
PLAN = ".p{stroke:#d9480f;stroke-width:1;opacity:.7}rect{fill:none;stroke:#e3e6eb}"


def shadow_plot(shadow: Shadow) -> str:
    """The SVG."""
    panels = [_panel(shadow, i, f"{name} [rad]") for i, name in enumerate(shadow.joint_names)]
    panels.append(_panel(shadow, len(panels), "gripper opening"))
    placed = "".join(
        f'<g transform="translate({i % COLUMNS * WIDTH},{i // COLUMNS * HEIGHT})">{panel}</g>'
        for i, panel in enumerate(panels)
    )
    height = -(-len(panels) // COLUMNS) * HEIGHT + EDGE
    legend = f'<text x="{EDGE}" y="{height - 8}">blue: what was done; orange: plans of the policy</text>'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{COLUMNS * WIDTH}" height="{height}">'
        f"<style>{STYLE}{PLAN}</style>{placed}{legend}</svg>\n"
    )


def _panel(shadow: Shadow, column: int, title: str) -> str:
    times = (np.array(shadow.stamps_ns)[:, None] - shadow.stamps_ns[0]) / 1e9
    times = times + shadow.period_ns / 1e9 * np.arange(shadow.predicted.shape[1])
    done, planned = shadow.recorded[..., column], shadow.predicted[..., column]
    low, high = float(np.nanmin([done, planned])), float(np.nanmax([done, planned]))
    middle, half = (low + high) / 2, max((high - low) / 2, 0.02)
    end_s = float(times.max())

    def line(css: str, t: FloatArray, values: FloatArray) -> str:
        known = np.isfinite(values)
        x = EDGE + (WIDTH - 2 * EDGE) * t[known] / max(end_s, 1e-9)
        y = HEIGHT / 2 - (HEIGHT / 2 - EDGE) * (values[known] - middle) / half
        return f'<path class="{css}" d="M{"L".join(f"{a:.1f} {b:.1f}" for a, b in zip(x, y, strict=True))}"/>'

    order = np.argsort(times.reshape(-1), kind="stable")
    plans = "".join(line("p", t, values) for t, values in zip(times, planned, strict=True))
    return (
        f'<rect x="{EDGE}" y="{EDGE}" width="{WIDTH - 2 * EDGE}" height="{HEIGHT - 2 * EDGE}"/>'
        f'<text x="{EDGE}" y="16">{escape(title)}: {middle - half:.2f} to {middle + half:.2f}, {end_s:.1f} s</text>'
        f"{line('d', times.reshape(-1)[order], done.reshape(-1)[order])}{plans}"
    )
