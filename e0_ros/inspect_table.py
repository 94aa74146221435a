"""What `e0 inspect` prints: a row per take, what is suspicious below it, and the sums."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from e0_ros.core.inspection import Motion, TakeReport
from e0_ros.core.inspection_totals import Totals
from e0_ros.core.pairing import GRIPPER, JOINTS

COLUMNS = (
    ("take", "", "name of the bag, or dataset and episode", ""),
    ("task", "", "task and instruction", ""),
    ("outcome", "", "label given at the end of the take", ""),
    ("length", "s", "from first to last message", ".1f"),
    ("frames", "", "images of the reference view", ".0f"),
    ("rate", "Hz", "images of the reference view per second", ".1f"),
    ("gap", "ms", "longest time between two images of a view or two joint samples", ".0f"),
    ("skew", "ms", "largest distance from a reference image to the nearest one of another view", ".1f"),
    ("age", "ms", "largest age of a view in a dataset's frame", ".0f"),
    ("stale", "", "observations that could not be made", ".0f"),
    ("error", "mrad", "largest distance between commanded and measured joint positions", ".1f"),
    ("lag", "ms", "delay after which measured follows commanded best", ".0f"),
    ("speed", "%", "largest commanded joint speed, as a share of the limit (100 = 1 rad/s without limits)", ".0f"),
    ("rough", "", "second over first differences of the commands at 20 Hz: 0 straight, 1.7 white noise", ".2f"),
    ("idle", "s", "time at both ends in which nothing is commanded to move", ".1f"),
)
"""Name, unit, meaning and format of what is shown of every take."""


def figures(take: TakeReport) -> list[tuple[float | None, str]]:
    """Values of the columns from `length` on, each with its text; None where there is none."""
    reference, motion = take.reference(), take.motion or Motion(())
    timed = [s for s in take.streams if s.name in take.views or s.type == "sensor_msgs/msg/JointState"]
    skews = [s.skew_ms for s in timed if s.skew_ms is not None]
    values = (
        take.duration_s,
        float(take.frames),
        reference.rate_hz if reference else None,
        max((s.gap_ms for s in timed), default=None),
        max(skews, default=None),
        max((ms for name, ms in take.ages_ms.items() if name not in (JOINTS, GRIPPER)), default=None),
        float(sum(take.stale.values())) if take.observations else None,
        1e3 * max(motion.error_max) if motion.error_max else None,
        motion.lag_ms,
        100 * motion.speed if motion.speed is not None else None,
        motion.roughness,
        motion.idle_start_s + motion.idle_end_s if motion.joint_names else None,
    )
    formats = [form for *_, form in COLUMNS[3:]]
    return [(v, "" if v is None else format(v, form)) for v, form in zip(values, formats, strict=True)]


def table(takes: Sequence[TakeReport], rows: int) -> str:
    """Fixed columns; `!` marks suspicious takes and `X` damaged ones. At most `rows` takes; one take in full."""
    shown = takes[: max(0, rows)]
    cells = [_cells(take) for take in shown]
    heads = [f"{name} {unit}".strip() for name, unit, *_ in COLUMNS]
    widths = [max(len(head), *(len(row[i]) for row in cells), 0) for i, head in enumerate(heads)]
    lines = ["  " + _line(heads, widths)] if shown else []
    for take, row in zip(shown, cells, strict=True):
        lines.append(f"{'X' if take.fault else '!' if take.findings else ' '} {_line(row, widths)}")
        for text in [take.fault, *take.findings]:
            lines += textwrap.wrap(text, 110, initial_indent="      - ", subsequent_indent="        ")
    if len(takes) > len(shown):
        rest = takes[len(shown) :]
        lines.append(f"  ... and {len(rest)} more takes, {sum(t.suspicious for t in rest)} of them suspicious (--rows)")
    if len(takes) == 1:
        lines += ["", *_streams(takes[0])]
    return "\n".join(lines)


def summary(totals: Totals) -> str:
    """Sums, tasks and joint ranges."""
    lines = ["", f"{totals.takes} takes, {totals.suspicious} suspicious, {totals.unreadable} damaged or unreadable"]
    lines.append(f"{totals.duration_s / 60:.1f} min, {totals.frames} frames, {totals.size_bytes / 1e6:.1f} MB of bags")
    for (task, text), counts in sorted(totals.instructions.items())[:20]:
        labels = ", ".join(f"{count} {label or 'without label'}" for label, count in counts.most_common())
        lines.append(f"  {task or '-'}: {text[:70] or 'no instruction'}: {labels}")
    for name, joints in sorted(totals.joints.items()):
        lines.append(f"joint ranges ({name or 'no embodiment named'}) [rad]")
        for joint in joints:
            limits = "" if joint.lower is None else f"   limits {joint.lower:7.3f} to {joint.upper:7.3f}"
            mark = "  OUTSIDE" if joint.outside else ""
            lines.append(f"  {joint.name[:24]:<24} {joint.low:7.3f} to {joint.high:7.3f}{limits}{mark}")
    return "\n".join(lines)


def _cells(take: TakeReport) -> tuple[str, ...]:
    words = (take.name[:36], (take.task or take.instruction)[:24], take.outcome[:10])
    return tuple(text or "-" for text in (*words, *(text for _, text in figures(take))))


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    first = "  ".join(cell.ljust(width) for cell, width in zip(cells[:3], widths[:3], strict=True))
    return first + "  " + "  ".join(cell.rjust(width) for cell, width in zip(cells[3:], widths[3:], strict=True))


def _streams(take: TakeReport) -> list[str]:
    lines = [f"  {'messages':>8} {'Hz':>8} {'gap ms':>9}  stream"] if take.streams else []
    for s in take.streams:
        timing = f"{s.rate_hz:8.1f} {s.gap_ms:9.1f}" if s.count > 1 else " " * 18
        lines.append(f"  {s.count:>8} {timing}  {s.name}  {s.type}")
    return lines
