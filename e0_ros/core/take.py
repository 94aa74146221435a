"""What a verdict on a recorded take needs to know of it, gathered message by message, live or from a bag."""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from e0_policy.types import FloatArray
from e0_ros.config import ConfigError, from_mapping, setting_types
from e0_ros.core.bag_reader import Bag, BagMessage, BagReadError
from e0_ros.core.pairing import GRIPPER, JOINTS, SyncConfig
from e0_ros.interfaces import GRIPPER_STATES, JOINT_STATES, camera_topic, compressed_camera_topic

Int64Array = NDArray[np.int64]
_STAMP = struct.Struct("<iI"), struct.Struct(">iI")
STAMPED_BYTES = 12
"""The least size of a serialised message that begins with a stamp."""
_HEADER_BYTES = 64
"""The stamp and what else differs between two copies of an image lies within this."""


@dataclass(frozen=True)
class Samples:
    """A stream in the order of its publisher's numbers: stamps and times of receipt `(n,)` [ns].

    `fingerprints` `(n,)` is a hash of each image's pixels, empty for other streams. `values` `(m, joints)` are
    positions [rad] at `value_stamps_ns` `(m,)`, empty for other streams than the joints.
    """

    stamps_ns: Int64Array
    received_ns: Int64Array
    fingerprints: Int64Array
    value_stamps_ns: Int64Array
    values: FloatArray


@dataclass(frozen=True)
class Take:
    """A take: its streams by name (views, `joints`, `gripper`), and what the recorder said of it."""

    streams: Mapping[str, Samples]
    start_ns: int
    end_ns: int
    lost: Mapping[str, int] = field(default_factory=dict)
    fault: str = ""


@dataclass
class _Rows:
    sequence: list[int] = field(default_factory=list)
    stamps_ns: list[int] = field(default_factory=list)
    received_ns: list[int] = field(default_factory=list)
    fingerprints: list[int] = field(default_factory=list)
    value_stamps_ns: list[int] = field(default_factory=list)
    values: list[Any] = field(default_factory=list)

    def samples(self) -> Samples:
        """Arrays; numbers that do not count up (several publishers, none given) leave the order of arrival."""
        order = np.argsort(np.array(self.sequence, np.int64), kind="stable")
        if len(set(self.sequence)) != len(self.sequence):
            order = np.arange(len(order))
        stamps, received = np.array(self.stamps_ns, np.int64)[order], np.array(self.received_ns, np.int64)[order]
        fingerprints = np.array(self.fingerprints, np.int64)
        values = np.array(self.values, np.float64) if self.values else np.empty((0, 0))
        return Samples(
            stamps,
            received,
            fingerprints[order] if len(fingerprints) else fingerprints,
            np.array(self.value_stamps_ns, np.int64),
            values,
        )


class Gatherer:
    """Takes in messages of the streams that a policy sees; of joint positions one in `every_ns` is kept."""

    def __init__(self, views: tuple[str, ...], every_ns: int = 20_000_000) -> None:
        self._streams = {topic(view).name: view for view in views for topic in (camera_topic, compressed_camera_topic)}
        self._streams |= {JOINT_STATES.name: JOINTS, GRIPPER_STATES.name: GRIPPER}
        self._rows = {name: _Rows() for name in self._streams.values()}
        self._every_ns = every_ns

    @property
    def topics(self) -> tuple[str, ...]:
        """Topics of the streams."""
        return tuple(self._streams)

    def add(self, message: BagMessage, decode: Any) -> None:
        """Take in a message, if it has a stamp; `decode(message)` is called for some of the joint states."""
        if len(message.data) < STAMPED_BYTES:
            return
        name = self._streams[message.topic]
        rows, stamp = self._rows[name], stamp_ns(message.data)
        rows.sequence.append(message.sequence)
        rows.stamps_ns.append(stamp)
        rows.received_ns.append(message.log_ns)
        if name == JOINTS:
            if not rows.value_stamps_ns or stamp - rows.value_stamps_ns[-1] >= self._every_ns:
                positions = np.array(decode(message).position, np.float64)
                if not rows.values or len(positions) == len(rows.values[0]):
                    rows.value_stamps_ns.append(stamp)
                    rows.values.append(positions)
        elif name != GRIPPER:
            rows.fingerprints.append(zlib.crc32(message.data[_HEADER_BYTES:]))

    def take(self, start_ns: int, end_ns: int, lost: Mapping[str, int], fault: str) -> Take:
        """The take so far."""
        streams = {name: rows.samples() for name, rows in self._rows.items()}
        return Take(streams, start_ns, end_ns, lost, fault)


def stamp_ns(data: bytes) -> int:
    """Stamp of a serialised message that begins with a std_msgs/Header.

    Raises:
        BagReadError: fewer bytes than a stamp.

    """
    if len(data) < 12:
        raise BagReadError(f"a message of {len(data)} bytes has no header")
    seconds, nanoseconds = _STAMP[0 if data[1] else 1].unpack_from(data, 4)
    return int(seconds) * 10**9 + int(nanoseconds)


def read_take(bag: Bag, views: tuple[str, ...]) -> Take:
    """The take that a bag holds.

    Raises:
        BagReadError: damage, unless the bag was opened to be salvaged.

    """
    gatherer = Gatherer(views)
    for message in bag.messages(gatherer.topics, as_written=True):
        gatherer.add(message, bag.decode)
    return take_of(bag, gatherer)


def take_of(bag: Bag, gatherer: Gatherer) -> Take:
    """The take of what was gathered from a bag in the order of writing, as `read_take`, which does the reading too.

    Its time is that from the first to the last message of the recorder.
    """
    fault = bag.custom.get("fault") or "; ".join(bag.damage)
    if not fault and bag.custom.get("recovered_from"):
        fault = f"recovered from {bag.custom['recovered_from']}, which did not finish"
    return gatherer.take(*bag.span_ns, _lost(bag.custom.get("lost_by_topic", "")), fault)


def _lost(text: str) -> dict[str, int]:
    """Lost messages by topic, as the recorder wrote them; a topic whose losses are not known (null) is left out."""
    try:
        return {str(topic): int(count) for topic, count in json.loads(text or "{}").items() if count is not None}
    except (ValueError, TypeError, AttributeError):
        return {}


def stream_config(bag: Bag) -> SyncConfig:
    """Rates and bounds of the bag's streams, by the graph's configuration that is attached to it; else the defaults."""
    graph = attached_graph(bag)
    arguments, settings = graph.get("arguments") or {}, (graph.get("settings") or {}).get("observation_sync") or {}
    views = settings.get("views") or arguments.get("views") or _views(bag)
    known = {key: value for key, value in settings.items() if key in setting_types(SyncConfig)}
    try:
        return from_mapping(SyncConfig, {**known, "views": views}, str(bag.path))
    except ConfigError:
        return SyncConfig(views=_views(bag))


def attached_graph(bag: Bag) -> dict[str, Any]:
    """The configuration of the graph that was recorded, to read only; empty if none is attached or it is damaged."""
    return _graph(bag.attachments.get("configuration.yaml", ""))


@lru_cache(maxsize=1)
def _graph(text: str) -> dict[str, Any]:
    try:
        graph = yaml.safe_load(text)
    except yaml.YAMLError:
        return {}
    return graph if isinstance(graph, dict) else {}


def _views(bag: Bag) -> tuple[str, ...]:
    names = [topic.split("/")[2] for topic in bag.topics if topic.startswith("/cameras/") and topic.count("/") > 2]
    return tuple(dict.fromkeys(names)) or SyncConfig().views
