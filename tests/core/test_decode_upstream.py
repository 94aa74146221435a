"""Decoding against cv_bridge's own `toCvCopy(message, "rgb8")`, pixel for pixel."""

from pathlib import Path

import numpy as np
import pytest

from e0_ros.core.decode import ENCODINGS, decode_raw

VECTORS = np.load(Path(__file__).resolve().parents[1] / "vectors/cv_bridge.npz")
"""By cv_bridge 3.4.0 (ros-perception/vision_opencv, branch rolling) with OpenCV 4.6: random bytes, rows padded by 4.
It has no colours for 8UC1, 8UC3 and 16UC1, which were given to it as mono8, bgr8 and mono16."""


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_the_same_pixels_as_cv_bridge(encoding: str) -> None:
    data, expected = VECTORS[f"{encoding}/data"], VECTORS[f"{encoding}/rgb"]
    height, width, _ = expected.shape
    image = decode_raw(encoding, height, width, data.shape[1], 0, data.tobytes())
    np.testing.assert_array_equal(image, expected)
