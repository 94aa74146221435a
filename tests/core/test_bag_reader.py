import functools
import shutil
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mcap.reader import FOOTER_SIZE, make_reader
from mcap.records import Chunk
from mcap.writer import CompressionType, Writer
from synthetic_bags import clock, fill, make_bag, open_bag

from e0_ros.core import bag_writer, mcap_records
from e0_ros.core.bag_check import check_bag
from e0_ros.core.bag_reader import Bag, BagReadError, verify
from e0_ros.interfaces import CLOCK, JOINT_STATES
from tests.faults.scale import scaled


def drawn(examples: int) -> settings:
    """So many examples, however slow the disk is."""
    return settings(max_examples=examples, deadline=None)


@pytest.fixture(scope="module")
def bag(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bag(tmp_path_factory.mktemp("bags"), compression="zstd", count=100)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Without compression: a flipped bit of a compressed chunk may leave its content as it was."""
    return make_bag(tmp_path_factory.mktemp("plain"), count=100)


def test_messages_come_in_log_order_with_times_and_decode_without_ros(bag: Path) -> None:
    read = Bag(bag)
    messages = list(read.messages())
    assert len(messages) == 110
    assert [m.log_ns for m in messages] == sorted(m.log_ns for m in messages)
    joint = next(m for m in messages if m.topic == JOINT_STATES.name and m.sequence == 41)
    assert (joint.type, joint.log_ns, joint.publish_ns) == (JOINT_STATES.type, 1_041_000_000, 1_040_999_995)
    assert read.decode(joint).position.tolist() == [41.0] * 7
    assert read.topics == {JOINT_STATES.name: JOINT_STATES.type, CLOCK.name: CLOCK.type}
    assert read.custom == {"episode_id": "a", "outcome": "success", "seed": "3"}


def test_counts_and_span_are_known_before_anything_is_read(bag: Path, tmp_path: Path, monkeypatch) -> None:
    for read in (Bag(bag), Bag(bag, salvage=True), Bag(_without_statistics(tmp_path, monkeypatch))):
        assert read.counts == {JOINT_STATES.name: 100, CLOCK.name: 10}
        assert read.span_ns == (1_000_000_000, 1_099_000_000)
    empty = open_bag(tmp_path, "empty").close({}).path
    assert (Bag(empty).counts.total(), Bag(empty).span_ns) == (0, (0, 0))


def _without_statistics(root: Path, monkeypatch) -> Path:
    with monkeypatch.context() as patch:
        patch.setattr(bag_writer, "Writer", functools.partial(bag_writer.Writer, use_statistics=False))
        return make_bag(root, count=100)


def test_only_the_wanted_topics(bag: Path) -> None:
    assert {m.topic for m in Bag(bag).messages([CLOCK.name])} == {CLOCK.name}
    assert sum(1 for _ in Bag(bag, salvage=True).messages([CLOCK.name])) == 10


def test_a_file_and_its_folder_read_alike(bag: Path) -> None:
    assert list(Bag(bag / "a_0.mcap").messages()) == list(Bag(bag).messages())


def test_a_whole_bag_verifies_and_salvages_without_damage(bag: Path) -> None:
    verify(bag)
    salvaged = Bag(bag, salvage=True)
    assert len(list(salvaged.messages())) == 110
    assert salvaged.damage == []


def test_what_is_not_a_bag_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BagReadError, match="there is no such folder"):
        Bag(tmp_path / "none")
    with pytest.raises(BagReadError, match=r"holds 0 \.mcap files"):
        Bag(tmp_path)


def test_a_partial_bag_is_refused_but_can_be_salvaged(tmp_path: Path) -> None:
    writer = open_bag(tmp_path)
    fill(writer, 100)
    writer.flush()
    with pytest.raises(BagReadError, match="did not finish"):
        Bag(tmp_path / "a.partial")
    salvaged = Bag(tmp_path / "a.partial", salvage=True)
    assert len(list(salvaged.messages())) == 110
    assert salvaged.damage and salvaged.custom["episode_id"] == "a"
    assert set(salvaged.topics) == {JOINT_STATES.name, CLOCK.name}


def test_a_folder_without_metadata_is_partial(bag: Path, tmp_path: Path) -> None:
    shutil.copytree(bag, tmp_path / "a")
    (tmp_path / "a" / "metadata.yaml").unlink()
    with pytest.raises(BagReadError, match="did not finish"):
        Bag(tmp_path / "a")


def test_metadata_that_leads_out_of_the_folder_is_refused(bag: Path, tmp_path: Path, record_property) -> None:
    shutil.copytree(bag, tmp_path / "a")
    path = tmp_path / "a" / "metadata.yaml"
    path.write_text(path.read_text().replace("a_0.mcap", "../../a_0.mcap"))
    with pytest.raises(BagReadError, match=r"metadata\.yaml names"):
        Bag(tmp_path / "a")
    record_property("figure", "file name of a bag's metadata refused")


def test_every_flipped_bit_is_detected_and_the_rest_salvaged(bag: Path, tmp_path: Path, record_property) -> None:
    whole, flips, path = (bag / "a_0.mcap").read_bytes(), set[tuple[int, int]](), tmp_path / "flipped.mcap"

    @drawn(scaled(100, 1000))
    @given(position=st.integers(0, len(whole) - 1), bit=st.integers(0, 7))
    def flip(position: int, bit: int) -> None:
        broken = bytearray(whole)
        broken[position] ^= 1 << bit
        path.write_bytes(broken)
        with pytest.raises(BagReadError, match="flipped"):
            verify(path)
        list(Bag(path, salvage=True).messages())
        flips.add((position, bit))

    flip()
    record_property("figure", f"{len(flips)} flips, all found")


def test_a_record_of_an_impossible_length_is_damage(bag: Path, tmp_path: Path) -> None:
    broken = bytearray((bag / "a_0.mcap").read_bytes())
    header_length = int.from_bytes(broken[9:17], "little")
    broken[17 + header_length + 8] |= 0x80  # the highest byte of the second record's length
    path = tmp_path / "long.mcap"
    path.write_bytes(broken)
    with pytest.raises(BagReadError, match="long"):
        verify(path)
    list(Bag(path, salvage=True).messages())


def test_a_flip_inside_a_chunk_costs_that_chunk_alone(plain: Path, tmp_path: Path, record_property) -> None:
    chunks, original = _chunks(plain), (plain / "a_0.mcap").read_bytes()
    flips, messages, path = set[tuple[int, int]](), set(Bag(plain).messages()), tmp_path / "flipped.mcap"

    @drawn(scaled(60, 1000))
    @given(data=st.data(), chunk=st.sampled_from(chunks), bit=st.integers(0, 7))
    def flip(data: st.DataObject, chunk, bit: int) -> None:
        whole = bytearray(original)
        data_start = chunk.chunk_start_offset + chunk.chunk_length - chunk.compressed_size
        position = data.draw(st.integers(data_start, data_start + chunk.compressed_size - 1))
        whole[position] ^= 1 << bit
        path.write_bytes(whole)
        salvaged = Bag(path, salvage=True)
        missing = messages - set(salvaged.messages())
        assert len(salvaged.damage) == 1
        assert missing and all(chunk.message_start_time <= m.log_ns <= chunk.message_end_time for m in missing)
        with pytest.raises(BagReadError, match="damaged"):
            list(Bag(path).messages())
        flips.add((position, bit))

    flip()
    record_property("figure", f"{len(flips)} flips in messages, each found and costs its chunk alone")


def test_a_truncated_bag_is_salvaged_up_to_its_last_whole_chunk(bag: Path, tmp_path: Path, record_property) -> None:
    whole, chunks, cuts, path = (bag / "a_0.mcap").read_bytes(), _chunks(bag), set[int](), tmp_path / "cut.mcap"

    @drawn(scaled(100, 1000))
    @given(length=st.integers(0, len(whole) - 1))
    def cut(length: int) -> None:
        path.write_bytes(whole[:length])
        with pytest.raises(BagReadError):
            Bag(path)
        ends = [c.message_end_time for c in chunks if c.chunk_start_offset + c.chunk_length <= length]
        logs = [m.log_ns for m in Bag(path, salvage=True).messages([JOINT_STATES.name])]
        assert logs == list(range(10**9, max(ends, default=0) + 1, 10**6))
        cuts.add(length)

    cut()
    record_property("figure", f"{len(cuts)} cuts, all found, each salvaged up to its last whole chunk")


def _chunks(bag: Path) -> list:
    return _chunks_of(bag / "a_0.mcap")


def _chunks_of(file: Path) -> list:
    with file.open("rb") as stream:
        return make_reader(stream).get_summary().chunk_indexes


def test_messages_can_be_read_as_they_were_written(tmp_path):
    writer = open_bag(tmp_path)
    for log_ns in (3, 1, 2):
        writer.write(CLOCK.name, CLOCK.type, CLOCK.qos, clock(log_ns), log_ns, log_ns, 0)
    bag = Bag(writer.close({}).path)
    assert [m.log_ns for m in bag.messages()] == [1, 2, 3]
    assert [m.log_ns for m in bag.messages(as_written=True)] == [3, 1, 2]


def test_a_flipped_bit_of_the_index_is_found_by_whoever_opens_the_bag(bag: Path, tmp_path: Path) -> None:
    """Readers of some topics skip chunks by their index, so a wrong one would lose messages in silence."""
    whole, path = (bag / "a_0.mcap").read_bytes(), tmp_path / "flipped.mcap"
    with (bag / "a_0.mcap").open("rb") as stream:
        start = mcap_records.footer_of(stream).summary_start
    rng = Random(3)
    for _ in range(scaled(200, 5000)):
        broken = bytearray(whole)
        broken[rng.randrange(start, len(whole) - 12)] ^= 1 << rng.randrange(8)
        path.write_bytes(broken)
        with pytest.raises(BagReadError):
            Bag(path)


def test_a_bag_without_a_checksum_of_its_index_is_read(bag: Path, tmp_path: Path) -> None:
    """As rosbag2 writes one when it is told not to."""
    raw = bytearray((bag / "a_0.mcap").read_bytes())
    raw[-12:-8] = bytes(4)
    (tmp_path / "plain.mcap").write_bytes(raw)
    assert len(list(Bag(tmp_path / "plain.mcap").messages())) == len(list(Bag(bag).messages()))


def bomb(path: Path, compression: str) -> tuple[bytearray, int]:
    """A bag in which 64 MiB of zeros are one small chunk, and where that is."""
    with path.open("wb") as stream:
        writer = Writer(stream, chunk_size=1024, compression=CompressionType[compression.upper()])
        writer.start()
        schema = writer.register_schema("std_msgs/msg/String", "ros2msg", b"string data")
        channel = writer.register_channel("/a", "cdr", schema)
        writer.add_message(channel, 1, bytes(2**26), 1)
        writer.finish()
    (chunk,) = _chunks_of(path)
    assert chunk.compressed_size < 2**19
    return bytearray(path.read_bytes()), chunk.chunk_start_offset


READERS: dict[str, Callable[[Path], object]] = {
    "verify": verify,
    "messages": lambda path: list(Bag(path).messages()),
    "as written": lambda path: list(Bag(path).messages(as_written=True)),
}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("compression", ["zstd", "lz4"])
@pytest.mark.parametrize("lies", [True, False], ids=["lies", "is large"])
def test_a_chunk_that_grows_beyond_what_it_tells_or_what_is_allowed_is_refused_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reader: str, compression: str, lies: bool
) -> None:
    raw, at = bomb(tmp_path / "bomb.mcap", compression)
    if lies:
        raw[at + 25 : at + 33] = (1000).to_bytes(8, "little")  # opcode, length, two times, then the size
        (tmp_path / "bomb.mcap").write_bytes(raw)
    else:
        monkeypatch.setattr(mcap_records, "RECORD_LIMIT", 2**20)
    words = "chunk of 1000 bytes by its header holds more" if lies else r"chunk of 6710\d{4} bytes; at most 1048576 are"
    with pytest.raises(BagReadError, match=words):
        in_little_memory(lambda: READERS[reader](tmp_path / "bomb.mcap"))
    state = in_little_memory(lambda: check_bag(tmp_path / "bomb.mcap"))
    assert "1000 bytes" in state.damage[0] or "are read" in state.damage[0]


@pytest.mark.parametrize("reader", READERS)
def test_a_chunk_of_too_many_records_is_refused(bag: Path, monkeypatch: pytest.MonkeyPatch, reader: str) -> None:
    most = max(len(mcap_records.unpacked(chunk)) for chunk in _stored(bag))
    monkeypatch.setattr(mcap_records, "RECORDS_LIMIT", most)
    READERS[reader](bag)
    monkeypatch.setattr(mcap_records, "RECORDS_LIMIT", most - 1)
    with pytest.raises(BagReadError, match=f"chunk of more than {most - 1} records"):
        READERS[reader](bag)
    assert f"more than {most - 1} records" in check_bag(bag).damage[0]


def _stored(bag: Path) -> list[Chunk]:
    with (bag / "a_0.mcap").open("rb") as stream:
        return [record for record in mcap_records.records(stream) if isinstance(record, Chunk)]


def test_an_index_that_leads_to_a_chunk_unpacks_nothing(tmp_path: Path) -> None:
    raw, at = bomb(tmp_path / "bomb.mcap", "zstd")
    footer = len(raw) - 8 - FOOTER_SIZE + 9
    raw[footer : footer + 8] = at.to_bytes(8, "little")
    raw[-12:-8] = bytes(4)  # no checksum of it is told
    (tmp_path / "bomb.mcap").write_bytes(raw)
    assert in_little_memory(lambda: Bag(tmp_path / "bomb.mcap")).topics == {"/a": "std_msgs/msg/String"}


def test_an_index_that_names_a_chunk_twice_gives_its_messages_twice(bag: Path) -> None:
    with (bag / "a_0.mcap").open("rb") as stream:
        summary = mcap_records.read_summary(stream)
        summary.chunk_indexes *= 2
        times = [message.log_time for message in mcap_records.messages(stream, summary, None, False)]
    assert times == sorted(2 * [message.log_ns for message in Bag(bag).messages()])


def in_little_memory(act: Callable[[], Any]) -> Any:
    """What it returns; it never had more than 8 MiB meanwhile."""
    tracemalloc.start()
    try:
        return act()
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 2**23
