"""Observations at a fixed rate out of streams that each have their own.

The rules, for a frame at time t of the grid:

* Joint positions: linear between the last sample at or before t and the first one at or after it.
* A view: its latest image at or before t, at most `tolerance_ns` old. Never a later one, however near.
* Gripper: its latest opening at or before t.

The grid begins at the first image of the reference view at which every stream has a sample at or before it. Worked
example, period 50, one view with images at 0, 33, 67, 100, joint samples every 10 from 5 to 105, gripper at 0:

    grid 33, 83                    0 is no start: the joints' first sample is at 5
    t = 33   image 33 (age 0)      joints between 25 and 35, nearest_ns 2
    t = 83   image 67 (age 16)     joints between 75 and 85, nearest_ns 2; known once the image at 100 is there
    t = 133  after the last joint sample: the end
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from e0_policy.types import FloatArray, ImageArray, Observation, Stale
from e0_ros.core.pairing import GRIPPER, JOINTS, SyncConfig
from e0_ros.core.stamped_buffer import StampedBuffer
from e0_ros.core.stream import NS_PER_MS

IMAGES_KEPT = 256
STATES_KEPT = 65536
Result = Observation | Stale


@dataclass(frozen=True)
class Grid:
    """Frames `period_ns` apart, not before `start_ns`; images at most `tolerance_ns` old.

    With `hold` nothing is too old, and joints are interpolated over any gap.
    """

    period_ns: int
    start_ns: int = 0
    tolerance_ns: int = 100 * NS_PER_MS
    hold: bool = False


class GridSync:
    """The resampling core. Every `add_*` and `finish` returns the frames that became known, in order.

    Values may be given as they came: `read_*` turns one into numbers when it is used, as in `ObservationSync`.

    Args:
        grid: where frames lie.
        sync: views, the reference view first, and the rates from which the bounds on gaps derive.
        read_image: `(view, value)` to `uint8 (height, width, 3)` RGB.
        read_joints: value to positions `(joints,)` [rad].
        read_gripper: value to an opening in [0, 1].

    """

    def __init__(
        self,
        grid: Grid,
        sync: SyncConfig,
        read_image: Callable[[str, Any], ImageArray] = lambda view, image: image,
        read_joints: Callable[[Any], FloatArray] = np.asarray,
        read_gripper: Callable[[Any], float] = float,
    ) -> None:
        self._grid, self._sync, self._views, self._reference = grid, sync, sync.views, sync.views[0]
        self._joints: StampedBuffer[Any] = StampedBuffer(STATES_KEPT)
        self._gripper: StampedBuffer[Any] = StampedBuffer(STATES_KEPT)
        self._buffers: dict[str, StampedBuffer[Any]] = {v: StampedBuffer(IMAGES_KEPT) for v in sync.views}
        self._buffers |= {JOINTS: self._joints, GRIPPER: self._gripper}
        self._read_image, self._read_joints, self._read_gripper = read_image, read_joints, read_gripper
        self._joint_bound_ns = _bound_ns(sync, sync.joint_rate_hz)
        self._gripper_bound_ns = _bound_ns(sync, sync.gripper_rate_hz)
        self._newest: dict[str, int] = {}
        self._next_ns: int | None = None

    def add_image(self, view: str, stamp_ns: int, image: Any) -> list[Result]:
        """Take an image stamped so; `sync` knows how much earlier it was captured."""
        return self._add(view, self._sync.captured_ns(view, stamp_ns), image)

    def add_joints(self, stamp_ns: int, positions: Any) -> list[Result]:
        """Take joint positions `(joints,)` [rad] measured at `stamp_ns`, or something that `read_joints` reads."""
        return self._add(JOINTS, stamp_ns, positions)

    def add_gripper(self, stamp_ns: int, opening: Any) -> list[Result]:
        """Take a gripper opening in [0, 1] measured at `stamp_ns`, or something that `read_gripper` reads."""
        return self._add(GRIPPER, stamp_ns, opening)

    def finish(self) -> list[Result]:
        """The frames up to the last joint sample, when nothing more will come; the first that cannot be ends them."""
        results: list[Result] = []
        while self._start() is not None and self._joints.newest_ns is not None:
            if self._next_ns is None or self._next_ns > self._joints.newest_ns:
                break
            result = self._frame(self._next_ns)
            if isinstance(result, Stale):
                break
            results.append(result)
            self._advance(self._next_ns)
        return results

    def _add(self, name: str, stamp_ns: int, value: Any) -> list[Result]:
        self._buffers[name].insert(stamp_ns, value)
        newest = self._newest[name] = max(stamp_ns, self._newest.get(name, stamp_ns))
        if self._next_ns is not None and newest < self._next_ns:
            return []
        results: list[Result] = []
        while (t := self._start()) is not None and all(self._newest[n] >= t for n in self._buffers):
            results.append(self._frame(t))
            self._advance(t)
        return results

    def _start(self) -> int | None:
        """Time of the next frame; None as long as a stream has sent nothing."""
        if self._next_ns is None and len(self._newest) == len(self._buffers):
            firsts = [buffer.stamps[0] for buffer in self._buffers.values()]
            first = self._buffers[self._reference].at_or_after(max(*firsts, self._grid.start_ns))
            self._next_ns = None if first is None else first.stamp_ns
        return self._next_ns

    def _advance(self, t: int) -> None:
        self._next_ns = t + self._grid.period_ns
        for buffer in self._buffers.values():
            buffer.drop_before(t)

    def _frame(self, t: int) -> Result:
        images = {view: self._buffers[view].at_or_before(t) for view in self._views}
        for view, image in images.items():
            age_ns = -1 if image is None else t - image.stamp_ns
            if image is None or (age_ns > self._grid.tolerance_ns and not self._grid.hold):
                return Stale(t, view, f"its latest image is {age_ns / NS_PER_MS:.0f} ms old", age_ns)
        gripper = self._gripper.at_or_before(t)
        if gripper is None or (t - gripper.stamp_ns > self._gripper_bound_ns and not self._grid.hold):
            age_ns = -1 if gripper is None else t - gripper.stamp_ns
            return Stale(t, GRIPPER, f"its latest sample is {age_ns / NS_PER_MS:.0f} ms old", age_ns)
        name = JOINTS
        try:
            joints = self._joints.interpolate(t, self._read_joints)
            if joints is None or (joints.gap_ns > self._joint_bound_ns and not self._grid.hold):
                gap_ns = -1 if joints is None else joints.gap_ns
                return Stale(t, JOINTS, f"a gap of {gap_ns / NS_PER_MS:.0f} ms", gap_ns)
            name = GRIPPER
            opening = self._read_gripper(gripper.value)
            views = {}
            for name, image in images.items():
                assert image is not None
                views[name] = self._read_image(name, image.value)
        except ValueError as error:
            return Stale(t, name, f"unreadable: {error}", -1)
        skews = {view: image.stamp_ns - t for view, image in images.items() if image is not None}
        return Observation(
            t,
            views,
            joints.value,
            opening,
            view_skew_ns=skews,
            joint_skew_ns=joints.nearest_ns,
            gripper_age_ns=t - gripper.stamp_ns,
        )


def _bound_ns(sync: SyncConfig, rate_hz: float) -> int:
    """How far a stream may fall behind before it counts as silent, as live."""
    return round(sync.silent_ms(rate_hz) * NS_PER_MS)
