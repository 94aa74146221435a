"""How far cameras stand from their places in training, from the static transforms alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from e0_policy.types import FloatArray
from e0_policy.view_offset import view_offset
from e0_ros.core.camera_model import hanging_in, transforms_of
from e0_ros.interfaces import optical_frame, trained_frame


class CameraPlaces:
    """Keeps the static transforms; a view whose place in training nobody publishes is taken to stand there.

    Attributes:
        stamp_ns: newest stamp of a transform; -1 before the first.

    """

    def __init__(self, base_frame: str) -> None:
        self._base = base_frame
        self._transforms: dict[str, tuple[str, FloatArray]] = {}
        self.stamp_ns = -1

    def hear(self, message: Any) -> None:
        """Take a tf2_msgs/TFMessage of /tf_static."""
        self._transforms.update(transforms_of([message]))
        stamps = (t.header.stamp.sec * 1_000_000_000 + t.header.stamp.nanosec for t in message.transforms)
        self.stamp_ns = max([self.stamp_ns, *stamps])

    def offsets(self, views: Sequence[str]) -> dict[str, FloatArray]:
        """`e0_policy.view_offset` of every view of which both places are known, in the same frame of the arm."""
        offsets = {}
        for view in views:
            there, here = (
                hanging_in(frame, self._transforms, self._base) for frame in (trained_frame(view), optical_frame(view))
            )
            if there and here and there[0] == here[0]:
                offsets[view] = view_offset(there[1], here[1])
        return offsets
