"""A bag's camera views as a video: the plan drawn into them, instruction, executor's mode and last chunk below."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from e0_policy.embodiment import Embodiment
from e0_policy.types import ImageArray
from e0_ros.core.bag_cameras import camera_models
from e0_ros.core.bag_reader import Bag, BagMessage, BagReadError
from e0_ros.core.camera_model import CameraModel
from e0_ros.core.decode import resize_with_pad
from e0_ros.core.inspection import arm_named
from e0_ros.core.inspection_images import camera_views, image_pixels
from e0_ros.core.plan_overlay import Plan, draw_plan, draw_scale, flange_at, latest, plan_of, scale_nats
from e0_ros.core.traces import mode_name, stamp_ns
from e0_ros.interfaces import ACTION_CHUNK, EPISODE_EVENT, EXECUTOR_STATE, INSTRUCTION, JOINT_STATES

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
    plan: Plan | None = None
    joints: BagMessage | None = None
    views: dict[str, deque[tuple[int, Any]]] = field(default_factory=dict)

    def lines(self, stamp: int) -> tuple[str, ...]:
        time_s = (stamp - self.start_ns) / 1e9 if self.start_ns >= 0 else 0.0
        reason = f": {self.reason}" if self.reason else ""
        return f"{time_s:7.2f} s  {self.instruction}", f"{self.mode}{reason}", self.action


@dataclass(frozen=True)
class _Overlay:
    """What is needed to draw plans: the arm, calibrated cameras by view, and the end of the colours' scale [nats]."""

    arm: Embodiment | None = None
    cameras: Mapping[str, CameraModel] = field(default_factory=dict)
    scale: float = 0.0

    @classmethod
    def of(cls, bag: Bag, views: Sequence[str]) -> _Overlay:
        chunks = [bag.decode(m) for m in bag.messages([ACTION_CHUNK.name])]
        arm = arm_named(next((c.embodiment for c in chunks if c.embodiment), ""))
        return cls() if arm is None else cls(arm, camera_models(bag, tuple(views), arm), scale_nats(chunks))


def write_video(bag: Bag, path: Path) -> int:
    """Write an mp4 (H.264) with every view side by side, text below; returns the number of frames.

    One frame per image of the reference view, each other view's image nearest to it beside it. Where the bag has the
    cameras' calibration, the tool's path by the plan in force is drawn over their images.

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
    overlay = _Overlay.of(bag, [view for view, _ in views])
    waiting: int | None = None
    for message in bag.messages():
        if message.topic == views[0][1] and waiting is not None:
            yield _draw(scene, bag, views, waiting, overlay)
        stamp = _follow(scene, bag, message, overlay.arm)
        waiting = stamp if message.topic == views[0][1] else waiting
    if waiting is not None:
        yield _draw(scene, bag, views, waiting, overlay)


def _follow(scene: _Scene, bag: Bag, message: BagMessage, arm: Embodiment | None) -> int:
    if message.topic in scene.views:
        image = bag.decode(message)
        scene.views[message.topic].append((stamp_ns(image), image))
        return stamp_ns(image)
    if message.topic == EXECUTOR_STATE.name:
        state = bag.decode(message)
        scene.mode, scene.reason = mode_name(state.mode), state.reason
    elif message.topic == ACTION_CHUNK.name:
        chunk = bag.decode(message)
        scene.action = _action(chunk)
        scene.plan = (plan_of(chunk, arm) if arm is not None else None) or scene.plan
    elif message.topic == JOINT_STATES.name:
        scene.joints = message
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


def _draw(scene: _Scene, bag: Bag, views: list[tuple[str, str]], stamp: int, overlay: _Overlay) -> ImageArray:
    frame = np.zeros((VIEW_PX + TEXT_PX, VIEW_PX * len(views), 3), np.uint8)
    plan = latest(scene.plan, stamp)
    flange = flange_at(bag.decode(scene.joints), overlay.arm) if scene.joints and overlay.arm and plan else None
    for place, (name, topic) in enumerate(views):
        left = place * VIEW_PX
        images = scene.views[topic]
        if images:
            nearest = min(images, key=lambda pair: abs(pair[0] - stamp))[1]
            frame[:VIEW_PX, left : left + VIEW_PX] = resize_with_pad(image_pixels(nearest), VIEW_PX, VIEW_PX)
        if plan is not None and name in overlay.cameras:
            panel = np.ascontiguousarray(frame[:VIEW_PX, left : left + VIEW_PX])
            draw_plan(panel, plan, overlay.cameras[name], stamp, overlay.scale, flange)
            if overlay.scale > 0 and place == 0:
                draw_scale(panel, overlay.scale)
            frame[:VIEW_PX, left : left + VIEW_PX] = panel
        _text(frame, name, left + 8, 22, 0.55)
    for row, line in enumerate(scene.lines(stamp)):
        _text(frame, line, 8, VIEW_PX + 26 + 32 * row, 0.6)
    return frame


def _text(frame: ImageArray, text: str, x: int, y: int, scale: float) -> None:
    plain = text.encode("ascii", "replace").decode()
    for colour, width in (((0, 0, 0), 4), ((255, 255, 255), 1)):
        cv2.putText(frame, plain, (x, y), cv2.FONT_HERSHEY_SIMPLEX, scale, colour, width, cv2.LINE_AA)
