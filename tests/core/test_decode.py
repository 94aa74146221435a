"""Encodings against pixels written by hand and by OpenCV's own encoder."""

from __future__ import annotations

import array
import struct
import zlib

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from e0_ros.core.decode import (
    ENCODINGS,
    DecodeError,
    decode_compressed,
    decode_raw,
    fingerprint,
    resize_with_pad,
)

RGB = np.array([[[255, 0, 10], [1, 2, 3], [4, 5, 6]], [[7, 8, 9], [0, 255, 20], [30, 40, 255]]], np.uint8)


def padded(rows: np.ndarray, padding: int) -> tuple[int, bytes]:
    """Step and bytes of rows with garbage behind each."""
    flat = np.ascontiguousarray(rows).view(np.uint8).reshape(rows.shape[0], -1)
    full = np.pad(flat, ((0, 0), (0, padding)), constant_values=0xEE)
    return full.shape[1], full.tobytes()


def as_encoding(encoding: str) -> np.ndarray:
    alpha = np.full((2, 3, 1), 77, np.uint8)
    return {
        "rgb8": RGB,
        "bgr8": RGB[..., ::-1],
        "8UC3": RGB[..., ::-1],
        "rgba8": np.concatenate([RGB, alpha], axis=2),
        "bgra8": np.concatenate([RGB[..., ::-1], alpha], axis=2),
    }[encoding]


@pytest.mark.parametrize("padding", [0, 1, 8])
@pytest.mark.parametrize("encoding", ["rgb8", "bgr8", "8UC3", "rgba8", "bgra8"])
def test_colour_encodings_and_row_padding(encoding: str, padding: int) -> None:
    step, data = padded(as_encoding(encoding), padding)
    np.testing.assert_array_equal(decode_raw(encoding, 2, 3, step, 0, data), RGB)
    np.testing.assert_array_equal(decode_raw(encoding, 2, 3, step, 0, data[: len(data) - padding]), RGB)


def test_packed_rgb8_is_not_copied() -> None:
    data = array.array("B", RGB.tobytes())
    image = decode_raw("rgb8", 2, 3, 9, 0, data)
    data[0] = 99
    assert image[0, 0, 0] == 99


@pytest.mark.parametrize("encoding", ["mono8", "8UC1"])
def test_grey_becomes_three_equal_channels(encoding: str) -> None:
    grey = np.array([[0, 128, 255]], np.uint8)
    image = decode_raw(encoding, 1, 3, 3, 0, grey.tobytes())
    np.testing.assert_array_equal(image, np.repeat(grey[..., None], 3, axis=2))


@pytest.mark.parametrize("encoding", ["16UC1", "mono16"])
@pytest.mark.parametrize("big", [0, 1])
def test_16_bit_maps_its_full_range_in_both_byte_orders(encoding: str, big: int) -> None:
    values = [0, 128, 129, 257, 385, 386, 32768, 65535]
    data = struct.pack((">" if big else "<") + "8H", *values)
    image = decode_raw(encoding, 2, 4, 8, big, data)
    assert image[..., 0].ravel().tolist() == [round(v * 255 / 65535) for v in values]
    assert (image[..., 0] == image[..., 2]).all()


@pytest.mark.parametrize(("pattern", "cells"), [("rggb", "RGGB"), ("bggr", "BGGR"), ("gbrg", "GBRG"), ("grbg", "GRBG")])
def test_bayer_recovers_a_flat_colour(pattern: str, cells: str) -> None:
    colour = {"R": 200, "G": 100, "B": 30}
    tile = np.array([colour[c] for c in cells], np.uint8).reshape(2, 2)
    step, data = padded(np.tile(tile, (8, 8)), 3)
    image = decode_raw(f"bayer_{pattern}8", 16, 16, step, 0, data)
    np.testing.assert_array_equal(image[4:12, 4:12], np.broadcast_to([200, 100, 30], (8, 8, 3)))


SMOOTH = cv2.GaussianBlur(np.random.default_rng(0).integers(0, 255, (48, 64, 3), np.uint8), (0, 0), 8)
SMOOTH[..., 0] //= 4


@pytest.mark.parametrize(
    ("format_", "as_if_bgr"),
    [
        ("rgb8; jpeg compressed bgr8", False),
        ("bgr8; jpeg compressed bgr8", False),
        ("jpeg", False),
        ("rgba8; jpeg compressed bgr8", False),
        ("rgb8; jpeg compressed", True),
        ("bgr8; jpeg compressed rgb8", True),
    ],
)
def test_jpeg_with_the_formats_of_image_transport(format_: str, as_if_bgr: bool) -> None:
    bgr = SMOOTH if as_if_bgr else SMOOTH[..., ::-1]
    data = cv2.imencode(".jpg", np.ascontiguousarray(bgr), [cv2.IMWRITE_JPEG_QUALITY, 98])[1].tobytes()
    image = decode_compressed(format_, array.array("B", data))
    assert np.abs(image.astype(int) - SMOOTH).mean() < 3.0


@pytest.mark.parametrize("format_", ["rgb8; png compressed bgr8", "bgr8; png compressed bgr8", "png"])
def test_png_is_exact(format_: str) -> None:
    data = cv2.imencode(".png", np.ascontiguousarray(RGB[..., ::-1]))[1].tobytes()
    np.testing.assert_array_equal(decode_compressed(format_, data), RGB)


def test_png_with_alpha_grey_16_bit_and_bayer() -> None:
    bgra = np.concatenate([RGB[..., ::-1], np.full((2, 3, 1), 9, np.uint8)], axis=2)
    np.testing.assert_array_equal(decode_compressed("png", cv2.imencode(".png", bgra)[1].tobytes()), RGB)
    grey = np.arange(6, dtype=np.uint8).reshape(2, 3)
    image = decode_compressed("mono8; jpeg compressed ", cv2.imencode(".png", grey)[1].tobytes())
    np.testing.assert_array_equal(image[..., 1], grey)
    wide = cv2.imencode(".png", grey.astype(np.uint16) * 257)[1].tobytes()
    np.testing.assert_array_equal(decode_compressed("mono16; png compressed ", wide)[..., 1], grey)
    tiled = np.tile(np.array([[200, 100], [100, 30]], np.uint8), (8, 8))
    bayer = decode_compressed("bayer_rggb8; png compressed ", cv2.imencode(".png", tiled)[1].tobytes())
    assert bayer[8, 8].tolist() == [200, 100, 30]


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        (("yuv422", 2, 3, 6, 0, bytes(12)), "encoding 'yuv422' is unknown; allowed are"),
        (("rgb8", 2, 3, 8, 0, bytes(18)), "a row of 3 rgb8 pixels takes 9"),
        (("rgb8", 2, 3, 9, 0, bytes(17)), "17 bytes for 2 rows of step 9"),
        (("rgb8", 0, 3, 9, 0, b""), "allowed is 1 px up to 64 MiB"),
        (("mono8", 1 << 31, 1 << 31, 1 << 31, 0, bytes(4)), "64 MiB"),
        (("mono8", 2, 2, 1 << 31, 0, bytes(4)), "64 MiB"),
        (("bayer_rggb8", 1, 8, 8, 0, bytes(8)), "no 2 x 2 pattern"),
    ],
)
def test_fields_that_contradict_each_other_are_refused(fields: tuple, text: str) -> None:
    with pytest.raises(DecodeError, match=text):
        decode_raw(*fields)


def png_header(width: int, height: int) -> bytes:
    chunk = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))


@pytest.mark.parametrize(
    ("format_", "data", "text"),
    [
        ("16UC1; compressedDepth", b"x", "allowed are JPEG and PNG"),
        ("rgb8; h264", b"x", "allowed are JPEG and PNG"),
        ("jpeg", b"", "neither a whole PNG nor a whole JPEG"),
        ("jpeg", b"\xff\xd8\xff\xe0\x00", "neither a whole PNG nor a whole JPEG"),
        ("png", png_header(60000, 60000), "64 MiB"),
        ("png", png_header(4000, 4000), "ratio up to 200"),
        ("png", png_header(8, 8), "cannot be decompressed"),
    ],
)
def test_broken_and_explosive_data_is_refused(format_: str, data: bytes, text: str) -> None:
    with pytest.raises(DecodeError, match=text):
        decode_compressed(format_, data)


def test_a_jpeg_header_gives_the_size_before_decompression() -> None:
    data = bytearray(cv2.imencode(".jpg", SMOOTH)[1].tobytes())
    place = data.index(b"\xff\xc0")
    data[place + 5 : place + 9] = struct.pack(">HH", 60000, 60000)
    with pytest.raises(DecodeError, match="64 MiB"):
        decode_compressed("jpeg", data)


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from([*ENCODINGS, "nope"]),
    st.integers(0, 6),
    st.integers(0, 6),
    st.integers(-1, 40),
    st.integers(0, 1),
    st.binary(max_size=200),
)
def test_any_fields_give_an_image_or_a_decode_error(
    encoding: str, height: int, width: int, step: int, big: int, data: bytes
) -> None:
    try:
        image = decode_raw(encoding, height, width, step, big, data)
    except DecodeError:
        return
    assert image.shape == (height, width, 3) and image.dtype == np.uint8


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_any_bytes_give_an_image_or_a_decode_error(data: st.DataObject) -> None:
    whole = cv2.imencode(data.draw(st.sampled_from([".jpg", ".png"])), SMOOTH)[1].tobytes()
    broken = bytearray(whole[: data.draw(st.integers(0, len(whole)))])
    for place in data.draw(st.lists(st.integers(0, max(0, len(broken) - 1)), max_size=4)):
        if broken:
            broken[place] = data.draw(st.integers(0, 255))
    try:
        image = decode_compressed("jpeg", broken)
    except DecodeError:
        return
    assert image.ndim == 3 and image.shape[2] == 3


def test_resize_is_exact_identity_for_the_same_size() -> None:
    assert resize_with_pad(SMOOTH, 48, 64) is SMOOTH


def test_resize_pads_a_wide_image_above_and_below() -> None:
    image = np.full((480, 640, 3), 200, np.uint8)
    resized = resize_with_pad(image, 224, 224)
    assert resized.shape == (224, 224, 3)
    assert (resized[28:196] == 200).all()
    assert not resized[:28].any() and not resized[196:].any()


def test_resize_pads_a_tall_image_left_and_right_and_the_odd_pixel_goes_last() -> None:
    resized = resize_with_pad(np.full((100, 51, 3), 9, np.uint8), 50, 50)
    columns = np.flatnonzero(resized.any(axis=(0, 2)))
    assert (columns[0], columns[-1]) == (12, 36)


def test_shrinking_averages_areas() -> None:
    checker = np.indices((8, 8)).sum(axis=0) % 2 * 200
    resized = resize_with_pad(np.repeat(checker[..., None], 3, axis=2).astype(np.uint8), 4, 4)
    assert (resized == 100).all()


def test_fingerprints_tell_images_apart() -> None:
    noise = np.random.default_rng(1).integers(0, 255, (2, 921600), np.uint8)
    assert fingerprint(noise[0]) == fingerprint(noise[0].copy())
    assert fingerprint(noise[0]) != fingerprint(noise[1])
    assert fingerprint(noise[0], 64) == fingerprint(np.concatenate([noise[1][:64], noise[0][64:]]), 64)
