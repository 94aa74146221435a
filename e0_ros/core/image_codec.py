"""Camera images as they are stored: sensor_msgs/Image to CompressedImage, on serialised messages."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from e0_ros.core.definitions import Definitions

IMAGE = "sensor_msgs/msg/Image"
COMPRESSED_IMAGE = "sensor_msgs/msg/CompressedImage"

_CHANNELS = {"rgb8": 3, "bgr8": 3, "rgba8": 4, "bgra8": 4, "mono8": 1, "8UC1": 1, "16UC1": 1, "mono16": 1}
_TO_STORED = {"rgb8": cv2.COLOR_RGB2BGR, "rgba8": cv2.COLOR_RGBA2BGR, "bgra8": cv2.COLOR_BGRA2BGR}
_TO_STORED_LOSSLESS = {"rgb8": cv2.COLOR_RGB2BGR, "rgba8": cv2.COLOR_RGBA2BGRA}
_DEEP = ("16UC1", "mono16")


def pixels(message: Any) -> NDArray[Any] | None:
    """Pixels of an Image as `(height, width[, channels])`, a view if rows are packed; None for unknown encodings.

    Raises:
        ValueError: data that does not fit the size.

    """
    channels = _CHANNELS.get(message.encoding)
    if channels is None or (message.encoding in _DEEP and message.is_bigendian):
        return None
    kind = np.dtype("<u2") if message.encoding in _DEEP else np.dtype(np.uint8)
    row = message.width * channels * kind.itemsize
    if message.step < row or message.step * message.height != len(message.data):
        raise ValueError(
            f"image is {message.encoding} {message.width} x {message.height}, step {message.step}, "
            f"{len(message.data)} bytes; that does not fit"
        )
    rows = np.asarray(message.data, np.uint8).reshape(message.height, message.step)[:, :row]
    shape = (message.height, message.width) if channels == 1 else (message.height, message.width, channels)
    return np.ascontiguousarray(rows).view(kind).reshape(shape)


def compress(data: bytes, definitions: Definitions, *, lossless: bool, quality: int = 95) -> bytes | None:
    """CompressedImage of a serialised Image, or None if its encoding has no compressed form.

    Header and format string are those of image_transport's compressed transport, e.g. `rgb8; jpeg compressed bgr8`.
    Depth (16 bits) is always stored as PNG, without loss.
    """
    message = definitions.decode(data, IMAGE)
    image = pixels(message) if message.width * message.height else None
    if image is None:
        return None
    png = lossless or message.encoding in _DEEP
    conversion = (_TO_STORED_LOSSLESS if png else _TO_STORED).get(message.encoding)
    if conversion is not None:
        image = np.asarray(cv2.cvtColor(image, conversion))
    options = [cv2.IMWRITE_PNG_COMPRESSION, 1] if png else [cv2.IMWRITE_JPEG_QUALITY, quality]
    _, stored = cv2.imencode(".png" if png else ".jpg", image, options)
    kind = "png" if png else "jpeg"
    target = message.encoding if _CHANNELS[message.encoding] == 1 else "bgra8" if image.shape[2] == 4 else "bgr8"
    form = f"{message.encoding}; {kind} compressed {target}"
    return definitions.encode(definitions.new(COMPRESSED_IMAGE, header=message.header, format=form, data=stored))


def without_pixels(data: bytes, definitions: Definitions) -> bytes:
    """A serialised Observation whose images keep header, size and encoding, but no data."""
    message = definitions.decode(data, "e0_msgs/msg/Observation")
    for view in message.views:
        view.data = np.empty(0, np.uint8)
    return definitions.encode(message)


class EncodingError(ValueError):
    """A message cannot be changed as asked; the message says why."""


Transform = Callable[[str, str, bytes], tuple[str, str, bytes]]
"""Topic, type and bytes as received to topic, type and bytes as stored; raises `EncodingError`."""


def transform(images: str, quality: int, observation_images: bool, definitions: Definitions) -> Transform:
    """How messages are changed before they are stored; `images` is `jpeg`, `png` or `raw`."""

    def change(topic: str, type_name: str, data: bytes) -> tuple[str, str, bytes]:
        if type_name == IMAGE and images != "raw":
            stored = compress(data, definitions, lossless=images == "png", quality=quality)
            if stored is not None:
                return topic + "/compressed", COMPRESSED_IMAGE, stored
        if type_name == "e0_msgs/msg/Observation" and not observation_images:
            return topic, type_name, without_pixels(data, definitions)
        return topic, type_name, data

    def store(topic: str, type_name: str, data: bytes) -> tuple[str, str, bytes]:
        try:
            return change(topic, type_name, data)
        except (ValueError, cv2.error) as error:
            raise EncodingError(f"{topic}: {error}") from None

    return store


def changes(type_name: str, images: str, observation_images: bool) -> bool:
    """Whether `transform` works on messages of this type, so that it is worth a thread."""
    return (type_name == IMAGE and images != "raw") or (
        type_name == "e0_msgs/msg/Observation" and not observation_images
    )
