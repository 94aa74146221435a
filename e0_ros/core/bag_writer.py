"""One bag: MCAP in rosbag2's layout, that is a folder of one .mcap file and `metadata.yaml`.

Version 8 of the metadata, with QoS as a YAML string of numbers: Humble and Iron read no other form of it, and Jazzy and
later read both this and their own version 9 (words in a list), which Humble refuses.

Keys and channel metadata follow ros2/rosbag2 (rosbag2_storage `yaml.hpp`, `qos.cpp`; rosbag2_storage_mcap
`mcap_storage.cpp`). A bag grows under `<id>.partial/` and takes its own name only when it is closed, so that a bag
without `.partial` in its name is whole.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from mcap.writer import CompressionType, Writer

from e0_policy.files import sync
from e0_ros.core.definitions import Definitions
from e0_ros.core.episode import is_episode_id
from e0_ros.core.recorder_config import COMPRESSIONS, BagConfig
from e0_ros.interfaces import Qos

PARTIAL = ".partial"
DISCARDED = "discarded"
DUMPER = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
"""libyaml, where it is: in Python the metadata of a bag costs more than all its pictures."""
_COMPRESSION = dict(zip(COMPRESSIONS, (CompressionType.NONE, CompressionType.LZ4, CompressionType.ZSTD), strict=True))
_INFINITE = {"sec": 9223372036, "nsec": 854775807}


class BagError(Exception):
    """A bag cannot be written; the message names the bag and the cause."""


@dataclass(frozen=True)
class BagSummary:
    """What a closed bag holds."""

    path: Path
    messages: int
    size_bytes: int
    duration_ns: int


class BagWriter:
    """Writes one bag from serialised messages. Not thread-safe.

    Raises:
        BagError: the id may not be a file name, the bag exists, or the folder cannot be made.

    """

    def __init__(self, root: Path, episode_id: str, config: BagConfig, definitions: Definitions) -> None:
        if not is_episode_id(episode_id):
            raise BagError(f"{episode_id[:80]!r} cannot name a bag; allowed are 1 to 64 of a-z, 0-9, _ and -")
        self.path = root / (episode_id + PARTIAL)
        self.file = f"{episode_id}_0.mcap"
        self.messages = 0
        self._root, self._id, self._config, self._definitions = root, episode_id, config, definitions
        self._topics: dict[str, tuple[int, dict[str, Any]]] = {}
        self._schemas: dict[str, int] = {}
        self._counts: dict[str, int] = {}
        self._first_ns = self._last_ns = self._synced_ns = -1
        if taken(root, episode_id):
            raise BagError(f"{root / episode_id} or a partial or discarded bag of that name exists")
        try:
            self.path.mkdir(parents=True)
            self._stream = (self.path / self.file).open("xb")
        except OSError as error:
            raise BagError(f"{self.path}: cannot be made ({error.strerror}); choose another bag_dir") from None
        self._mcap: Any = Writer(
            self._stream,
            chunk_size=config.chunk_bytes,
            compression=_COMPRESSION[config.compression],
            enable_data_crcs=True,
        )
        self._mcap.start(profile="ros2", library="e0_ros")

    def metadata(self, values: Mapping[str, str]) -> None:
        """Add a metadata record of the project's own."""
        self._mcap.add_metadata("e0_ros", dict(values))

    def attach(self, name: str, text: str, now_ns: int) -> None:
        """Attach a text file."""
        self._mcap.add_attachment(now_ns, now_ns, name, "text/plain", text.encode())

    def write(self, topic: str, type_name: str, qos: Qos, data: bytes, log_ns: int, publish_ns: int, seq: int) -> None:
        """Append a message of CDR bytes. A topic is registered by its first message.

        Raises:
            DefinitionError: no definition of the type is installed.
            OSError: the file system refuses.

        """
        if topic not in self._topics:
            self._register(topic, type_name, qos)
        self._mcap.add_message(self._topics[topic][0], log_ns, data, publish_ns, seq % 2**32)
        self._counts[topic] += 1
        self.messages += 1
        self._first_ns = log_ns if self._first_ns < 0 else min(self._first_ns, log_ns)
        self._last_ns = max(self._last_ns, log_ns)

    def flush(self) -> None:
        """Hand all that was written to the operating system, and to the disk every `fsync_s` of recorded time."""
        self._mcap.flush()
        if self._config.fsync_s and self._last_ns - self._synced_ns >= self._config.fsync_s * 1e9:
            os.fsync(self._stream.fileno())
            self._synced_ns = self._last_ns

    @property
    def size_bytes(self) -> int:
        """Bytes handed to the file so far."""
        return self._stream.tell()

    def close(self, custom: Mapping[str, str], *, discard: bool = False) -> BagSummary:
        """Finish the file, write `metadata.yaml` and give the bag its name (below `discarded/` if so wished).

        Raises:
            BagError: the file system refuses; the bag stays partial, and what was flushed can be salvaged.

        """
        information = self._information(custom)
        try:
            self.metadata(custom)
            inner = yaml.dump(information, Dumper=DUMPER, sort_keys=False)
            self._mcap.add_metadata("rosbag2", {"serialized_metadata": inner})
            self._mcap.finish()
            size = self._stream.tell()
            self._stream.flush()
            os.fsync(self._stream.fileno())
            self._stream.close()
            _write_synced(self.path / "metadata.yaml", {"rosbag2_bagfile_information": information})
            final = self._move(discard)
        except OSError as error:
            self.abandon()
            raise BagError(f"{self.path}: cannot be finished ({error.strerror}); it stays partial") from None
        return BagSummary(final, self.messages, size, information["duration"]["nanoseconds"])

    def abandon(self) -> None:
        """Let go of the file as it is; the bag stays partial."""
        with suppress(OSError):
            self._stream.close()

    def _register(self, topic: str, type_name: str, qos: Qos) -> None:
        if type_name not in self._schemas:
            text = self._definitions.schema(type_name).encode()
            self._schemas[type_name] = self._mcap.register_schema(type_name, "ros2msg", text)
        offered = yaml.dump([_offered(qos)], Dumper=DUMPER, sort_keys=False)
        metadata = {
            "name": topic,
            "type": type_name,
            "serialization_format": "cdr",
            "offered_qos_profiles": offered,
            "type_description_hash": self._definitions.type_hash(type_name),
        }
        channel: dict[str, str] = {
            "offered_qos_profiles": offered,
            "topic_type_hash": str(metadata["type_description_hash"]),
        }
        channel_id = self._mcap.register_channel(topic, "cdr", self._schemas[type_name], channel)
        self._topics[topic] = channel_id, metadata
        self._counts[topic] = 0

    def _information(self, custom: Mapping[str, str]) -> dict[str, Any]:
        start = {"nanoseconds_since_epoch": max(0, self._first_ns)}
        duration = {"nanoseconds": self._last_ns - self._first_ns}
        return {
            "version": 8,
            "storage_identifier": "mcap",
            "duration": duration,
            "starting_time": start,
            "message_count": self.messages,
            "topics_with_message_count": [
                {"topic_metadata": metadata, "message_count": self._counts[topic]}
                for topic, (_, metadata) in self._topics.items()
            ],
            "compression_format": "",
            "compression_mode": "",
            "relative_file_paths": [self.file],
            "files": [
                {
                    "path": self.file,
                    "starting_time": dict(start),
                    "duration": dict(duration),
                    "message_count": self.messages,
                }
            ],
            "custom_data": dict(custom),
            "ros_distro": os.environ.get("ROS_DISTRO", "kilted"),
        }

    def _move(self, discard: bool) -> Path:
        folder = self._root / DISCARDED if discard else self._root
        folder.mkdir(exist_ok=True)
        final = folder / self._id
        self.path.rename(final)
        for changed in (final, folder, self._root):
            sync(changed)
        return final


def taken(root: Path, episode_id: str) -> bool:
    """Whether a bag of that name exists, be it whole, partial or discarded."""
    places = (root / episode_id, root / (episode_id + PARTIAL), root / DISCARDED / episode_id)
    return any(os.path.lexists(place) for place in places)


def free_bytes(root: Path) -> int:
    """Free space of the file system that holds `root`, which need not exist yet."""
    while not root.exists():
        root = root.parent
    return shutil.disk_usage(root).free


def _offered(qos: Qos) -> dict[str, Any]:
    """The numbers are those of rmw's enumerations (rmw/types.h): keep last is 1, automatic is 1."""
    return {
        "history": 1,
        "depth": qos.depth,
        "reliability": 1 if qos.reliable else 2,
        "durability": 1 if qos.latched else 2,
        "deadline": dict(_INFINITE),
        "lifespan": dict(_INFINITE),
        "liveliness": 1,
        "liveliness_lease_duration": dict(_INFINITE),
        "avoid_ros_namespace_conventions": False,
    }


def _write_synced(path: Path, data: Any) -> None:
    with path.open("w", encoding="utf-8") as file:
        yaml.dump(data, file, Dumper=DUMPER, sort_keys=False, allow_unicode=True)
        file.flush()
        os.fsync(file.fileno())
