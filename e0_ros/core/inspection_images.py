"""Pictures of a take: which topics are views, their pixels, and thumbnails small enough for a page."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import yaml

from e0_policy.types import ImageArray
from e0_ros.core.bag_reader import Bag
from e0_ros.core.decode import DecodeError, decode_compressed, decode_raw, resize_with_pad

THUMBNAIL_PX = 144
MAX_VIEWS = 8
_QUALITY = 72
_IMAGES = ("sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage")


def camera_views(bag: Bag) -> list[tuple[str, str]]:
    """Names and topics of the colour views in a bag, the reference view first; a view stored twice counts once."""
    topics = sorted(t for t, kind in bag.topics.items() if kind in _IMAGES and "depth" not in t.lower())
    found: dict[str, str] = {}
    for topic in topics:
        found.setdefault(_view(topic), topic)
    configured = _configured(bag)
    order = sorted(found, key=lambda view: configured.index(view) if view in configured else len(configured))
    return [(view, found[view]) for view in order[:MAX_VIEWS]]


def _view(topic: str) -> str:
    if "/cameras/" in topic:
        return topic.split("/cameras/")[1].split("/")[0]
    return topic.removesuffix("/compressed")


def _configured(bag: Bag) -> list[str]:
    try:
        configuration = yaml.safe_load(bag.custom.get("configuration", ""))
    except yaml.YAMLError:
        return []
    views = configuration.get("views") if isinstance(configuration, dict) else None
    return [str(view) for view in views] if isinstance(views, list) else []


def image_pixels(image: Any) -> ImageArray:
    """Pixels of a decoded Image or CompressedImage as RGB; one that cannot be decoded is a dark grey square."""
    try:
        if hasattr(image, "format"):
            return decode_compressed(image.format, image.data)
        return decode_raw(image.encoding, image.height, image.width, image.step, image.is_bigendian, image.data)
    except DecodeError:
        return np.full((THUMBNAIL_PX, THUMBNAIL_PX, 3), 64, np.uint8)


def thumbnail(pixels: ImageArray) -> bytes:
    """A JPEG of at most `THUMBNAIL_PX` square."""
    ratio = THUMBNAIL_PX / max(pixels.shape[:2])
    height, width = (max(1, round(side * min(ratio, 1.0))) for side in pixels.shape[:2])
    small = resize_with_pad(pixels, height, width)
    return bytes(cv2.imencode(".jpg", small[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])[1])
