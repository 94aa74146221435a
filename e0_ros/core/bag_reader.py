"""Reads bags without ROS: in log order with every checksum validated, or what a crash left, as far as it goes."""

from __future__ import annotations

import struct
import zlib
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import yaml
import zstandard
from mcap.exceptions import McapError
from mcap.records import Attachment, Channel, Chunk, Footer, Message, Metadata, Schema
from mcap.summary import Summary
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

from e0_ros.core import mcap_records
from e0_ros.core.bag_writer import PARTIAL

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
    """A bag: a folder of rosbag2's layout, or an .mcap file.

    Args:
        salvage: read a partial or damaged bag linearly, in the order of writing, and skip what is damaged; `damage`
            tells what is skipped. Otherwise such a bag is refused.

    Raises:
        BagReadError: no such bag, or a partial or damaged one without `salvage`.

    """

    def __init__(self, path: Path, *, salvage: bool = False) -> None:
        self.path, self.file = path, _mcap_file(path)
        self.damage: list[str] = []
        self.custom: dict[str, str] = {}
        self.attachments: dict[str, str] = {}
        self.topics: dict[str, str] = {}
        self._salvage = salvage
        self._store = get_typestore(Stores.EMPTY)
        self._definitions: dict[str, Schema] = {}
        if salvage:
            self.custom.update(_label(path))
            deque(self._salvaged(set()), maxlen=0)
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
            _check_layout(self.path, self.file)
        try:
            with self.file.open("rb") as stream:
                summary = mcap_records.read_summary(stream)
                for channel, schema in _index(summary):
                    self._know(channel, schema)
                offsets = [index.offset for index in summary.metadata_indexes]
                for offset in offsets + [index.offset for index in summary.attachment_indexes]:
                    self._note(next(mcap_records.records_at(stream, offset)))
        except _DAMAGE as error:
            raise _damaged(self.path, error) from None

    def _whole(self, wanted: set[str] | None, as_written: bool) -> Iterator[BagMessage]:
        with self.file.open("rb") as stream:
            try:
                summary = mcap_records.read_summary(stream)
                for message in mcap_records.messages(stream, summary, wanted, as_written):
                    channel = summary.channels[message.channel_id]
                    if channel.schema_id:
                        yield _message(summary.schemas[channel.schema_id], channel, message)
            except _DAMAGE as error:
                raise _damaged(self.path, error) from None

    def _salvaged(self, wanted: set[str] | None) -> Iterator[BagMessage]:
        schemas: dict[int, Schema] = {}
        channels: dict[int, Channel] = {}
        for record in chain(self._salvaged_index(), self._salvaged_records()):
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

    def _salvaged_index(self) -> Iterator[Any]:
        """Schemas and channels from the summary, if there is one: a damaged chunk may have held them."""
        with suppress(*_DAMAGE), self.file.open("rb") as stream:
            for channel, schema in _index(mcap_records.read_summary(stream)):
                yield schema
                yield channel

    def _salvaged_records(self) -> Iterator[Any]:
        self.damage = []
        with self.file.open("rb") as stream:
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
        with bag.file.open("rb") as stream:
            footer = None
            for record in mcap_records.records(stream, validate_crcs=True):
                footer = record if isinstance(record, Footer) else footer
                if isinstance(record, Chunk):
                    mcap_records.unpacked(record)
            _check_summary(stream, footer)
    except _DAMAGE as error:
        raise _damaged(path, error) from None


def _index(summary: Summary) -> list[tuple[Channel, Schema]]:
    return [(channel, summary.schemas[channel.schema_id]) for channel in summary.channels.values()]


def _check_summary(stream: Any, footer: Footer | None) -> None:
    size = stream.seek(0, 2)
    if footer is None or not 0 < footer.summary_start < size:
        raise ValueError("no summary")
    stream.seek(footer.summary_start)
    covered = stream.read(size - footer.summary_start - 4 - 8)
    if zlib.crc32(covered) != footer.summary_crc:
        raise ValueError("checksum of the summary")


def _mcap_file(path: Path) -> Path:
    if path.is_file() and path.suffix == ".mcap":
        return path
    files = sorted(path.glob("*.mcap")) if path.is_dir() else []
    if len(files) != 1:
        found = f"it holds {len(files)} .mcap files" if path.is_dir() else "there is no such folder or .mcap file"
        raise BagReadError(f"{path}: not a bag; {found}")
    return files[0]


def _check_layout(folder: Path, file: Path) -> None:
    if folder.name.endswith(PARTIAL) or not (folder / "metadata.yaml").is_file():
        raise BagReadError(f"{folder}: its recording did not finish; what it holds can be salvaged: e0 bag repair")
    try:
        information = yaml.safe_load((folder / "metadata.yaml").read_text(encoding="utf-8"))
        names = information["rosbag2_bagfile_information"]["relative_file_paths"]
    except (yaml.YAMLError, UnicodeDecodeError, KeyError, TypeError) as error:
        raise _damaged(folder / "metadata.yaml", error) from None
    if names != [file.name]:
        raise BagReadError(f"{folder}: metadata.yaml names {names}, but the folder holds {file.name}")


def _label(folder: Path) -> dict[str, str]:
    """The custom data of `metadata.yaml`, if it can be read: damage may have taken the file's own."""
    with suppress(yaml.YAMLError, UnicodeDecodeError, OSError, KeyError, TypeError, AttributeError):
        text = (folder / "metadata.yaml").read_text(encoding="utf-8")
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
