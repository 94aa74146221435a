"""Videos of a dataset: written frame by frame, joined without a new encoding, counted.

Constant rate, no B-frames and a key frame every other frame, so that a random frame costs at most two decodes. Colours
are BT.601, limited range, 4:2:0; with the codec `lossless` they are RGB, and every pixel comes back as it was.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from e0_policy.types import ImageArray
from e0_ros.core.dataset_config import ConvertConfig

ENCODERS = {"h264": "libx264", "av1": "libsvtav1", "lossless": "libx264rgb"}
_BT601 = 6  # AVCOL_SPC_SMPTE170M, also the primaries' and the transfer's number


class VideoError(ValueError):
    """A video cannot be written, or does not hold what it should; the message says what was found."""


@dataclass(frozen=True)
class VideoFormat:
    """How a video is encoded; of equal formats videos can be joined."""

    fps: int
    height: int
    width: int
    codec: str = "h264"
    crf: int = 18
    gop: int = 2

    @classmethod
    def of(cls, config: ConvertConfig, height: int, width: int) -> VideoFormat:
        """The format that a conversion asks for, for images of this size [px]."""
        return cls(config.fps, height, width, config.codec, config.crf, config.gop)

    @property
    def lossless(self) -> bool:
        """Whether every pixel comes back as it was."""
        return self.codec == "lossless"

    @property
    def stored(self) -> tuple[str, str]:
        """Codec and pixel format as a decoder names them."""
        return ("h264", "gbrp") if self.lossless else (self.codec, "yuv420p")

    def options(self) -> dict[str, str]:
        """The encoder's options; one thread, so that the same frames give the same bytes."""
        common = {"g": str(self.gop), "crf": "0" if self.lossless else str(self.crf)}
        if self.codec == "av1":
            return {**common, "preset": "12", "svtav1-params": "lp=1"}
        return {**common, "preset": "ultrafast", "bf": "0", "sc_threshold": "0", "threads": "1"}


class VideoWriter:
    """Writes one video.

    Raises:
        VideoError: a size that 4:2:0 cannot have, or no such encoder.

    """

    def __init__(self, path: Path, form: VideoFormat) -> None:
        if not form.lossless and (form.height % 2 or form.width % 2):
            raise VideoError(f"images are {form.width} x {form.height} px; video needs even numbers, resize them")
        self._form, self.frames = form, 0
        self._container: Any = av.open(str(path), "w", format="mp4")
        try:
            stream: Any = self._container.add_stream(ENCODERS[form.codec], rate=form.fps, options=form.options())
        except av.codec.codec.UnknownCodecError:
            raise VideoError(f"this PyAV has no encoder {ENCODERS[form.codec]}; choose another codec") from None
        stream.width, stream.height = form.width, form.height
        stream.pix_fmt = "rgb24" if form.lossless else form.stored[1]
        stream.codec_context.thread_count = 1
        stream.codec_context.time_base = Fraction(1, form.fps)
        if not form.lossless:
            _tag_colours(stream.codec_context)
        with ordinary_priority():
            stream.codec_context.open()
        self._stream = stream

    def add(self, image: ImageArray) -> None:
        """Append a frame.

        Raises:
            VideoError: an image of another size.

        """
        if image.shape != (self._form.height, self._form.width, 3):
            raise VideoError(f"image is {image.shape}; the video's are {(self._form.height, self._form.width, 3)}")
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
        frame.pts = self.frames
        self._container.mux(self._stream.encode(frame))
        self.frames += 1

    def close(self) -> None:
        """Flush and finish the file."""
        self._container.mux(self._stream.encode())
        self._container.close()


@contextmanager
def ordinary_priority() -> Iterator[None]:
    """For opening an encoder: SVT-AV1 makes who opens it as root, and all of its threads, SCHED_FIFO."""
    policy, parameter, threads = os.sched_getscheduler(0), os.sched_getparam(0), _threads()
    try:
        yield
    finally:
        for thread in {0} | _threads() - threads:
            with suppress(ProcessLookupError):
                os.sched_setscheduler(thread, policy, parameter)


def _threads() -> set[int]:
    return {int(path.name) for path in Path("/proc/self/task").iterdir()}


def count_frames(path: Path) -> int:
    """Frames that really decode."""
    with av.open(str(path)) as container:
        container.streams.video[0].codec_context.thread_count = 1
        return sum(1 for _ in container.decode(video=0))


def join(parts: Sequence[Path], target: Path, fps: int) -> list[int]:
    """Join videos of one format without a new encoding; returns the frames of each part.

    Raises:
        VideoError: a part whose frames do not lie `1 / fps` apart.

    """
    counts: list[int] = []
    with av.open(str(target), "w", format="mp4") as output:
        stream: Any = None
        for part in parts:
            with av.open(str(part)) as source:
                own = source.streams.video[0]
                if stream is None:
                    stream = output.add_stream_from_template(own, opaque=True)
                    stream.time_base = own.time_base
                counts.append(_copy(source, own, output, stream, sum(counts), fps))
    return counts


def frame_times(path: Path, fps: int) -> list[int]:
    """Presentation times of a video's frames, in frames, without decoding.

    Raises:
        VideoError: a time that is no multiple of `1 / fps`.

    """
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        times = [packet.pts * stream.time_base * fps for packet in container.demux(stream) if packet.pts is not None]
    if any(time.denominator != 1 for time in times):
        raise VideoError(f"{path}: frames do not lie 1/{fps} s apart")
    return sorted(int(time) for time in times)


def _tag_colours(context: Any) -> None:
    context.colorspace, context.color_primaries, context.color_trc, context.color_range = _BT601, _BT601, _BT601, 1


def _copy(source: Any, own: Any, output: Any, stream: Any, before: int, fps: int) -> int:
    offset = Fraction(before, fps) / own.time_base
    count = 0
    for packet in source.demux(own):
        if packet.dts is None:
            continue
        if offset.denominator != 1 or own.time_base != stream.time_base:
            raise VideoError(f"{source.name}: time base {own.time_base}; {stream.time_base} is needed")
        packet.pts += int(offset)
        packet.dts += int(offset)
        packet.stream = stream
        output.mux(packet)
        count += 1
    return count
