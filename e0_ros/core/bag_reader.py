"""Reads bags without ROS: in log order with every checksum validated, or what a crash left, as far as it goes."""

from __future__ import annotations

import heapq
import struct
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import IO, Any

import yaml
import zstandard
from mcap.exceptions import McapError
from mcap.records import Attachment, Channel, Chunk, Message, Metadata, Schema
from mcap.summary import Summary
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

from e0_ros.core import mcap_records
from e0_ros.core.bag_writer import PARTIAL

METADATA = "metadata.yaml"
ATTACHMENT_LIMIT = 2**20
_DAMAGE = (
    *(McapError, ValueError, KeyError, IndexError, OverflowError, struct.error),
    *(zstandard.ZstdError, RuntimeError, MemoryError, OSError),
)


class BagReadError(ValueError):
    """A bag is missing, partial or damaged; the message says which, where, and what to do."""


@dataclass(frozen=True)
class BagMessage:
    """A message as stored. `log_ns` is its time of receipt in ROS time, `publish_ns` that of publishing."""

    topic: str
    type: str
    log_ns: int
    publish_ns: int
    sequence: int
    data: bytes


class Bag:
    """A bag: a folder of rosbag2's layout, split into files or not, or an .mcap file.

    `counts` are its messages by topic, and `span_ns` the log times of the first and the last one, as its index says.

    Args:
        salvage: read a partial or damaged bag linearly, in the order of writing, and skip what is damaged; `damage`
            tells what is skipped. Otherwise such a bag is refused.

    Raises:
        BagReadError: no such bag, or a partial or damaged one without `salvage`.

    """

    def __init__(self, path: Path, *, salvage: bool = False) -> None:
        self.path, self.files = path, _files(path)
        self.damage: list[str] = []
        self.custom: dict[str, str] = {}
        self.attachments: dict[str, str] = {}
        self.topics: dict[str, str] = {}
        self.counts: Counter[str] = Counter()
        self.span_ns = (0, 0)
        self._salvage = salvage
        self._store = get_typestore(Stores.EMPTY)
        self._definitions: dict[str, Schema] = {}
        if salvage:
            self.custom.update(_label(path))
            self._count(self._salvaged(None))
        else:
            self._open_whole()

    def messages(self, topics: Iterable[str] | None = None, *, as_written: bool = False) -> Iterator[BagMessage]:
        """Messages of the topics (default: all), in order of their log times, or as they were written.

        Raises:
            BagReadError: damage, where `salvage` is not set.

        """
        wanted = None if topics is None else set(topics)
        return self._salvaged(wanted) if self._salvage else self._whole(wanted, as_written)

    def decode(self, message: BagMessage) -> Any:
        """The message, by the definition that the bag carries; arrays are numpy views.

        Raises:
            BagReadError: its bytes do not fit the definition.

        """
        if message.type not in self._store.fielddefs:
            text = self._definitions[message.type].data.decode()
            types = get_types_from_msg(text, message.type)
            self._store.register({k: v for k, v in types.items() if k not in self._store.fielddefs})
        try:
            return self._store.deserialize_cdr(message.data, message.type)
        except (*_DAMAGE, AssertionError) as error:
            where = f"{message.topic} at {message.log_ns} ns"
            raise BagReadError(f"{self.path}: {where} is no {message.type} ({type(error).__name__} {error})") from None

    def _open_whole(self) -> None:
        if self.path.is_dir():
            _check_layout(self.path, self.files)
        try:
            for file in self.files:
                with file.open("rb") as stream:
                    self._open_file(file, stream)
        except _DAMAGE as error:
            raise _damaged(self.path, error) from None

    def _open_file(self, file: Path, stream: IO[bytes]) -> None:
        summary = mcap_records.read_summary(stream)
        for channel, schema in _index(summary):
            self._know(channel, schema)
        offsets = [index.offset for index in summary.metadata_indexes]
        for offset in offsets + [index.offset for index in summary.attachment_indexes]:
            self._note(next(mcap_records.records_at(stream, offset)))
        if (told := summary.statistics) is None:
            self._count(self._whole_file(file, None, True))
        elif told.message_count:
            for channel_id, count in told.channel_message_counts.items():
                self.counts[summary.channels[channel_id].topic] += count
            self._widen(told.message_start_time, told.message_end_time)

    def _count(self, messages: Iterable[BagMessage]) -> None:
        for message in messages:
            self._widen(message.log_ns, message.log_ns)
            self.counts[message.topic] += 1

    def _widen(self, first_ns: int, last_ns: int) -> None:
        known = self.span_ns if self.span_ns != (0, 0) else (first_ns, last_ns)
        self.span_ns = min(known[0], first_ns), max(known[1], last_ns)

    def _whole(self, wanted: set[str] | None, as_written: bool) -> Iterator[BagMessage]:
        parts = [self._whole_file(file, wanted, as_written) for file in self.files]
        return chain.from_iterable(parts) if as_written else heapq.merge(*parts, key=lambda message: message.log_ns)

    def _whole_file(self, file: Path, wanted: set[str] | None, as_written: bool) -> Iterator[BagMessage]:
        with file.open("rb") as stream:
            try:
                summary = mcap_records.read_summary(stream)
                for message in mcap_records.messages(stream, summary, wanted, as_written):
                    channel = summary.channels[message.channel_id]
                    if channel.schema_id:
                        yield _message(summary.schemas[channel.schema_id], channel, message)
            except _DAMAGE as error:
                raise _damaged(self.path, error) from None

    def _salvaged(self, wanted: set[str] | None) -> Iterator[BagMessage]:
        self.damage = []
        for file in self.files:
            yield from self._salvaged_file(file, wanted)

    def _salvaged_file(self, file: Path, wanted: set[str] | None) -> Iterator[BagMessage]:
        schemas: dict[int, Schema] = {}
        channels: dict[int, Channel] = {}
        for record in chain(_salvaged_index(file), self._salvaged_records(file)):
            if isinstance(record, Schema):
                schemas[record.id] = record
            elif isinstance(record, Channel) and record.schema_id in schemas:
                channels[record.id] = record
                self._know(record, schemas[record.schema_id])
            elif isinstance(record, Metadata | Attachment):
                self._note(record)
            elif isinstance(record, Message) and record.channel_id in channels:
                channel = channels[record.channel_id]
                if wanted is None or channel.topic in wanted:
                    yield _message(schemas[channel.schema_id], channel, record)

    def _salvaged_records(self, file: Path) -> Iterator[Any]:
        with file.open("rb") as stream:
            try:
                for record in mcap_records.records(stream):
                    if not isinstance(record, Chunk):
                        yield record
                        continue
                    try:
                        parts = mcap_records.unpacked(record)
                    except _DAMAGE as error:
                        self.damage.append(f"chunk of {len(record.data)} bytes: {error}")
                        continue
                    yield from parts
            except _DAMAGE as error:
                self.damage.append(f"ends at byte {stream.tell()}: {type(error).__name__} {error}")

    def _know(self, channel: Channel, schema: Schema) -> None:
        self.topics[channel.topic] = schema.name
        self._definitions[schema.name] = schema

    def _note(self, record: Any) -> None:
        if isinstance(record, Attachment):
            if record.media_type == "text/plain" and len(record.data) <= ATTACHMENT_LIMIT:
                self.attachments[record.name] = record.data.decode(errors="replace")
        elif not isinstance(record, Metadata):
            raise ValueError(f"a {type(record).__name__} where the index has metadata or an attachment")
        elif record.name == "e0_ros":
            self.custom.update(record.metadata)


def verify(path: Path) -> None:
    """Check every byte that a checksum covers; `bag_check` counts messages too.

    Raises:
        BagReadError: partial or damaged.

    """
    bag = Bag(path)
    try:
        for file in bag.files:
            with file.open("rb") as stream:
                for record in mcap_records.records(stream, validate_crcs=True):
                    if isinstance(record, Chunk):
                        mcap_records.unpacked(record)
                mcap_records.read_summary(stream)
    except _DAMAGE as error:
        raise _damaged(path, error) from None


def mcap_files(folder: Path) -> list[Path]:
    """The .mcap files in a folder, in the order in which a split bag's are counted (`_2` before `_10`)."""
    return sorted(folder.glob("*.mcap"), key=lambda file: (len(file.name), file.name))


def bags_in(folder: Path) -> list[Path]:
    """The bags that lie in a folder: the folder itself if it is one, else each of its .mcap files."""
    files = mcap_files(folder)
    return [folder] if files and _is_bag(folder) else files


def _is_bag(folder: Path) -> bool:
    return (folder / METADATA).is_file() or folder.name.endswith(PARTIAL)


def _index(summary: Summary) -> list[tuple[Channel, Schema]]:
    return [(channel, summary.schemas[channel.schema_id]) for channel in summary.channels.values()]


def _salvaged_index(file: Path) -> Iterator[Any]:
    """Schemas and channels from the summary, if there is one: a damaged chunk may have held them."""
    with suppress(*_DAMAGE), file.open("rb") as stream:
        for channel, schema in _index(mcap_records.read_summary(stream)):
            yield schema
            yield channel


def _files(path: Path) -> list[Path]:
    if path.is_file() and path.suffix == ".mcap":
        return [path]
    files = mcap_files(path) if path.is_dir() else []
    if not files:
        found = "it holds 0 .mcap files" if path.is_dir() else "there is no such folder or .mcap file"
        raise BagReadError(f"{path}: not a bag; {found}")
    if len(files) > 1 and not _is_bag(path):
        raise BagReadError(f"{path}: not a bag; it holds {len(files)} .mcap files and no {METADATA}: give them singly")
    return files


def _check_layout(folder: Path, files: list[Path]) -> None:
    if folder.name.endswith(PARTIAL) or not (folder / METADATA).is_file():
        raise BagReadError(f"{folder}: its recording did not finish; what it holds can be salvaged: e0 bag repair")
    try:
        information = yaml.safe_load((folder / METADATA).read_text(encoding="utf-8"))
        names = sorted(information["rosbag2_bagfile_information"]["relative_file_paths"])
    except (yaml.YAMLError, UnicodeDecodeError, KeyError, TypeError) as error:
        raise _damaged(folder / METADATA, error) from None
    if names != sorted(file.name for file in files):
        held = ", ".join(file.name for file in files)
        raise BagReadError(f"{folder}: {METADATA} names {names}, but the folder holds {held}")


def _label(folder: Path) -> dict[str, str]:
    """The custom data of `metadata.yaml`, if it can be read: damage may have taken the file's own."""
    with suppress(yaml.YAMLError, UnicodeDecodeError, OSError, KeyError, TypeError, AttributeError):
        text = (folder / METADATA).read_text(encoding="utf-8")
        custom = yaml.safe_load(text)["rosbag2_bagfile_information"]["custom_data"]
        return {k: v for k, v in custom.items() if isinstance(k, str) and isinstance(v, str)}
    return {}


def _message(schema: Schema, channel: Channel, message: Message) -> BagMessage:
    return BagMessage(
        channel.topic, schema.name, message.log_time, message.publish_time, message.sequence, message.data
    )


def _damaged(path: Path, error: BaseException) -> BagReadError:
    if isinstance(error, BagReadError):
        return error
    return BagReadError(
        f"{path}: damaged ({type(error).__name__}: {error}); what is whole can be salvaged: e0 bag repair"
    )
