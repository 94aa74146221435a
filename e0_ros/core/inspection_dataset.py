"""Episodes of a LeRobotDataset v3.0 folder, this project's or anybody's, as `TakeReport`s."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from e0_policy.types import FloatArray, ImageArray
from e0_ros.core.inspection import Stream, TakeReport, arm_named, motion_of, short, stream_of
from e0_ros.core.inspection_findings import findings_of
from e0_ros.core.inspection_images import thumbnail
from e0_ros.core.inspection_lerobot import BAD_DATA, Dataset
from e0_ros.core.inspection_plot import plot
from e0_ros.core.pairing import GRIPPER, JOINTS, SyncConfig
from e0_ros.core.traces import Trace, Traces

STATE, ACTION = "observation.state", "action"
AGE, SKEW = "e0.age_ms.", "e0.skew_ms."
EPISODES_PER_JOB = 32
MAX_COLUMNS = 32


def jobs(dataset: Dataset) -> Iterator[list[int]]:
    """Places of episodes to look at together: neighbours of one data file."""
    job: list[int] = []
    for place, row in enumerate(dataset.episodes):
        same = job and _data_file(dataset.episodes[job[-1]]) == _data_file(row)
        if job and (not same or len(job) >= EPISODES_PER_JOB):
            yield job
            job = []
        job.append(place)
    if job:
        yield job


def inspect_episodes(dataset: Dataset, places: list[int], *, pictures: bool = True) -> list[TakeReport]:
    """Look at episodes of one data file; what cannot be read is in each take's `fault`."""
    takes = [_described(dataset, dataset.episodes[place]) for place in places]
    try:
        table = _table(dataset, dataset.episodes[places[0]])
        numbers = np.asarray(table["episode_index"], np.int64)
    except BAD_DATA as error:
        for take in takes:
            take.fault = short(f"{type(error).__name__}: {error}")
        return takes
    for take, place in zip(takes, places, strict=True):
        row = dataset.episodes[place]
        try:
            _fill(take, dataset, row, table.filter(pa.array(numbers == int(row["episode_index"]))), pictures)
        except BAD_DATA as error:
            take.fault = "; ".join(filter(None, [take.fault, short(f"{type(error).__name__}: {error}")]))
        take.findings = findings_of(take)
    return takes


def inspect_videos(dataset: Dataset, view: str) -> list[TakeReport]:
    """A faulty take for each video file of a view whose number of frames is not that of its episodes' rows."""
    rows: dict[tuple[int, int], int] = {}
    for row in dataset.episodes:
        place = (int(row.get(f"videos/{view}/chunk_index", -1)), int(row.get(f"videos/{view}/file_index", -1)))
        rows[place] = rows.get(place, 0) + int(row["length"])
    faulty = []
    for (chunk, file), expected in rows.items():
        where = f"{view} {chunk}/{file}"
        try:
            found = _frames(dataset.file("video_path", video_key=view, chunk_index=chunk, file_index=file))
        except BAD_DATA as error:
            faulty.append(
                TakeReport(short(where), str(dataset.root), "video", short(f"{type(error).__name__}: {error}"))
            )
            continue
        if found != expected:
            text = f"{found} video frames for {expected} rows; the dataset is not whole"
            faulty.append(TakeReport(short(where), str(dataset.root), "video", text))
    return faulty


def _described(dataset: Dataset, row: Mapping[str, Any]) -> TakeReport:
    index = int(row["episode_index"])
    take = TakeReport(f"{dataset.root.resolve().name} {index:04d}", f"{dataset.root}#{index:06d}", "dataset")
    texts = row.get("tasks")
    take.instruction = short(" | ".join(map(str, texts))) if isinstance(texts, list) else ""
    source = _source(dataset, index)
    for key in ("task", "seed", "outcome"):
        setattr(take, key, short(str(source.get(key, ""))))
    take.note = short(str(source.get("bag", "")))
    take.embodiment = short(str(dataset.ours.get("embodiment") or dataset.info.get("robot_type") or ""))
    take.views = tuple(short(view) for view in dataset.views)
    take.frames = int(row["length"])
    lost, flags, bounds = (source.get(key) for key in ("lost", "flags", "gap_bounds_ms"))
    take.lost, take.lost_counted = lost if isinstance(lost, int) else 0, source.get("lost_counted") is True
    take.flags = [short(str(flag)) for flag in flags] if isinstance(flags, list) else []
    take.age_bounds_ms = _age_bounds_ms(dataset, bounds if isinstance(bounds, dict) else {})
    return take


def _age_bounds_ms(dataset: Dataset, told: Mapping[str, Any]) -> dict[str, float]:
    """How old each stream's sample may be: as long as the check of its bag allows a gap to be.

    What the conversion told counts, else the rates and bounds that a bag without a configuration is judged by. The age
    of joints, which are interpolated, is that of the nearer of two samples: half of the gap between them.
    """
    views = [view.rsplit(".", 1)[-1] for view in dataset.views]
    usual = SyncConfig()
    rates = dict.fromkeys(views, usual.camera_rate_hz)
    rates |= {JOINTS: usual.joint_rate_hz, GRIPPER: usual.gripper_rate_hz}
    bounds = {name: usual.silent_ms(rate_hz) for name, rate_hz in rates.items()}
    bounds |= {name: float(told[name]) for name in bounds if isinstance(told.get(name), int | float)}
    return bounds | {JOINTS: bounds[JOINTS] / 2}


def _source(dataset: Dataset, index: int) -> dict[str, Any]:
    episodes = dataset.ours.get("episodes")
    found = episodes[index] if isinstance(episodes, list) and index < len(episodes) else {}
    return found if isinstance(found, dict) else {}


def _fill(take: TakeReport, dataset: Dataset, row: Mapping[str, Any], table: pa.Table, pictures: bool) -> None:
    take.fault = "; ".join(_lengths(dataset, row, table.num_rows))
    if not table.num_rows:
        return
    times = np.asarray(table["timestamp"], np.float64)
    stamps = np.round(1e9 * times).astype(np.int64)
    take.duration_s = float(times[-1] - times[0])
    if not take.instruction and "task_index" in table.column_names:
        take.instruction = short(dataset.tasks.get(int(table["task_index"][0].as_py()), ""))
    take.streams = list(_streams(dataset, table, stamps))
    ages = {name: AGE + name for name in take.age_bounds_ms if AGE + name in table.column_names}
    take.ages_ms = {name: float(_matrix(table, column).max()) for name, column in ages.items()}
    traces = _traces(take, dataset, times, table)
    if traces is not None:
        take.motion = motion_of(traces, arm_named(take.embodiment))
    if pictures:
        take.thumbnails = {short(view): _thumbnails(dataset, row, view, take.frames) for view in dataset.views}
        if traces is not None:
            take.plot = plot(traces, arm_named(take.embodiment), {"frames": stamps.tolist()})


def _streams(dataset: Dataset, table: pa.Table, stamps: Any) -> Iterator[Stream]:
    yield stream_of("frames", "rows", stamps, int(stamps[0]))
    for view in dataset.views:
        skew = SKEW + view.rsplit(".", 1)[-1]
        known = skew in table.column_names
        largest = float(np.abs(_matrix(table, skew)).max()) if known else None
        yield stream_of(short(view), "video", stamps, int(stamps[0]), skew_ms=largest)


def _lengths(dataset: Dataset, row: Mapping[str, Any], rows: int) -> Iterator[str]:
    if rows != int(row["length"]):
        yield f"{rows} rows, but meta/episodes says {row['length']}; the dataset is not whole"
    for view in dataset.views:
        start, end = float(row[f"videos/{view}/from_timestamp"]), float(row[f"videos/{view}/to_timestamp"])
        frames = round((end - start) * dataset.fps)
        if frames != int(row["length"]):
            yield f"{short(view)}: its video lasts {frames} frames, the episode {row['length']}"


def _traces(take: TakeReport, dataset: Dataset, times: FloatArray, table: pa.Table) -> Traces | None:
    if STATE not in table.column_names:
        return None
    state, names = _matrix(table, STATE), _names(dataset, STATE)
    gripper = next((i for i in reversed(range(len(names))) if "gripper" in names[i].lower()), None)
    arm = [i for i in range(len(names)) if i != gripper]
    action = _matrix(table, ACTION) if ACTION in table.column_names else np.empty((0, 0))
    alike = action.shape == state.shape
    none = Trace(np.empty(0), np.empty((0, 1)))
    return Traces(
        take.name,
        take.task,
        take.instruction,
        take.outcome,
        start_ns=0,
        joint_names=tuple(short(names[i]) for i in arm),
        measured=Trace(times, state[:, arm]),
        commanded=Trace(times, action[:, arm]) if alike else Trace(np.empty(0), np.empty((0, len(arm)))),
        gripper_measured=Trace(times, state[:, [gripper]]) if gripper is not None else none,
        gripper_commanded=Trace(times, action[:, [gripper]]) if gripper is not None and alike else none,
        spans=(),
        refusals=(),
    )


def _names(dataset: Dataset, feature: str) -> list[str]:
    """Column names, which LeRobot keeps as a list, as a mapping to a list, or not at all."""
    described = dataset.info["features"][feature]
    names, count = described.get("names"), int(described["shape"][0])
    if isinstance(names, dict):
        names = next(iter(names.values()), None)
    known = isinstance(names, list) and len(names) == count
    return ([str(name) for name in names] if known else [f"{feature} {i}" for i in range(count)])[:MAX_COLUMNS]


def _matrix(table: pa.Table, column: str) -> FloatArray:
    values = table[column].combine_chunks()
    flat = values.flatten() if isinstance(values, (pa.ListArray, pa.FixedSizeListArray)) else values
    matrix = np.asarray(flat, np.float64).reshape(table.num_rows, -1)[:, :MAX_COLUMNS]
    if not np.isfinite(matrix).all():
        frame, place = (int(i) for i in np.argwhere(~np.isfinite(matrix))[0])
        raise ValueError(f"{column}: column {place} is {matrix[frame, place]} in frame {frame}")
    return matrix


def _table(dataset: Dataset, row: Mapping[str, Any]) -> pa.Table:
    chunk, file = _data_file(row)
    source = pq.ParquetFile(dataset.file("data_path", chunk_index=chunk, file_index=file))
    wanted = {"timestamp", "episode_index", "task_index", STATE, ACTION}
    columns = [c for c in source.schema_arrow.names if c in wanted or c.startswith((SKEW, AGE))]
    return source.read(columns=columns, use_threads=False)


def _thumbnails(dataset: Dataset, row: Mapping[str, Any], view: str, frames: int) -> list[bytes]:
    places = {part: int(row[f"videos/{view}/{part}"]) for part in ("chunk_index", "file_index")}
    start = float(row[f"videos/{view}/from_timestamp"])
    with av.open(str(dataset.file("video_path", video_key=view, **places))) as container:
        wanted = [start + place / dataset.fps for place in sorted({0, frames // 2, frames - 1})]
        return [thumbnail(_frame_at(container, time_s, 0.5 / dataset.fps)) for time_s in wanted]


def _frame_at(container: Any, time_s: float, tolerance_s: float) -> ImageArray:
    stream = container.streams.video[0]
    container.seek(max(0, int((time_s - tolerance_s) / stream.time_base)), stream=stream)
    for frame in container.decode(stream):
        if frame.time is not None and frame.time >= time_s - tolerance_s:
            pixels: ImageArray = frame.to_ndarray(format="rgb24")
            return pixels
    raise ValueError(f"the video has no frame at {time_s:.3f} s")


def _frames(path: Path) -> int:
    with av.open(str(path)) as container:
        return sum(1 for packet in container.demux(container.streams.video[0]) if packet.size)


def _data_file(row: Mapping[str, Any]) -> tuple[int, int]:
    return int(row["data/chunk_index"]), int(row["data/file_index"])
