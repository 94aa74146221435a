"""LeRobotDataset v3.0 folders with drawn content, as the format's documentation lays them out."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from e0_ros.core.dataset_video import ordinary_priority

JOINTS = tuple(f"panda_joint{i}" for i in range(1, 8))
FPS = 20
THREADS = {"libx264": {"threads": "1"}, "libsvtav1": {"svtav1-params": "lp=1"}}


@dataclass
class Folder:
    """What is in a folder: tables by episode, the frame's number in the whole dataset is coded into its images."""

    path: Path
    states: list[np.ndarray] = field(default_factory=list)
    actions: list[np.ndarray] = field(default_factory=list)
    instructions: list[str] = field(default_factory=list)
    views: tuple[str, ...] = ("base", "wrist")


def colours(view: int, number: int) -> np.ndarray:
    """Four grey levels `(4,)` that tell a frame of a view from all others; far enough apart to survive a codec."""
    digits = [number % 8, number // 8 % 8, number // 64 % 8, view]
    return np.array(digits, np.int64) * 30 + 20


def picture(view: int, number: int, side: int) -> np.ndarray:
    """Four quadrants in the frame's grey levels `(side, side, 3)`."""
    quadrants = colours(view, number).reshape(2, 2).repeat(side // 2, 0).repeat(side // 2, 1)
    return quadrants[..., None].repeat(3, 2).astype(np.uint8)


def number_of(image: np.ndarray, view: int) -> int:
    """The frame's number, read from its picture."""
    half = image.shape[0] // 2
    means = image.reshape(2, half, 2, half, 3).mean((1, 3, 4)).ravel()
    digits = np.rint((means - 20) / 30).astype(int)
    assert digits[3] == view and np.abs(means - 20 - digits * 30).max() < 8
    return int(digits[0] + 8 * digits[1] + 64 * digits[2])


def write_folder(
    path: Path,
    lengths: tuple[int, ...] = (12, 9, 15),
    *,
    per_file: int = 2,
    side: int = 32,
    gop: int = 2,
    codec: str = "libx264",
    views: tuple[str, ...] = ("base", "wrist"),
    instructions: tuple[str, ...] = ("pick the cube", "push the cube"),
    own: bool = True,
    seed: int = 0,
) -> Folder:
    """Write a dataset; `per_file` episodes share a parquet and an mp4 file, files are spread over two chunks."""
    rng, folder = np.random.default_rng(seed), Folder(path, views=views)
    rows: list[dict[str, Any]] = []
    first = 0
    for number, length in enumerate(lengths):
        walk = np.cumsum(rng.normal(0, 0.02, (length + 1, 8)), 0).astype(np.float32)
        walk[:, 7] = np.clip(np.abs(walk[:, 7]) * 5, 0, 1)
        folder.states.append(walk[:-1])
        folder.actions.append(walk[1:])
        folder.instructions.append(instructions[number % len(instructions)])
        file = number // per_file
        row: dict[str, Any] = {"episode_index": number, "tasks": [folder.instructions[-1]], "length": length}
        row |= {"data/chunk_index": file % 2, "data/file_index": file // 2}
        row |= {"dataset_from_index": first, "dataset_to_index": first + length}
        start = sum(lengths[file * per_file : number]) / FPS
        for view in views:
            key = f"videos/observation.images.{view}"
            row |= {f"{key}/chunk_index": file % 2, f"{key}/file_index": file // 2}
            row |= {f"{key}/from_timestamp": start, f"{key}/to_timestamp": start + length / FPS}
        rows.append(row)
        first += length
    for file in range(-(-len(lengths) // per_file)):
        _write_data(folder, rows, list(range(len(lengths)))[file * per_file : (file + 1) * per_file], instructions)
        numbers = [r["dataset_from_index"] + t for r in rows[file * per_file : (file + 1) * per_file]
                   for t in range(r["length"])]  # fmt: skip
        for v, view in enumerate(views):
            video = path / f"videos/observation.images.{view}/chunk-{file % 2:03d}/file-{file // 2:03d}.mp4"
            write_video(video, [picture(v, n, side) for n in numbers], gop, codec)
    _write_meta(folder, rows, instructions, side)
    if own:
        data = {"embodiment": "panda", "joint_names": list(JOINTS), "period_ns": 10**9 // FPS}
        data["episodes"] = [{"episode_index": e, "frames": length} for e, length in enumerate(lengths)]
        (path / "meta/e0.json").write_text(json.dumps(data))
    return folder


def write_video(path: Path, frames: list[np.ndarray], gop: int, codec: str = "libx264") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=FPS, options={"g": str(gop), "crf": "12", **THREADS[codec]})
        stream.width, stream.height, stream.pix_fmt = frames[0].shape[1], frames[0].shape[0], "yuv420p"
        with ordinary_priority():
            stream.codec_context.open()
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


def _write_data(folder: Folder, rows: list[dict[str, Any]], episodes: list[int], tasks: tuple[str, ...]) -> None:
    columns: dict[str, list[Any]] = {}
    for e in episodes:
        length, task = rows[e]["length"], tasks.index(folder.instructions[e])
        values = {
            "observation.state": folder.states[e].tolist(),
            "action": folder.actions[e].tolist(),
            "timestamp": (np.arange(length) / FPS).astype(np.float32).tolist(),
            "frame_index": list(range(length)),
            "episode_index": [e] * length,
            "index": list(range(rows[e]["dataset_from_index"], rows[e]["dataset_to_index"])),
            "task_index": [task] * length,
        }
        for name, value in values.items():
            columns.setdefault(name, []).extend(value)
    vectors = {n: pa.array(columns.pop(n), pa.list_(pa.float32(), 8)) for n in ("observation.state", "action")}
    row = rows[episodes[0]]
    path = folder.path / f"data/chunk-{row['data/chunk_index']:03d}/file-{row['data/file_index']:03d}.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({**vectors, **columns}), path)


def _write_meta(folder: Folder, rows: list[dict[str, Any]], tasks: tuple[str, ...], side: int) -> None:
    meta = folder.path / "meta"
    (meta / "episodes/chunk-000").mkdir(parents=True)
    half = -(-len(rows) // 2)
    for number, part in enumerate((rows[:half], rows[half:])):
        if part:
            pq.write_table(pa.Table.from_pylist(part), meta / f"episodes/chunk-000/file-{number:03d}.parquet")
    table = pa.table({"task_index": list(range(len(tasks))), "__index_level_0__": list(tasks)})
    pq.write_table(table, meta / "tasks.parquet")
    vector = {"dtype": "float32", "shape": [8], "names": [*JOINTS, "gripper"]}
    info = {
        "codebase_version": "v3.0",
        "fps": FPS,
        "total_episodes": len(rows),
        "total_frames": sum(r["length"] for r in rows),
        "total_tasks": len(tasks),
        "data_path": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
        "video_path": "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4",
        "features": {
            "observation.state": vector,
            "action": vector,
            **{f"observation.images.{v}": {"dtype": "video", "shape": [side, side, 3]} for v in folder.views},
        },
    }
    (meta / "info.json").write_text(json.dumps(info))
