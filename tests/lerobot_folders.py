"""LeRobotDataset v3.0 folders for tests, laid out as lerobot 0.4 writes them."""

import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

FPS = 10
VIEW = "observation.images.front"


def write_video(path: Path, count: int, side: int = 64) -> None:
    """`count` frames, frame i of brightness `4 * i`, as H.264."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=Fraction(FPS), options={"g": "2", "crf": "10"})
        stream.width = stream.height = side
        stream.pix_fmt = "yuv420p"
        for i in range(count):
            pixels = np.full((side, side, 3), 4 * i % 256, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())


def write_dataset(
    root: Path, lengths: tuple[int, ...] = (20, 30, 25), tasks: tuple[str, ...] = ("stack",), **info: Any
) -> Path:
    """Somebody's dataset: a state of two motors and a gripper, one view, all episodes in one file of each kind."""
    state = pa.list_(pa.float32())
    rows: dict[str, list[Any]] = {"observation.state": [], "action": [], "timestamp": [], "frame_index": []}
    rows |= {"episode_index": [], "index": [], "task_index": []}
    episodes, start = [], 0
    for episode, length in enumerate(lengths):
        for i in range(length):
            values = [np.sin(0.2 * i + episode), np.cos(0.2 * i), float(i < length // 2)]
            rows["observation.state"].append(values)
            rows["action"].append([values[0] + 0.1, values[1], values[2]])
            for key, value in (("timestamp", i / FPS), ("frame_index", i), ("episode_index", episode)):
                rows[key].append(value)
            rows["index"].append(start + i)
            rows["task_index"].append(episode % len(tasks))
        places = {f"videos/{VIEW}/{key}": 0 for key in ("chunk_index", "file_index")}
        times = {f"videos/{VIEW}/from_timestamp": start / FPS, f"videos/{VIEW}/to_timestamp": (start + length) / FPS}
        row = {"episode_index": episode, "tasks": [tasks[episode % len(tasks)]], "length": length}
        row |= {"data/chunk_index": 0, "data/file_index": 0, "stats/action/mean": [0.0] * 3, **places, **times}
        episodes.append(row)
        start += length
    arrays = {k: pa.array(v, state if isinstance(v[0], list) else None) for k, v in rows.items()}
    for path, table in (
        ("data/chunk-000/file-000.parquet", pa.table(arrays)),
        ("meta/episodes/chunk-000/file-000.parquet", pa.Table.from_pylist(episodes)),
        ("meta/tasks.parquet", pa.table({"task_index": list(range(len(tasks))), "task": list(tasks)})),
    ):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table, root / path)
    write_video(root / f"videos/{VIEW}/chunk-000/file-000.mp4", start)
    names = {"motors": ["shoulder.pos", "elbow.pos", "gripper.pos"]}
    vector = {"dtype": "float32", "shape": [3], "names": names}
    video = {"dtype": "video", "shape": [64, 64, 3], "names": ["height", "width", "channels"]}
    described = {
        "codebase_version": "v3.0",
        "robot_type": "so101",
        "fps": FPS,
        "features": {"observation.state": vector, "action": vector, VIEW: video},
        "data_path": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
        "video_path": "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4",
    }
    (root / "meta" / "info.json").write_text(json.dumps({**described, **info}))
    return root
