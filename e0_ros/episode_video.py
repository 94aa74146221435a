"""A bag's camera views as a video, with the instruction, the executor's mode and the last chunk below."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from e0_policy.types import ImageArray
from e0_ros.core.bag_reader import Bag, BagMessage, BagReadError
from e0_ros.core.decode import resize_with_pad
from e0_ros.core.inspection_images import camera_views, image_pixels
from e0_ros.core.traces import MODES, stamp_ns
from e0_ros.interfaces import ACTION_CHUNK, EPISODE_EVENT, EXECUTOR_STATE, INSTRUCTION

VIEW_PX = 448
TEXT_PX = 104


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

    views = camera_views(bag)
    if not views:
        raise BagReadError(f"{bag.path}: holds no camera images; there is nothing to show")
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
            frame[:VIEW_PX, left : left + VIEW_PX] = resize_with_pad(image_pixels(nearest), VIEW_PX, VIEW_PX)
        _text(frame, name, left + 8, 22, 0.55)
    for row, line in enumerate(scene.lines(stamp)):
        _text(frame, line, 8, VIEW_PX + 26 + 32 * row, 0.6)
    return frame


def _text(frame: ImageArray, text: str, x: int, y: int, scale: float) -> None:
    plain = text.encode("ascii", "replace").decode()
    for colour, width in (((0, 0, 0), 4), ((255, 255, 255), 1)):
        cv2.putText(frame, plain, (x, y), cv2.FONT_HERSHEY_SIMPLEX, scale, colour, width, cv2.LINE_AA)
