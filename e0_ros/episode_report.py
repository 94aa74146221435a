"""A bag as a video of its camera views and a plot of commanded against measured joint positions; needs no ROS."""

from __future__ import annotations

import argparse
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import yaml

from e0_policy.types import ImageArray
from e0_ros.core.bag_reader import Bag, BagMessage, BagReadError
from e0_ros.core.decode import DecodeError, decode_compressed, decode_raw, resize_with_pad
from e0_ros.core.traces import MODES, Traces, read_traces, stamp_ns
from e0_ros.interfaces import ACTION_CHUNK, EPISODE_EVENT, EXECUTOR_STATE, INSTRUCTION

VIEW_PX = 448
TEXT_PX = 104
_SHADES = {"HOLD": "orange", "STOPPED": "red", "DISARMED": "lightgrey", "ARMED": "lightblue"}


@dataclass
class _Scene:
    """What was last known at a point of the bag."""

    instruction: str = ""
    mode: str = "-"
    reason: str = ""
    action: str = "no chunk yet"
    start_ns: int = -1
    views: dict[str, deque[tuple[int, Any]]] = field(default_factory=dict)

    def lines(self, stamp: int) -> tuple[str, ...]:
        time_s = (stamp - self.start_ns) / 1e9 if self.start_ns >= 0 else 0.0
        reason = f": {self.reason}" if self.reason else ""
        return f"{time_s:7.2f} s  {self.instruction}", f"{self.mode}{reason}", self.action


def write_video(bag: Bag, path: Path) -> int:
    """Write an mp4 (H.264) with every view side by side, text below; returns the number of frames.

    One frame per image of the reference view, each other view's image nearest to it beside it.

    Raises:
        BagReadError: the bag holds no camera images.

    """
    import av

    views = _views(bag)
    stamps = [stamp_ns(bag.decode(m)) for m in bag.messages([views[0][1]])]
    period_ns = int(np.median(np.diff(stamps))) if len(stamps) > 1 else 10**8
    rate = Fraction(10**9, max(period_ns, 10**6)).limit_denominator(1000)
    count = 0
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=rate, options={"crf": "20", "preset": "veryfast"})
        stream.width, stream.height, stream.pix_fmt = VIEW_PX * len(views), VIEW_PX + TEXT_PX, "yuv420p"
        for frame in _frames(bag, views):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
            count += 1
        container.mux(stream.encode())
    return count


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


def main(argv: Sequence[str] | None = None) -> int:
    """`e0 video` and `e0 plot`: write `<bag>.mp4` and `<bag>.png` beside each bag. Returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="e0 video",
        description="Video of the camera views and plot of commanded against measured joint positions of a bag.",
        epilog="example: e0 video bags/20260101-120000 --only plot",
    )
    parser.add_argument("bags", nargs="+", type=Path, help="bag folders or .mcap files")
    parser.add_argument("--out", type=Path, help="folder to write to (default: beside each bag)")
    parser.add_argument("--only", choices=("video", "plot"), help="write only this")
    parser.add_argument("--salvage", action="store_true", help="read what is whole of a partial or damaged bag")
    arguments = parser.parse_args(argv)
    failed = 0
    for path in arguments.bags:
        try:
            for written in report(path, arguments.out or path.parent, arguments.only, arguments.salvage):
                print(written)
        except (BagReadError, OSError) as error:
            print(f"e0 video: {error}", file=sys.stderr)
            failed = 1
    return failed


def report(path: Path, out: Path, only: str | None = None, salvage: bool = False) -> Iterator[Path]:
    """Write the video and the plot of a bag, and yield the path of each once it is whole."""
    out.mkdir(parents=True, exist_ok=True)
    name = path.resolve().name.removesuffix(".mcap").removesuffix(".partial")
    for kind, suffix in (("video", ".mp4"), ("plot", ".png")):
        if only in (None, kind):
            partial, final = out / f".{name}{suffix}", out / f"{name}{suffix}"
            bag = Bag(path, salvage=salvage)
            try:
                if kind == "video":
                    write_video(bag, partial)
                else:
                    write_plot(read_traces(bag), partial)
                partial.replace(final)
            finally:
                partial.unlink(missing_ok=True)
            yield final


def _views(bag: Bag) -> list[tuple[str, str]]:
    """Names and topics of the camera views, the reference view first."""
    topics = sorted(t for m, t in ((bag.topics[t], t) for t in bag.topics) if m.endswith("Image") and "/cameras/" in t)
    found = {topic.split("/cameras/")[1].split("/")[0]: topic for topic in topics}
    if not found:
        raise BagReadError(f"{bag.path}: holds no camera images; `--only plot` does without")
    configured = (yaml.safe_load(bag.custom.get("configuration", "")) or {}).get("views") or []
    order = sorted(found, key=lambda view: configured.index(view) if view in configured else len(configured))
    return [(view, found[view]) for view in order]


def _frames(bag: Bag, views: list[tuple[str, str]]) -> Iterator[ImageArray]:
    scene = _Scene(instruction=bag.custom.get("instruction", ""))
    scene.views = {topic: deque(maxlen=8) for _, topic in views}
    waiting: int | None = None
    for message in bag.messages():
        if message.topic == views[0][1] and waiting is not None:
            yield _draw(scene, views, waiting)
        stamp = _follow(scene, bag, message)
        waiting = stamp if message.topic == views[0][1] else waiting
    if waiting is not None:
        yield _draw(scene, views, waiting)


def _follow(scene: _Scene, bag: Bag, message: BagMessage) -> int:
    if message.topic in scene.views:
        image = bag.decode(message)
        scene.views[message.topic].append((stamp_ns(image), image))
        return stamp_ns(image)
    if message.topic == EXECUTOR_STATE.name:
        state = bag.decode(message)
        scene.mode, scene.reason = MODES[state.mode] if state.mode < len(MODES) else str(state.mode), state.reason
    elif message.topic == ACTION_CHUNK.name:
        scene.action = _action(bag.decode(message))
    elif message.topic == INSTRUCTION.name:
        scene.instruction = bag.decode(message).data
    elif message.topic == EPISODE_EVENT.name and scene.start_ns < 0:
        scene.start_ns = stamp_ns(bag.decode(message))
    return 0


def _action(chunk: Any) -> str:
    head = f"{chunk.source} #{chunk.sequence}"
    if chunk.status != 0:
        return f"{head}: no plan, {chunk.reason}"
    if not chunk.rows or len(chunk.data) != chunk.rows * chunk.columns:
        return f"{head}: malformed"
    row = " ".join(f"{value:+.2f}" for value in chunk.data[-chunk.columns :])
    return f"{head}: {chunk.rows} rows to {row}"


def _draw(scene: _Scene, views: list[tuple[str, str]], stamp: int) -> ImageArray:
    frame = np.zeros((VIEW_PX + TEXT_PX, VIEW_PX * len(views), 3), np.uint8)
    for place, (name, topic) in enumerate(views):
        left = place * VIEW_PX
        images = scene.views[topic]
        if images:
            nearest = min(images, key=lambda pair: abs(pair[0] - stamp))[1]
            frame[:VIEW_PX, left : left + VIEW_PX] = _pixels(nearest)
        _text(frame, name, left + 8, 22, 0.55)
    for row, line in enumerate(scene.lines(stamp)):
        _text(frame, line, 8, VIEW_PX + 26 + 32 * row, 0.6)
    return frame


def _pixels(image: Any) -> ImageArray:
    try:
        if hasattr(image, "format"):
            pixels = decode_compressed(image.format, image.data)
        else:
            pixels = decode_raw(
                image.encoding, image.height, image.width, image.step, image.is_bigendian, image.data.data
            )
    except DecodeError:
        return np.full((VIEW_PX, VIEW_PX, 3), 64, np.uint8)
    return resize_with_pad(pixels, VIEW_PX, VIEW_PX)


def _text(frame: ImageArray, text: str, x: int, y: int, scale: float) -> None:
    plain = text.encode("ascii", "replace").decode()
    for colour, width in (((0, 0, 0), 4), ((255, 255, 255), 1)):
        cv2.putText(frame, plain, (x, y), cv2.FONT_HERSHEY_SIMPLEX, scale, colour, width, cv2.LINE_AA)


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
