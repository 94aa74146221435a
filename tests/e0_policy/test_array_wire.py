from __future__ import annotations

import numpy as np
import pytest

msgpack = pytest.importorskip("msgpack", reason="msgpack is not installed (extra [remote])")
from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from hypothesis.extra import numpy as arrays  # noqa: E402

from e0_policy.array_wire import MAX_BYTES, WireError, pack, unpack  # noqa: E402

SAMPLE = {
    "observation/state": np.array([0.5, -1.0], np.float32),
    "image": np.arange(12, dtype=np.uint8).reshape(2, 2, 3),
    "prompt": "päck it",
    "n": np.float64(2.5),
    "flags": [True, None, 3],
    "deep": {"a": np.zeros((0, 3), np.int64)},
}
BY_OPENPI = bytes.fromhex(
    "86b16f62736572766174696f6e2f737461746584c40b5f5f6e6461727261795f5fc3c40464617461c4080000003f000080bfc4056474797065"
    "a33c6634c40573686170659102a5696d61676584c40b5f5f6e6461727261795f5fc3c40464617461c40c000102030405060708090a0bc40564"
    "74797065a37c7531c405736861706593020203a670726f6d7074a870c3a4636b206974a16ecb4004000000000000a5666c61677393c3c003a4"
    "6465657081a16184c40b5f5f6e6461727261795f5fc3c40464617461c400c4056474797065a33c6938c4057368617065920003"
)
"""`SAMPLE` as openpi's `msgpack_numpy.packb` writes it."""


def test_bytes_are_openpis() -> None:
    assert pack(SAMPLE) == BY_OPENPI
    back = unpack(BY_OPENPI)
    assert (back["prompt"], back["n"], back["flags"]) == ("päck it", 2.5, [True, None, 3])
    assert back["image"].dtype == np.uint8 and np.array_equal(back["image"], SAMPLE["image"])
    assert back["deep"]["a"].shape == (0, 3)


@settings(max_examples=60, deadline=None)
@given(
    arrays.arrays(
        st.sampled_from([np.uint8, np.int64, np.float32, np.float64, np.bool_]),
        arrays.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4),
    )
)
def test_what_is_packed_comes_back_to_the_bit(array: np.ndarray) -> None:
    back = unpack(pack({"a": array, "n": array.dtype.type(1)}))
    assert back["a"].dtype == array.dtype and back["a"].tobytes() == array.tobytes() and back["a"].shape == array.shape
    assert back["n"] == array.dtype.type(1)


@pytest.mark.parametrize("value", [np.array([object()]), np.array(["x"]), np.array([1j]), {1, 2}, object()])
def test_only_numbers_are_packed(value: object) -> None:
    with pytest.raises(WireError, match="cannot be sent"):
        pack({"a": value})


def array(dtype: object = "<f4", shape: object = (2,), data: object = b"12345678") -> bytes:
    return msgpack.packb({"a": {b"__ndarray__": True, b"data": data, b"dtype": dtype, b"shape": shape}})


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (array("|O"), "type '|O'"),
        (array("<U2"), "type '<U2'"),
        (array("f4,f4"), "booleans, integers and floats are read"),
        (array("nonsense" * 4), "booleans, integers and floats are read"),
        (array(None), "type 'None'"),
        (array(shape=(3,)), "in 8 bytes; 12 needed"),
        (array(shape=(-1,)), "0 and up"),
        (array(shape=(1,) * 9), "a few numbers"),
        (array(shape=(True, 2)), "a few numbers"),
        (array(shape=None), "a few numbers"),
        (array(data="12345678"), "a few numbers"),
        (array(shape=(2**40, 2**40, 0)), "in 8 bytes; 0 needed"),
        (msgpack.packb({"n": {b"__npgeneric__": True, b"data": [1], b"dtype": "<f4"}}), "a number is a list"),
        (msgpack.packb([1]), "a mapping is needed"),
        (b"", "not a message"),
        (b"\x81", "not a message"),
        (b"\xdf\xff\xff\xff\xff", "not a message"),
        (BY_OPENPI + b"\x00", "not a message"),
        (bytes(MAX_BYTES + 1), "at most"),
    ],
)
def test_hostile_bytes_are_refused(data: bytes, text: str) -> None:
    with pytest.raises(WireError, match=text):
        unpack(data)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=80), st.integers(0, len(BY_OPENPI)))
def test_torn_and_random_bytes_end_in_a_refusal_or_a_mapping(noise: bytes, at: int) -> None:
    for data in (noise, BY_OPENPI[:at] + noise + BY_OPENPI[at + len(noise) :]):
        try:
            assert isinstance(unpack(data), dict)
        except WireError:
            continue
