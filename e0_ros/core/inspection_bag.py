"""One bag as a `TakeReport`: read once, every message's stamp, pictures decoded only for thumbnails."""

from __future__ import annotations

import struct
import zlib
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from e0_ros.core.bag_reader import Bag, BagMessage, BagReadError
from e0_ros.core.decode import fingerprint
from e0_ros.core.grading import grade, is_graded
from e0_ros.core.inspection import Stream, TakeReport, arm_named, frozen_ms, motion_of, short, skew_ms, stream_of
from e0_ros.core.inspection_findings import findings_of
from e0_ros.core.inspection_images import camera_views, image_pixels, thumbnail
from e0_ros.core.inspection_plot import plot
from e0_ros.core.losses import read_losses
from e0_ros.core.take import Gatherer, stream_config, take_of
from e0_ros.core.traces import TRACED, Traces, traces_of
from e0_ros.interfaces import EXECUTOR_STATE, OBSERVATION

_WITHOUT_STAMP = ("rosgraph_msgs/", "std_msgs/", "tf2_msgs/")


@dataclass
class _Heard:
    """What was heard on one topic."""

    type: str
    stamps_ns: list[int] = field(default_factory=list)
    prints: list[int] = field(default_factory=list)


def inspect_bag(path: Path, *, pictures: bool = True) -> TakeReport:
    """Look through a bag; a partial or damaged one is salvaged and says so in `fault`. Never raises for bad data."""
    take = TakeReport(path.name.removesuffix(".mcap"), str(path), "bag")
    try:
        take.size_bytes = sum(p.stat().st_size for p in (path.glob("*.mcap") if path.is_dir() else [path]))
        try:
            _fill(take, Bag(path), pictures)
        except BagReadError as error:
            bag = Bag(path, salvage=True)
            take.fault = short(str(error))
            _fill(take, bag, pictures)
            take.fault += "".join(f"; {short(damage)}" for damage in bag.damage[:3])
    except (BagReadError, OSError) as error:
        take.fault = take.fault or short(str(error))
    take.findings = findings_of(take)
    return take


def _fill(take: TakeReport, bag: Bag, pictures: bool) -> None:
    heard: dict[str, _Heard] = {}
    rows: dict[str, list[Any]] = {topic: [] for topic in TRACED}
    views = camera_views(bag)
    images: dict[str, list[BagMessage]] = {topic: [] for _, topic in views}
    shown = {topic: _shown(bag.counts[topic]) if pictures else frozenset() for _, topic in views}
    bounds = stream_config(bag)
    gatherer = Gatherer(bounds.views)
    graded = set(gatherer.topics)
    for message in bag.messages(as_written=True):
        topic = heard.setdefault(message.topic, _Heard(message.type))
        topic.stamps_ns.append(header_stamp_ns(message))
        if message.topic in images:
            if len(topic.prints) in shown[message.topic]:
                images[message.topic].append(message)
            topic.prints.append(_print(message))
        decoded = bag.decode(message) if message.topic in rows else None
        if decoded is not None:
            rows[message.topic].append(_light(decoded) if message.topic == OBSERVATION.name else decoded)
        if message.topic in graded:
            gatherer.add(message, lambda _, known=decoded: known)
    _describe(take, bag, heard, dict(views))
    _count(take, rows)
    if is_graded(bag):
        take.graded = True
        flags = grade(take_of(bag, gatherer), bounds)
        take.flags = [short(str(flag)) for flag in flags if not (flag.kind == "fault" and take.fault)]
    traces = _traces(bag, rows)
    if traces is not None:
        take.motion = motion_of(traces, arm_named(take.embodiment))
        take.refused = max(take.refused, len(traces.refusals))
        for span in traces.spans:
            if span.mode in ("HOLD", "STOPPED"):
                take.holds[short(span.reason)] = take.holds.get(short(span.reason), 0.0) + span.end_s - span.start_s
    if pictures:
        take.thumbnails = {view: _thumbnails(bag, images[topic]) for view, topic in views}
        intervals = {view: heard[topic].stamps_ns for view, topic in views if topic in heard}
        take.plot = plot(traces, arm_named(take.embodiment), intervals) if traces is not None else ""


def _light(observation: Any) -> Any:
    """An observation without its pictures, and with arrays of its own instead of views of the message's bytes."""
    observation.views = []
    for name, value in vars(observation).items():
        if isinstance(value, np.ndarray):
            setattr(observation, name, value.copy())
    return observation


def _describe(take: TakeReport, bag: Bag, heard: dict[str, _Heard], views: dict[str, str]) -> None:
    custom = bag.custom
    for key in ("task", "seed", "instruction", "outcome", "note"):
        setattr(take, key, short(custom.get(key, "")))
    take.name = short(custom.get("episode_id", take.name))
    take.lost, take.lost_counted = read_losses(custom.get("lost", ""))
    take.views = tuple(views)
    take.messages = sum(len(h.stamps_ns) for h in heard.values())
    every = np.array([t for h in heard.values() for t in h.stamps_ns if t > 0], np.int64)
    start = int(every.min()) if len(every) else 0
    take.duration_s = float(every.max() - start) / 1e9 if len(every) else 0.0
    reference = np.array(heard[next(iter(views.values()))].stamps_ns, np.int64) if views else np.empty(0, np.int64)
    take.frames = len(reference)
    names = {topic: view for view, topic in views.items()}
    for topic, h in sorted(heard.items()):
        take.streams.append(_stream(names.get(topic, topic), topic in names, h, reference, start))


def _stream(name: str, view: bool, heard: _Heard, reference: Any, start_ns: int) -> Stream:
    stamps = np.array(heard.stamps_ns, np.int64)
    more = {"skew_ms": skew_ms(reference, stamps), "frozen_ms": frozen_ms(stamps, heard.prints)} if view else {}
    return stream_of(short(name), heard.type, stamps, start_ns, **more)


def _count(take: TakeReport, rows: dict[str, list[Any]]) -> None:
    observations, states = rows[OBSERVATION.name], rows[EXECUTOR_STATE.name]
    take.observations = len(observations)
    stale = Counter(f"{m.stale_stream}: {m.stale_reason.split(':')[0]}" for m in observations if m.status != 0)
    take.stale = {short(reason): count for reason, count in stale.most_common(8)}
    take.embodiment = short(next((m.embodiment for m in observations if m.embodiment), ""))
    if states:
        take.refused = int(states[-1].chunks_refused) - int(states[0].chunks_refused)


def _traces(bag: Bag, rows: dict[str, list[Any]]) -> Traces | None:
    try:
        return traces_of(bag, rows)
    except BagReadError:
        return None


def _shown(count: int) -> frozenset[int]:
    """Which of a view's images have a thumbnail: the first, the middle and the last one."""
    return frozenset({0, count // 2, count - 1})


def _thumbnails(bag: Bag, messages: list[BagMessage]) -> list[bytes]:
    return [thumbnail(image_pixels(bag.decode(m))) for m in messages]


def header_stamp_ns(message: BagMessage) -> int:
    """Header stamp from the first bytes, without decoding; the time of receipt where the type has no header."""
    if message.type.startswith(_WITHOUT_STAMP) or len(message.data) < 12:
        return message.log_ns
    seconds, nanoseconds = struct.unpack_from("<iI" if message.data[1] & 1 else ">iI", message.data, 4)
    stamp = int(seconds) * 10**9 + int(nanoseconds)
    return stamp if nanoseconds < 10**9 and stamp > 0 else message.log_ns


def _print(message: BagMessage) -> int:
    """Fingerprint of an image message from behind its header on: equal for equal pixels."""
    data = message.data
    length = struct.unpack_from("<I" if data[1] & 1 else ">I", data, 12)[0] if len(data) >= 16 else 0
    offset = min(16 + int(length), len(data))
    if message.type.endswith("CompressedImage"):
        return zlib.crc32(memoryview(data)[offset:])
    return fingerprint(data, offset)
