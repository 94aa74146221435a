"""Image messages to `uint8 (height, width, 3)` RGB, and the resize for the policy.

Works on a message's plain fields, so that live nodes and conversion of recordings decode with the same code.
"""

from __future__ import annotations

import array
import zlib
from typing import TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from e0_policy.types import ImageArray

MAX_IMAGE_BYTES = 64 * 1024 * 1024
MAX_RATIO = 200
"""Largest decompressed / compressed ratio of an image above `RATIO_FREE_BYTES` (flat synthetic ones reach 1000)."""
RATIO_FREE_BYTES = 4 * 1024 * 1024

_CHANNELS = {"rgb8": 3, "bgr8": 3, "rgba8": 4, "bgra8": 4, "mono8": 1, "8UC1": 1, "8UC3": 3, "mono16": 1, "16UC1": 1}
_WIDE = ("mono16", "16UC1")
_TO_RGB = {
    "bgr8": cv2.COLOR_BGR2RGB,
    "8UC3": cv2.COLOR_BGR2RGB,
    "rgba8": cv2.COLOR_RGBA2RGB,
    "bgra8": cv2.COLOR_BGRA2RGB,
    "mono8": cv2.COLOR_GRAY2RGB,
    "8UC1": cv2.COLOR_GRAY2RGB,
    "bayer_rggb8": cv2.COLOR_BayerRGGB2RGB,
    "bayer_bggr8": cv2.COLOR_BayerBGGR2RGB,
    "bayer_gbrg8": cv2.COLOR_BayerGBRG2RGB,
    "bayer_grbg8": cv2.COLOR_BayerGRBG2RGB,
}
ENCODINGS = tuple(sorted({"rgb8", *_WIDE, *_TO_RGB}))
"""Encodings that `decode_raw` knows."""

Buffer: TypeAlias = "bytes | bytearray | memoryview | array.array[int] | NDArray[np.uint8]"


class DecodeError(ValueError):
    """An image cannot be decoded; the message says what was got and what is allowed."""


def decode_raw(encoding: str, height: int, width: int, step: int, is_bigendian: int, data: Buffer) -> ImageArray:
    """Decode the fields of a sensor_msgs/Image; `rgb8` without padding is a view of `data`, without a copy.

    16-bit images (`mono16`, `16UC1`) map their full range 0..65535 linearly to 0..255, rounded to nearest, as
    cv_bridge converts mono16 to mono8. `8UC1` and `8UC3` are read as mono8 and bgr8, as OpenCV would.

    Args:
        encoding: one of `ENCODINGS`.
        height: rows [px].
        width: columns [px].
        step: bytes from one row to the next, at least those of a row.
        is_bigendian: byte order of 16-bit pixels.
        data: at least `step * height` bytes (the last row's padding may be missing).

    Raises:
        DecodeError: unknown encoding, or sizes that contradict each other or exceed 64 MiB.

    """
    if encoding not in ENCODINGS:
        raise DecodeError(f"encoding {encoding[:40]!r} is unknown; allowed are {', '.join(ENCODINGS)}")
    channels, itemsize = _CHANNELS.get(encoding, 1), 2 if encoding in _WIDE else 1
    row, size = width * channels * itemsize, len(data)
    _check_size(height, width, row * height)
    if step < row:
        raise DecodeError(f"step is {step}; a row of {width} {encoding} pixels takes {row} bytes")
    if step * height > MAX_IMAGE_BYTES or size > MAX_IMAGE_BYTES or size < step * (height - 1) + row:
        raise DecodeError(f"{size} bytes for {height} rows of step {step}; {step * height} are needed, at most 64 MiB")
    flat = np.frombuffer(data, np.uint8)
    rows = np.lib.stride_tricks.as_strided(flat, (height, row), (step, 1), writeable=False)
    if itemsize == 2:
        wide = np.ascontiguousarray(rows).view(">u2" if is_bigendian else "<u2")
        return _to_rgb("mono8", _narrow(wide))
    return _to_rgb(encoding, rows.reshape(height, width, channels) if channels > 1 else rows)


def decode_compressed(format_: str, data: Buffer) -> ImageArray:
    """Decode the fields of a sensor_msgs/CompressedImage with JPEG or PNG data.

    `format_` as image_transport's compressed plugin writes it: `rgb8; jpeg compressed bgr8` (source encoding; codec;
    channel order of what was compressed). A bare `jpeg` or `png` has ordinary colours. With a colour source and no
    `compressed bgr`, old versions of the plugin compressed the source's RGB bytes as if they were BGR.

    Raises:
        DecodeError: another codec, broken data, more than 64 MiB, or a ratio like that of a decompression bomb.

    """
    source, _, codec = (part.strip() for part in format_.partition(";"))
    named = codec or source
    if "compressedDepth" in named or not ("jpeg" in named or "jpg" in named or "png" in named):
        raise DecodeError(f"compressed format {format_[:60]!r} is unknown; allowed are JPEG and PNG")
    raw = np.frombuffer(data, np.uint8)
    height, width, depth = _compressed_size(raw[: 1 << 16].tobytes())
    size = height * width * depth
    _check_size(height, width, size)
    if size > RATIO_FREE_BYTES and size > MAX_RATIO * raw.size:
        raise DecodeError(f"{raw.size} bytes decompress to {size}; a ratio up to {MAX_RATIO} is allowed")
    image = cv2.imdecode(raw, cv2.IMREAD_UNCHANGED)
    if image is None:
        raise DecodeError(f"{raw.size} bytes of {format_[:60]!r} cannot be decompressed")
    pixels = _narrow(image.view(np.uint16)) if image.dtype == np.uint16 else image.view(np.uint8)
    if pixels.ndim == 2:
        return _to_rgb(source if source.startswith("bayer_") else "mono8", pixels)
    swapped = bool(codec) and "compressed bgr" not in codec and source in ("rgb8", "bgr8", "rgba8", "bgra8")
    order = "rgb" if swapped else "bgr"
    return _to_rgb(f"{order}a8" if pixels.shape[2] == 4 else f"{order}8", pixels)


def resize_with_pad(image: ImageArray, height: int, width: int) -> ImageArray:
    """Fit an image into `height x width`, keeping its aspect ratio, centred on black (openpi, `resize_with_pad`).

    Area interpolation when shrinking, bilinear when growing. An image of that size already is returned as it is.
    """
    if image.shape[:2] == (height, width):
        return image
    ratio = max(image.shape[1] / width, image.shape[0] / height)
    inner_height = min(height, max(1, int(image.shape[0] / ratio)))
    inner_width = min(width, max(1, int(image.shape[1] / ratio)))
    mode = cv2.INTER_AREA if ratio > 1.0 else cv2.INTER_LINEAR
    top, left = (height - inner_height) // 2, (width - inner_width) // 2
    resized = np.zeros((height, width, 3), np.uint8)
    inner = cv2.resize(image, (inner_width, inner_height), interpolation=mode)
    resized[top : top + inner_height, left : left + inner_width] = inner
    return resized


def fingerprint(data: Buffer, offset: int = 0) -> int:
    """Cheap hash of an image's bytes from `offset` on: equal for equal pixels, and different once noise moved on.

    Looks at every 61st byte (61 is coprime to channels and common row lengths), 15 us for 640 x 480 rgb8.
    """
    return zlib.crc32(np.frombuffer(data, np.uint8)[offset::61].tobytes())


def _to_rgb(encoding: str, pixels: NDArray[np.uint8]) -> ImageArray:
    if encoding == "rgb8":
        return pixels
    if encoding.startswith("bayer_") and min(pixels.shape) < 2:
        raise DecodeError(f"a {encoding} image of {pixels.shape[0]} x {pixels.shape[1]} px has no 2 x 2 pattern")
    return cv2.cvtColor(np.ascontiguousarray(pixels), _TO_RGB[encoding]).view(np.uint8)


def _narrow(wide: NDArray[np.uint16]) -> NDArray[np.uint8]:
    """0..65535 to 0..255, rounded to nearest (257 is odd: there are no ties)."""
    return ((wide.astype(np.uint32) + 128) // 257).astype(np.uint8)


def _check_size(height: int, width: int, size: int) -> None:
    if height < 1 or width < 1 or size > MAX_IMAGE_BYTES:
        raise DecodeError(f"image of {width} x {height} px, {size} bytes; allowed is 1 px up to 64 MiB")


def _compressed_size(head: bytes) -> tuple[int, int, int]:
    """Height, width [px] and bytes per pixel from the header of a PNG or JPEG, before anything is decompressed."""
    if head[:8] == b"\x89PNG\r\n\x1a\n" and len(head) >= 26:
        depth = {0: 1, 2: 3, 3: 4, 4: 2, 6: 4}.get(head[25], 4) * (2 if head[24] == 16 else 1)
        return int.from_bytes(head[20:24], "big"), int.from_bytes(head[16:20], "big"), depth
    place = 2 if head[:2] == b"\xff\xd8" else len(head)
    while place + 9 <= len(head) and head[place] == 0xFF:
        marker = head[place + 1]
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width = (int.from_bytes(head[place + i : place + i + 2], "big") for i in (5, 7))
            return height, width, head[place + 9] if len(head) > place + 9 else 3
        place += 1 if marker == 0xFF else 2 + int.from_bytes(head[place + 2 : place + 4], "big")
    raise DecodeError("compressed data is neither a whole PNG nor a whole JPEG")
