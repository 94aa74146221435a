"""Random access to the frames of video files by time: packets are indexed once, then key-frame seeks and decoding."""

from __future__ import annotations

import os
import threading
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

from e0_policy.types import ImageArray

OPEN_FILES = 16
"""Decoders that each thread keeps open."""


class VideoError(ValueError):
    """A video cannot be read, or lacks a frame; the message names the file, and what was got and needed."""


@dataclass(frozen=True)
class VideoIndex:
    """Packets of a video in the order of presentation; times are in units of the stream's time base.

    Attributes:
        pts: presentation times `(frames,)`, ascending.
        keys: numbers of the key frames, ascending.
        seek: for each key frame the decoding time to seek to.
        time_base_s: seconds per unit.

    """

    pts: NDArray[np.int64]
    keys: tuple[int, ...]
    seek: tuple[int, ...]
    time_base_s: float

    def number(self, time_s: float) -> int:
        """Number of the frame nearest to a time, at most a quarter of a frame period away.

        Raises:
            VideoError: none is that near.

        """
        at = time_s / self.time_base_s
        after = int(np.searchsorted(self.pts, at))
        number = min((n for n in (after - 1, after) if 0 <= n < len(self.pts)), key=lambda n: abs(self.pts[n] - at))
        period = (self.pts[-1] - self.pts[0]) / max(len(self.pts) - 1, 1)
        if abs(self.pts[number] - at) > max(0.25 * period, 1.0):
            nearest = self.pts[number] * self.time_base_s
            raise VideoError(f"no frame at {time_s:.4f} s; the nearest of {len(self.pts)} is at {nearest:.4f} s")
        return number


class VideoFile:
    """One open video, for one thread. Reading frames in order decodes each once; others cost a seek.

    Raises:
        VideoError: not a video, or damaged.

    """

    def __init__(self, path: Path, index: VideoIndex | None = None) -> None:
        self._path = path
        try:
            self._container = av.open(str(path))
            self._stream = self._container.streams.video[0]
            self._stream.codec_context.thread_count = 1
            self.index = index or self._read_index()
        except (av.FFmpegError, OSError, IndexError) as error:
            raise VideoError(f"{path} cannot be read as a video: {error}") from None
        self._frames: Iterator[av.VideoFrame] = iter(())
        self._last = -2

    def read(self, number: int) -> ImageArray:
        """A frame `uint8 (height, width, 3)` RGB by its number.

        Raises:
            VideoError: the frame cannot be decoded.

        """
        key = bisect_right(self.index.keys, number) - 1
        if key < 0:
            raise VideoError(f"{self._path}: frame {number} lies before the first key frame")
        try:
            if not (self._last < number and self.index.keys[key] <= self._last + 1):
                self._container.seek(self.index.seek[key], stream=self._stream)
                self._frames = self._container.decode(self._stream)
            target, self._last = self.index.pts[number], -2
            for frame in self._frames:
                if frame.pts == target:
                    self._last = number
                    return frame.to_ndarray(format="rgb24").astype(np.uint8, copy=False)
        except av.FFmpegError as error:
            raise VideoError(f"{self._path}: frame {number} cannot be decoded: {error}") from None
        raise VideoError(f"{self._path}: frame {number} of {len(self.index.pts)} is not there after decoding")

    def close(self) -> None:
        """Close the file."""
        self._container.close()

    def _read_index(self) -> VideoIndex:
        packets = [(p.pts, p.dts, p.is_keyframe) for p in self._container.demux(self._stream) if p.pts is not None]
        packets.sort()
        keys = [(n, dts) for n, (pts, dts, key) in enumerate(packets) if key]
        if not packets or not keys or self._stream.time_base is None:
            raise VideoError(f"{self._path} holds no video frames")
        numbers, seek = zip(*keys, strict=True)
        return VideoIndex(np.array([p[0] for p in packets], np.int64), numbers, seek, float(self._stream.time_base))


class Videos:
    """Frames of many files by time. Each thread and process has decoders of its own, the oldest are closed."""

    def __init__(self) -> None:
        self._indices: dict[Path, VideoIndex] = {}
        self._local = threading.local()

    def read(self, path: Path, time_s: float) -> ImageArray:
        """The frame at a time, `uint8 (height, width, 3)` RGB.

        Raises:
            VideoError: no such file or frame.

        """
        file = self._open(path)
        try:
            return file.read(file.index.number(time_s))
        except VideoError as error:
            raise VideoError(f"{path}: {error}" if str(path) not in str(error) else str(error)) from None

    def count(self, path: Path) -> int:
        """Number of frames, from the packets."""
        return len(self._open(path).index.pts)

    def _open(self, path: Path) -> VideoFile:
        if getattr(self._local, "process", None) != os.getpid():
            self._local.process, self._local.files = os.getpid(), OrderedDict()
        files: OrderedDict[Path, VideoFile] = self._local.files
        if path not in files:
            files[path] = VideoFile(path, self._indices.get(path))
            self._indices[path] = files[path].index
            if len(files) > OPEN_FILES:
                files.popitem(last=False)[1].close()
        files.move_to_end(path)
        return files[path]


def frames_in_header(path: Path) -> int:
    """Number of frames that a video's header states, without reading its packets; 0 if it does not say.

    Raises:
        VideoError: not a video.

    """
    try:
        with av.open(str(path)) as container:
            return int(container.streams.video[0].frames)
    except (av.FFmpegError, OSError, IndexError) as error:
        raise VideoError(f"{path} cannot be read as a video: {error}") from None
