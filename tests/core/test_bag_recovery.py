from pathlib import Path

import pytest
from rosbags.highlevel import AnyReader
from synthetic_bags import fill, open_bag

from e0_ros.core.bag_reader import Bag, BagReadError, verify
from e0_ros.core.bag_recovery import recover
from e0_ros.core.definitions import installed


def partial(root: Path) -> Path:
    writer = open_bag(root)
    fill(writer, 100)
    writer.flush()
    return root / "a.partial"


def test_a_partial_bag_becomes_whole_and_says_where_it_comes_from(tmp_path: Path) -> None:
    left = partial(tmp_path)
    before = (left / "a_0.mcap").read_bytes()
    summary = recover(left, installed())
    assert summary.path == tmp_path / "a-recovered" and summary.messages == 110
    verify(summary.path)
    custom = Bag(summary.path).custom
    assert (custom["outcome"], custom["recovered_from"]) == ("unlabelled", "a.partial")
    assert custom["damage"].startswith("ends at byte")
    assert list(Bag(summary.path).messages()) == sorted(Bag(left, salvage=True).messages(), key=lambda m: m.log_ns)
    with AnyReader([summary.path]) as reader:
        assert reader.message_count == 110
    assert (left / "a_0.mcap").read_bytes() == before


def test_it_is_not_recovered_twice(tmp_path: Path) -> None:
    left = partial(tmp_path)
    recover(left, installed())
    with pytest.raises(BagReadError, match="exists"):
        recover(left, installed())


def test_nothing_to_recover(tmp_path: Path) -> None:
    with pytest.raises(BagReadError, match="not a bag"):
        recover(tmp_path, installed())
