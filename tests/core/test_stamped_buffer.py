"""The worked example of the module's docstring, and the same rules against a naive model."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from e0_ros.core.stamped_buffer import Sample, StampedBuffer


def contents(buffer: StampedBuffer[str]) -> dict[int, str]:
    return {stamp: buffer.at_or_before(stamp).value for stamp in buffer.stamps}


@pytest.fixture
def example() -> StampedBuffer[str]:
    buffer: StampedBuffer[str] = StampedBuffer(3)
    assert buffer.insert(10, "a") and buffer.insert(30, "c")
    assert contents(buffer) == {10: "a", 30: "c"}
    assert buffer.insert(20, "b")
    assert list(contents(buffer).items()) == [(10, "a"), (20, "b"), (30, "c")]
    return buffer


def test_a_duplicate_stamp_keeps_the_first(example: StampedBuffer[str]) -> None:
    assert not example.insert(20, "x")
    assert contents(example) == {10: "a", 20: "b", 30: "c"}


def test_a_full_buffer_drops_the_oldest_and_refuses_what_is_older(example: StampedBuffer[str]) -> None:
    assert example.insert(40, "d")
    assert contents(example) == {20: "b", 30: "c", 40: "d"}
    assert not example.insert(15, "x")
    assert contents(example) == {20: "b", 30: "c", 40: "d"}


def test_lookups(example: StampedBuffer[str]) -> None:
    example.insert(40, "d")
    b, c, d = Sample(20, "b"), Sample(30, "c"), Sample(40, "d")
    assert [example.at_or_before(t) for t in (30, 29, 19)] == [c, b, None]
    assert [example.at_or_after(t) for t in (30, 31, 41)] == [c, d, None]
    assert [example.nearest(t) for t in (24, 25, 26, 0, 99)] == [b, b, c, b, d]
    example.drop_before(35)
    assert contents(example) == {30: "c", 40: "d"}
    example.clear()
    assert len(example) == 0 and example.nearest(30) is None and example.newest_ns is None


def test_interpolation() -> None:
    buffer: StampedBuffer[list[float]] = StampedBuffer(4)
    buffer.insert(20, [0.0])
    buffer.insert(40, [1.0])
    quarter, end = buffer.interpolate(25, np.array), buffer.interpolate(40, np.array)
    assert quarter is not None and end is not None
    assert (quarter.value[0], quarter.nearest_ns, quarter.gap_ns) == (0.25, 5, 20)
    assert (end.value[0], end.nearest_ns, end.gap_ns) == (1.0, 0, 0)
    assert buffer.interpolate(41, np.array) is None and buffer.interpolate(19, np.array) is None


def test_a_buffer_of_one_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 2"):
        StampedBuffer(1)


@given(st.lists(st.integers(0, 40), max_size=40), st.integers(2, 8), st.integers(-1, 41))
def test_any_order_equals_a_sorted_dictionary(stamps: list[int], capacity: int, t: int) -> None:
    buffer: StampedBuffer[int] = StampedBuffer(capacity)
    model: dict[int, int] = {}
    for value, stamp in enumerate(stamps):
        taken = stamp not in model and (len(model) < capacity or stamp > min(model))
        assert buffer.insert(stamp, value) == taken
        if taken:
            model[stamp] = value
            if len(model) > capacity:
                del model[min(model)]
    assert list(buffer.stamps) == sorted(model)
    assert contents(buffer) == model
    before, after = [s for s in model if s <= t], [s for s in model if s >= t]
    found = buffer.at_or_before(t), buffer.at_or_after(t)
    assert found[0] == (Sample(max(before), model[max(before)]) if before else None)
    assert found[1] == (Sample(min(after), model[min(after)]) if after else None)
