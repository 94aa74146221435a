"""Records of an .mcap file, of which nothing is believed: lengths, sizes and the index may be anybody's.

mcap's own readers unpack a chunk before they know how large that is (zstd by its frame, lz4 to its end): 2 kB may
become 64 GiB. Here a chunk is unpacked up to the size that its header tells, and `RECORD_LIMIT` at most, and read if it
has no more than `RECORDS_LIMIT` records.
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Iterator
from dataclasses import replace
from heapq import heappop, heappush
from itertools import count
from typing import IO, Any

import lz4.frame
import zstandard
from mcap.data_stream import ReadDataStream
from mcap.reader import FOOTER_SIZE
from mcap.records import (
    AttachmentIndex,
    Channel,
    Chunk,
    ChunkIndex,
    Footer,
    McapRecord,
    Message,
    MetadataIndex,
    Schema,
    Statistics,
)
from mcap.stream_reader import MAGIC_SIZE, StreamReader, breakup_chunk, read_magic
from mcap.summary import Summary

RECORD_LIMIT = 2**28
_CRC_BYTES = 4
RECORDS_LIMIT = 2**20
"""Of one chunk: as objects they are some 300 MB, however small their messages are."""


def records(stream: IO[bytes], *, validate_crcs: bool = False) -> Iterator[McapRecord]:
    """Records from the file's beginning to its end, chunks as they are stored.

    Raises:
        McapError, ValueError: they are damaged.

    """
    reader = StreamReader(stream, emit_chunks=True, validate_crcs=validate_crcs, record_size_limit=RECORD_LIMIT)
    yield from reader.records


def records_at(stream: IO[bytes], offset: int) -> Iterator[McapRecord]:
    """Records from that byte on, chunks as they are stored.

    Raises:
        McapError, ValueError: they are damaged.

    """
    stream.seek(offset)
    yield from StreamReader(stream, skip_magic=True, emit_chunks=True, record_size_limit=RECORD_LIMIT).records


def unpacked(chunk: Chunk) -> list[McapRecord]:
    """Schemas, channels and messages in a chunk, its checksum validated.

    Raises:
        ValueError: larger or of more records than allowed, not as large as it tells, or its checksum is wrong.

    """
    told = chunk.uncompressed_size
    if told > RECORD_LIMIT:
        raise ValueError(f"chunk of {told} bytes; at most {RECORD_LIMIT} are read")
    data = _decompressed(chunk.compression, chunk.data, told + 1)
    if len(data) != told:
        many = "more" if len(data) > told else str(len(data))
        raise ValueError(f"chunk of {told} bytes by its header holds {many}")
    if _count(data) > RECORDS_LIMIT:
        raise ValueError(f"chunk of more than {RECORDS_LIMIT} records, which are not read")
    return breakup_chunk(replace(chunk, compression="", data=data), validate_crc=True)


def _count(data: bytes) -> int:
    """Records in a chunk by their lengths, counted up to the first that is too many."""
    at = found = 0
    while at < len(data) and found <= RECORDS_LIMIT:
        at += 9 + int.from_bytes(data[at + 1 : at + 9], "little")
        found += 1
    return found


def _decompressed(compression: str, data: bytes, most: int) -> bytes:
    if compression == "zstd":
        return zstandard.ZstdDecompressor().stream_reader(io.BytesIO(data)).read(most)
    if compression == "lz4":
        return bytes(lz4.frame.LZ4FrameDecompressor().decompress(data, most))
    if compression:
        raise ValueError(f"chunk compressed by {compression[:20]!r}; zstd and lz4 are read")
    return data


def read_summary(stream: IO[bytes]) -> Summary:
    """Schemas, channels, indexes and statistics from the file's end.

    Raises:
        McapError, ValueError: there is none, or it is damaged.

    """
    footer = footer_of(stream)
    _check_summary(stream, footer)
    summary = Summary()
    for record in records_at(stream, footer.summary_start):
        if isinstance(record, Schema):
            summary.schemas[record.id] = record
        elif isinstance(record, Channel):
            summary.channels[record.id] = record
        elif isinstance(record, ChunkIndex):
            summary.chunk_indexes.append(record)
        elif isinstance(record, MetadataIndex):
            summary.metadata_indexes.append(record)
        elif isinstance(record, AttachmentIndex):
            summary.attachment_indexes.append(record)
        elif isinstance(record, Statistics):
            summary.statistics = record
        elif isinstance(record, Footer):
            break
    return summary


def footer_of(stream: IO[bytes]) -> Footer:
    """The last record of a file that has an index.

    Raises:
        McapError, ValueError: it has none.

    """
    stream.seek(0)
    read_magic(ReadDataStream(stream))
    end = stream.seek(0, io.SEEK_END)
    footer = next(records_at(stream, end - FOOTER_SIZE - MAGIC_SIZE))
    if not isinstance(footer, Footer) or not 0 < footer.summary_start < end:
        raise ValueError("no index")
    return footer


def _check_summary(stream: IO[bytes], footer: Footer) -> None:
    """Compare the checksum of the file's end with what is there; 0 says that none was made (MCAP, Footer).

    Raises:
        ValueError: it is another one.

    """
    covered_bytes = stream.seek(0, io.SEEK_END) - footer.summary_start - _CRC_BYTES - MAGIC_SIZE
    if covered_bytes > RECORD_LIMIT:
        raise ValueError(f"index of {covered_bytes} bytes; at most {RECORD_LIMIT} are read")
    stream.seek(footer.summary_start)
    covered = stream.read(max(covered_bytes, 0))
    if footer.summary_crc and zlib.crc32(covered) != footer.summary_crc:
        raise ValueError("checksum of the summary")


def messages(stream: IO[bytes], summary: Summary, topics: set[str] | None, as_written: bool) -> Iterator[Message]:
    """Messages of the topics (None: all), in order of their log times, or as they were written.

    Chunks are read one after the other, and none that has no message of these topics by its index.

    Raises:
        McapError, ValueError, KeyError: they are damaged.

    """
    channels = summary.channels

    def wanted(record: McapRecord) -> bool:
        return isinstance(record, Message) and (topics is None or channels[record.channel_id].topic in topics)

    indexes = [
        index
        for index in sorted(summary.chunk_indexes, key=lambda index: index.chunk_start_offset)
        if topics is None or not (ids := index.message_index_offsets) or any(channels[i].topic in topics for i in ids)
    ]
    if not summary.chunk_indexes:
        found: Iterator[Any] = filter(wanted, _loose(stream))
        yield from found if as_written else sorted(found, key=lambda message: message.log_time)
    elif as_written:
        for index in indexes:
            yield from filter(wanted, _indexed(stream, index))
    else:
        waiting: list[tuple[int, int, int, Any]] = []
        number = count()
        for index in sorted(indexes, key=lambda index: index.message_start_time):
            while waiting and waiting[0][0] < index.message_start_time:
                yield heappop(waiting)[-1]
            for message in filter(wanted, _indexed(stream, index)):
                heappush(waiting, (message.log_time, index.chunk_start_offset, next(number), message))
        while waiting:
            yield heappop(waiting)[-1]


def _indexed(stream: IO[bytes], index: ChunkIndex) -> list[Any]:
    chunk = next(records_at(stream, index.chunk_start_offset))
    if not isinstance(chunk, Chunk):
        raise ValueError(f"no chunk at byte {index.chunk_start_offset}, where the index has one")
    return unpacked(chunk)


def _loose(stream: IO[bytes]) -> Iterator[McapRecord]:
    """Records of a file whose chunks have no index."""
    stream.seek(0)
    for record in records(stream):
        if isinstance(record, Chunk):
            yield from unpacked(record)
        else:
            yield record
