"""`e0 bench convert`: a drawn real-time bag (two views of 224 x 224 at 30 Hz, joints at 1 kHz) to a dataset at 20 Hz.

One process, one thread; CPU time counts, so that a busy machine measures the same. The bag's writing does not count.
"""

from __future__ import annotations

import contextlib
import io
import tempfile
import time
from pathlib import Path

from e0_ros.convert import convert
from e0_ros.core.dataset_config import ConvertConfig, Selection
from e0_ros.synthetic_episode import SyntheticEpisode

TARGETS = {"times_real_time_per_core": ">= 5"}


def run(seconds: float = 10.0) -> dict[str, float]:
    """Convert one episode of `seconds`."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        bag = SyntheticEpisode(size=224, seconds=seconds).write(root / "bags")
        return measure(bag, root / "out", ConvertConfig(), Selection())


def measure(bags: Path, out: Path, config: ConvertConfig, selection: Selection) -> dict[str, float]:
    """Figures of one conversion in this process."""
    cpu, wall = time.process_time(), time.monotonic()
    with contextlib.redirect_stderr(io.StringIO()):
        report = convert([bags], out, config, selection)
    cpu, wall = time.process_time() - cpu, time.monotonic() - wall
    videos = list(out.glob("videos/*/*/*.mp4"))
    images = report.frames * len({video.parts[-3] for video in videos})
    return {
        "times_real_time_per_core": report.recorded_s / cpu,
        "times_real_time_wall": report.recorded_s / wall,
        "frames": report.frames,
        "cpu_ms_per_frame": 1e3 * cpu / report.frames,
        "video_kb_per_image": sum(video.stat().st_size for video in videos) / images / 1e3,
    }
