"""A bag as a video of its camera views and a plot of commanded against measured joint positions; needs no ROS."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from e0_ros.core.bag_reader import Bag, BagReadError
from e0_ros.core.bag_recovery import recover
from e0_ros.core.definitions import installed
from e0_ros.core.traces import Traces, read_traces
from e0_ros.episode_video import camera_views, write_video

_SHADES = {"HOLD": "orange", "STOPPED": "red", "DISARMED": "lightgrey", "ARMED": "lightblue"}


def write_plot(traces: Traces, path: Path) -> None:
    """Write a picture: one panel per joint and one for the gripper, holds shaded, refused chunks marked."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(14, 2.1 * ((len(traces.joint_names) + 2) // 2) + 1), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots((len(traces.joint_names) + 2) // 2, 2, sharex=True, squeeze=False).ravel()
    for column, name in enumerate(traces.joint_names):
        _panel(axes[column], traces.measured, traces.commanded, column, f"{name} [rad]")
    gripper = axes[len(traces.joint_names)]
    _panel(gripper, traces.gripper_measured, traces.gripper_commanded, 0, "gripper opening")
    gripper.set_ylim(-0.05, 1.05)
    for spare in axes[len(traces.joint_names) + 1 :]:
        spare.set_visible(False)
    for axis in axes:
        _mark(axis, traces)
    axes[-1].set_xlabel("time since the start [s]")
    axes[-2].set_xlabel("time since the start [s]")
    figure.legend(*_legend(axes[0]), loc="outside lower center", ncols=6)
    figure.suptitle(_title(traces), fontsize=11)
    figure.savefig(path, dpi=110)


def summary(bag: Bag) -> str:
    """What a bag holds: the episode, its topics with counts and rates, losses and damage."""
    counts: Counter[str] = Counter()
    times: dict[str, list[int]] = {}
    for message in bag.messages():
        counts[message.topic] += 1
        times.setdefault(message.topic, []).append(message.log_ns)
    stamps = [t for topic in times.values() for t in (topic[0], topic[-1])] or [0]
    duration_s = (max(stamps) - min(stamps)) / 1e9
    about = ("episode_id", "task", "seed", "instruction", "outcome", "note", "lost", "lost_by_topic", "fault")
    lines = [f"{key:<14}{bag.custom[key]}" for key in (*about, "code_version") if bag.custom.get(key)]
    lines.append(f"{'duration':<14}{duration_s:.2f} s, {sum(counts.values())} messages")
    for topic, count in sorted(counts.items()):
        rate = f"{count / duration_s:8.1f} Hz" if duration_s else " " * 11
        lines.append(f"  {count:>8} {rate}  {topic}  {bag.topics[topic]}")
    return "\n".join(lines + [f"damage: {damage}" for damage in bag.damage])


def main(argv: Sequence[str] | None = None) -> int:
    """`e0 episode`: print what bags hold, write `<bag>.mp4` and `<bag>.png` beside each. Returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="e0 episode",
        description="What a bag holds, a video of its camera views, and a plot of commanded against measured joint "
        "positions. Every checksum is validated on the way.",
        epilog="example: e0 episode bags/20260101-120000 --only plot",
    )
    parser.add_argument("bags", nargs="+", type=Path, help="bag folders or .mcap files")
    parser.add_argument("--out", type=Path, help="folder to write to (default: beside each bag)")
    parser.add_argument("--only", choices=("summary", "video", "plot"), help="only this")
    parser.add_argument("--salvage", action="store_true", help="read what is whole of a partial or damaged bag")
    parser.add_argument("--recover", action="store_true", help="write what is whole to <bag>-recovered, do no more")
    arguments = parser.parse_args(argv)
    failed = 0
    for path in arguments.bags:
        try:
            if arguments.recover:
                print(recover(path, installed()).path)
                continue
            if arguments.only in (None, "summary"):
                print(summary(Bag(path, salvage=arguments.salvage)))
            for written in report(path, arguments.out or path.parent, arguments.only, arguments.salvage):
                print(written)
        except (BagReadError, OSError) as error:
            print(f"e0 episode: {error}", file=sys.stderr)
            failed = 1
    return failed


def report(path: Path, out: Path, only: str | None = None, salvage: bool = False) -> Iterator[Path]:
    """Write the video (if there are images) and the plot of a bag, and yield the path of each once it is whole."""
    out.mkdir(parents=True, exist_ok=True)
    name = path.resolve().name.removesuffix(".mcap").removesuffix(".partial")
    for kind, suffix in (("video", ".mp4"), ("plot", ".png")):
        bag = Bag(path, salvage=salvage)
        if only == kind or (only is None and (kind == "plot" or camera_views(bag))):
            partial, final = out / f".{name}{suffix}", out / f"{name}{suffix}"
            try:
                if kind == "video":
                    write_video(bag, partial)
                else:
                    write_plot(read_traces(bag), partial)
                partial.replace(final)
            finally:
                partial.unlink(missing_ok=True)
            yield final


def _panel(axis: Any, measured: Any, commanded: Any, column: int, label: str) -> None:
    axis.plot(measured.time_s, measured.values[:, column], color="tab:blue", linewidth=1.6, label="measured")
    axis.plot(commanded.time_s, commanded.values[:, column], "--", color="black", linewidth=1.0, label="commanded")
    axis.set_ylabel(label, fontsize=8)
    axis.grid(alpha=0.3)


def _mark(axis: Any, traces: Traces) -> None:
    for span in traces.spans:
        if span.mode in _SHADES:
            axis.axvspan(span.start_s, span.end_s, color=_SHADES[span.mode], alpha=0.35, linewidth=0, label=span.mode)
    for time_s, _ in traces.refusals:
        axis.axvline(time_s, color="red", linewidth=1.0, label="chunk refused")


def _legend(axis: Any) -> tuple[list[Any], list[str]]:
    handles, labels = axis.get_legend_handles_labels()
    unique = dict(zip(labels, handles, strict=True))
    return list(unique.values()), list(unique)


def _title(traces: Traces) -> str:
    error = np.abs(traces.tracking_error_rad())
    text = f"{traces.episode_id}  {traces.task}  {traces.outcome}\n{traces.instruction}"
    if error.size:
        text += f"   largest tracking error {error.max():.4f} rad, mean {error.mean():.4f} rad"
    holds = {span.reason for span in traces.spans if span.mode in ("HOLD", "STOPPED")}
    reasons = holds | {reason for _, reason in traces.refusals}
    return text + ("\n" + "; ".join(sorted(reasons))[:160] if reasons else "")


if __name__ == "__main__":
    sys.exit(main())
