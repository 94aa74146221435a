"""Pictures of rollouts: the first frame of each, and videos of some."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import cv2
import numpy as np

from e0_policy.kinematics import flange_pose, tcp_position_m
from e0_policy.types import ActionChunk, ImageArray, Representation
from e0_ros.core.bag_reader import Bag
from e0_ros.core.decode import resize_with_pad
from e0_ros.core.plan_overlay import Plan, draw_plan
from e0_ros.episode_video import write_video
from sim.direct import Moment
from sim.eval_rollouts import CONDITIONS, Job

FRAME_PX, VIDEO_PX, TEXT_PX, BAR_PX = 112, 224, 40, 10
_RATE_HZ = 20
_MOST_NATS = 3.0


def _name(job: Job) -> str:
    return f"{job.condition}-{job.task.replace('/', '-')}-{job.seed}"


def first_frame_path(folder: Path, job: Job) -> Path:
    """Where the picture of a rollout's first observation lies."""
    return folder / "first_frames" / f"{_name(job)}.jpg"


def video_path(folder: Path, job: Job) -> Path:
    """Where the video of a rollout lies."""
    return folder / "videos" / f"{_name(job)}.mp4"


def write_first_frame(path: Path, views: Mapping[str, ImageArray]) -> None:
    """Write every view side by side as a small JPEG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = np.hstack([resize_with_pad(image, FRAME_PX, FRAME_PX) for image in views.values()])
    path.write_bytes(cv2.imencode(".jpg", picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 85])[1].tobytes())


def bag_video(bag: Path, path: Path) -> None:
    """Make the video of a recorded rollout."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial.mp4")
    write_video(Bag(bag), partial)
    partial.replace(path)


class RolloutVideo:
    """An mp4 (H.264) of a rollout, whole or not there: views side by side, below them the plan's doubt, time and mode.

    The path of the tool in the chunk in force is drawn over the views, blue to red with the entropy of each row (0 to
    3 nats), grey where it is past. The bar shows the same rows, the present one outlined.
    """

    def __init__(self, path: Path, job: Job) -> None:
        self._path, self._partial, self._job = path, path.with_suffix(".partial.mp4"), job
        self._container: Any = None
        self._stream: Any = None

    def __enter__(self) -> RolloutVideo:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if self._container is None:
            return
        self._container.mux(self._stream.encode())
        self._container.close()
        self._partial.replace(self._path)

    def add(self, moment: Moment) -> None:
        """Append a frame."""
        frame = self._frame(moment)
        if self._container is None:
            self._open(frame)
        import av

        self._container.mux(self._stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))

    def _open(self, frame: ImageArray) -> None:
        import av

        self._container = av.open(str(self._partial), "w")
        options = {"crf": "24", "preset": "veryfast", "movflags": "+faststart"}
        self._stream = self._container.add_stream("libx264", rate=_RATE_HZ, options=options)
        self._stream.height, self._stream.width, self._stream.pix_fmt = frame.shape[0], frame.shape[1], "yuv420p"

    def _frame(self, moment: Moment) -> ImageArray:
        panels = {name: _scaled(image) for name, image in moment.images.items()}
        _draw_chunk(panels, moment)
        views = np.hstack(list(panels.values()))
        below = np.zeros((TEXT_PX, views.shape[1], 3), np.uint8)
        end = "  SUCCESS" if moment.success else ""
        _text(below, f"{self._job.task} seed {self._job.seed}  {CONDITIONS[self._job.condition]}", 15)
        _text(below, f"{moment.step / _RATE_HZ:5.2f} s  {moment.mode}{end}", 31)
        return np.vstack([views, _bar(moment.chunk, moment.now_ns, views.shape[1]), below])


def _scaled(image: ImageArray) -> ImageArray:
    """The policy's own pixels, enlarged without smoothing."""
    how = cv2.INTER_NEAREST if len(image) < VIDEO_PX else cv2.INTER_AREA
    return np.asarray(cv2.resize(image, (VIDEO_PX, VIDEO_PX), interpolation=how), np.uint8)


def _draw_chunk(panels: Mapping[str, ImageArray], moment: Moment) -> None:
    """Draw the tool's path of the chunk in force over the views whose cameras are known."""
    chunk, joints = moment.chunk, moment.joint_positions
    if chunk is None or chunk.representation != Representation.JOINT_POSITION or len(joints) != 7:
        return
    times = chunk.t0_ns + np.arange(len(chunk.rows)) * float(chunk.period_ns)
    plan = Plan(times, tcp_position_m(chunk.rows[:, :7]), chunk.uncertainty)
    for name, panel in panels.items():
        if name in moment.cameras:
            draw_plan(panel, plan, moment.cameras[name], moment.now_ns, _MOST_NATS, flange_pose(joints))


def _bar(chunk: ActionChunk | None, now_ns: int, width: int) -> ImageArray:
    bar = np.full((BAR_PX, width, 3), 24, np.uint8)
    if chunk is None:
        return bar
    edges = np.linspace(0, width, len(chunk.rows) + 1).astype(int)
    doubt = np.zeros(len(chunk.rows)) if chunk.uncertainty is None else np.clip(chunk.uncertainty / _MOST_NATS, 0, 1)
    shades = cv2.applyColorMap((255 * doubt).astype(np.uint8)[:, None], cv2.COLORMAP_TURBO)[:, 0, ::-1]
    for left, right, shade in zip(edges, edges[1:], shades, strict=False):
        bar[1:-1, left + 1 : right] = shade
    present = min((now_ns - chunk.t0_ns) // chunk.period_ns, len(chunk.rows) - 1)
    bar[:, edges[present]] = bar[:, edges[present + 1] - 1] = bar[[0, -1], edges[present] : edges[present + 1]] = 255
    return bar


def _text(frame: ImageArray, text: str, y: int) -> None:
    plain = text.encode("ascii", "replace").decode()
    cv2.putText(frame, plain, (6, y), cv2.FONT_HERSHEY_SIMPLEX, 0.42, (255, 255, 255), 1, cv2.LINE_AA)
