"""Which sample of each stream belongs to a reference stamp; `observation_sync` gives the rules in words."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from e0_policy.types import Stale
from e0_ros.config import ConfigError, check, setting
from e0_ros.core.stamped_buffer import Sample
from e0_ros.core.stream import NS_PER_MS, NS_PER_S, Stream

JOINTS = "joints"
GRIPPER = "gripper"
EARLY_PERIODS = 0.4
FREE_RUNNING_PERIODS = 0.6
"""Cameras that run free of each other lie up to half a period apart, and their stamps jitter."""


@dataclass(frozen=True)
class SyncConfig:
    """Streams of an observation and how far they may lie apart."""

    views: tuple[str, ...] = setting(("base", "wrist"), "camera views, the reference view first")
    camera_rate_hz: float = setting(30.0, "rate of every camera", unit="Hz", low=1.0, high=240.0)
    joint_rate_hz: float = setting(1000.0, "rate of the joint states", unit="Hz", low=5.0, high=4000.0)
    gripper_rate_hz: float = setting(15.0, "rate of the gripper states", unit="Hz", low=1.0, high=1000.0)
    tolerance_ms: float = setting(
        0.0,
        f"largest skew between two views; 0: {FREE_RUNNING_PERIODS} camera periods, for cameras that run free",
        unit="ms",
        low=0.0,
        high=500.0,
    )
    max_clock_offset_ms: float = setting(
        18.0,
        "cameras whose least latencies differ by more disagree on the time; 0: off",
        unit="ms",
        low=0.0,
        high=500.0,
    )
    patience_periods: float = setting(3.0, "periods after which a stream counts as silent", low=1.0, high=20.0)
    slack_ms: float = setting(40.0, "transport and jitter on top of the periods", unit="ms", low=0.0, high=1000.0)
    frozen_pixels_ms: float = setting(
        1000.0, "identical pixels under fresh stamps for this long are frozen; 0: off", unit="ms", low=0.0, high=60e3
    )
    camera_latency_ms: tuple[float, ...] = setting(
        (), "how much later than its capture each view's image is stamped, in the order of views "
        "(e0 calibrate latency)", unit="ms", low=-500.0, high=500.0,
    )  # fmt: skip
    lockstep: bool = setting(False, "wait for all streams, without deadlines")

    def __post_init__(self) -> None:
        check(self)
        if not self.views or len(set(self.views)) != len(self.views):
            raise ConfigError(f"SyncConfig.views is {self.views}; one or more different names are needed")
        for view in self.views:
            if not re.fullmatch(r"[a-zA-Z][a-zA-Z0-9_]{0,63}", view) or view in (JOINTS, GRIPPER):
                raise ConfigError(f"SyncConfig.views has {view[:80]!r}; allowed are letters, digits and _")
        if self.camera_latency_ms and len(self.camera_latency_ms) != len(self.views):
            raise ConfigError(
                f"SyncConfig.camera_latency_ms has {len(self.camera_latency_ms)} numbers for {len(self.views)} views"
            )

    def silent_ms(self, rate_hz: float) -> float:
        """How long a stream of that rate may be without a sample before it counts as silent [ms]."""
        return self.patience_periods * 1e3 / rate_hz + self.slack_ms

    @property
    def tolerance_ns(self) -> int:
        """Largest skew between two views [ns], as it is set or as the cameras' rate gives it."""
        return round(self.tolerance_ms * NS_PER_MS or FREE_RUNNING_PERIODS * NS_PER_S / self.camera_rate_hz)

    def captured_ns(self, view: str, stamp_ns: int) -> int:
        """When an image that is stamped so was captured, by what is known of its camera."""
        if not self.camera_latency_ms:
            return stamp_ns
        return stamp_ns - round(self.camera_latency_ms[self.views.index(view)] * NS_PER_MS)


@dataclass(frozen=True)
class Wait:
    """The answer has to wait for this stream."""

    stream: str


Found = Sample[Any] | Stale | Wait | None


class Pairing:
    """Finds in one stream what belongs to a reference stamp: a sample, `Stale`, or `Wait`.

    `now_ns` is None in lock-step, where nothing depends on the clock; `expired` ends the waiting.
    """

    def __init__(self, config: SyncConfig) -> None:
        self._config = config
        self._reference = config.views[0]
        self._tolerance_ns = config.tolerance_ns

    def find(self, stream: Stream[Any], stamp_ns: int, now_ns: int | None, expired: bool) -> Found:
        """Look into a stream by its name; for the reference view and the joints None stands for found."""
        look = {JOINTS: self._joints, GRIPPER: self._gripper}.get(stream.name, self._view)
        return look(stream, stamp_ns, now_ns, expired)

    def _view(self, stream: Stream[Any], stamp_ns: int, now_ns: int | None, expired: bool) -> Found:
        still_ns, frozen_ns = stream.still_ns(stamp_ns), self._config.frozen_pixels_ms * NS_PER_MS
        if not self._config.lockstep and 0 < frozen_ns <= still_ns:
            return stream.stale(stamp_ns, now_ns, f"frozen: identical pixels for {still_ns / NS_PER_S:.2f} s")
        if stream.name == self._reference:
            return None
        nearest = stream.buffer.nearest(stamp_ns)
        skew_ns = None if nearest is None else abs(nearest.stamp_ns - stamp_ns)
        if stream.buffer.at_or_after(stamp_ns) is None and not expired:
            early_ns = -1 if self._config.lockstep else min(self._tolerance_ns, EARLY_PERIODS * stream.period_ns)
            if skew_ns is None or skew_ns > early_ns:
                return Wait(stream.name)
        if skew_ns is None or skew_ns > self._tolerance_ns:
            far = "no image" if skew_ns is None else f"its nearest image is {skew_ns / NS_PER_MS:.1f} ms away"
            return stream.stale(stamp_ns, now_ns, f"skewed: {far}; allowed is {self._tolerance_ns / NS_PER_MS:.1f} ms")
        return nearest

    def _joints(self, stream: Stream[Any], stamp_ns: int, now_ns: int | None, expired: bool) -> Found:
        before, after = stream.buffer.at_or_before(stamp_ns), stream.buffer.at_or_after(stamp_ns)
        if after is None:
            return stream.stale(stamp_ns, now_ns, "late: no sample at or after the image") if expired else Wait(JOINTS)
        if before is None:
            return stream.stale(stamp_ns, now_ns, "missing: no sample at or before the image")
        if after.stamp_ns - before.stamp_ns > stream.bound_ns:
            gap_ms, bound_ms = (after.stamp_ns - before.stamp_ns) / NS_PER_MS, stream.bound_ns / NS_PER_MS
            return stream.stale(
                stamp_ns, now_ns, f"missing: a gap of {gap_ms:.1f} ms around the image; allowed is {bound_ms:.1f} ms"
            )
        return None

    def _gripper(self, stream: Stream[Any], stamp_ns: int, now_ns: int | None, expired: bool) -> Found:
        sample = stream.buffer.at_or_before(stamp_ns)
        behind = stream.newest_ns is None or stream.newest_ns < stamp_ns
        if not expired and (behind if self._config.lockstep else sample is None and behind):
            return Wait(GRIPPER)
        if sample is None:
            return stream.stale(stamp_ns, now_ns, "missing: no sample at or before the image")
        age_ns = stamp_ns - sample.stamp_ns
        if age_ns > stream.bound_ns:
            age_ms, bound_ms = age_ns / NS_PER_MS, stream.bound_ns / NS_PER_MS
            return stream.stale(
                stamp_ns, now_ns, f"missing: {age_ms:.1f} ms old at the image; allowed is {bound_ms:.1f} ms"
            )
        return sample
