"""Do the fixed cameras of a running graph still see what they saw when a policy's data were recorded?

guard = ViewGuard(first_images(Bag(path)))
guard.look(observation.views)            # {"base": ViewShift(...)}; the first observation of an episode
guard.words                              # "base where it was: 0.31 px, ...": for /diagnostics
"""

from __future__ import annotations

from collections.abc import Mapping

import cv2
import numpy as np

from e0_policy.types import WRIST_VIEWS, ImageArray
from e0_ros.core.decode import resize_with_pad
from e0_ros.core.view_check import ViewShift, overlay, view_shift


class ViewGuard:
    """Compares each view with its picture of before, both as a policy sees them.

    Attributes:
        shifts: per view of the last look; empty before the first.
        overlays: per view both pictures in one PNG, red as it was and cyan as it is.

    """

    def __init__(self, before: Mapping[str, ImageArray]) -> None:
        self._before = {view: image for view, image in before.items() if view not in WRIST_VIEWS}
        self.shifts: dict[str, ViewShift] = {}
        self.overlays: dict[str, bytes] = {}

    @property
    def moved(self) -> tuple[str, ...]:
        """Views whose camera has moved since."""
        return tuple(view for view, shift in self.shifts.items() if shift.moved)

    @property
    def words(self) -> str:
        """What was found, in words; empty before the first look."""
        return "; ".join(f"{view} {shift.words()}" for view, shift in self.shifts.items())

    def look(self, now: Mapping[str, ImageArray]) -> dict[str, ViewShift]:
        """Compare the views that are known from before."""
        for view in (view for view in self._before if view in now):
            before = resize_with_pad(self._before[view], *now[view].shape[:2])
            seen = before.any(axis=2)
            inside = np.ix_(seen.any(axis=1), seen.any(axis=0))  # the edge of the padding moves with no camera
            then, here = before[inside], now[view][inside]
            self.shifts[view] = view_shift(then, here)
            self.overlays[view] = cv2.imencode(".png", overlay(then, here)[..., ::-1])[1].tobytes()
        return self.shifts
