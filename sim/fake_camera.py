"""RealSense cameras without the hardware, as a plan: which picture with which stamp comes when, and what goes wrong.

plan = Plan(FakeCameraConfig(drop_share=(0.0, 0.2)), 1)
plan.frame(7)        # Frame(stamp_ns=..., sent_ns=..., picture=7), after the start; None: dropped

`sim.bridge.camera` publishes it (`e0 camera fake`). Nothing here reads a clock.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np

from e0_policy.types import ImageArray
from e0_ros.config import ConfigError, check, setting
from e0_ros.core.camera_model import camera_profile
from e0_ros.core.pairing import SyncConfig

_MS = 1e6
PICTURES = 16
"""Pictures that a camera goes through; one and the next always differ."""


def _per_view(default: float, meaning: str, **bounds: float | str) -> tuple[float, ...]:
    made: tuple[float, ...] = setting((default,), meaning + ": one for all views, or one per view", **bounds)
    return made


@dataclass(frozen=True)
class FakeCameraConfig:
    """The cameras and their faults. A D435i at 30 Hz is late by one to two frames, and runs free of the others."""

    embodiment: str = setting("fr3", "arm that the cameras stand around")
    views: tuple[str, ...] = setting(("base", "wrist"), "views, each a camera")
    profile: str = setting("640x480x30", "width x height x rate of every camera")
    latency_ms: tuple[float, ...] = _per_view(25.0, "capture to sending", unit="ms", low=0.0, high=1e3)
    phase_ms: tuple[float, ...] = _per_view(0.0, "capture after the first camera's", unit="ms", low=0.0, high=1e3)
    rate_share: tuple[float, ...] = _per_view(1.0, "share of the rate, as in dim light", low=0.05, high=1.0)
    delay_jitter_ms: tuple[float, ...] = _per_view(0.0, "sending late by up to", unit="ms", low=0.0, high=5e3)
    stamp_jitter_ms: tuple[float, ...] = _per_view(0.0, "standard deviation of stamps", unit="ms", low=0.0, high=100.0)
    drop_share: tuple[float, ...] = _per_view(0.0, "share of pictures that never come", low=0.0, high=0.99)
    silent_s: tuple[float, ...] = _per_view(0.0, "of every cycle nothing comes for", unit="s", low=0.0, high=60.0)
    frozen_s: tuple[float, ...] = _per_view(
        0.0, "of every cycle the pixels stand still under fresh stamps for", unit="s", low=0.0, high=60.0
    )
    stuck_s: tuple[float, ...] = _per_view(
        0.0, "of every cycle the same message comes again for", unit="s", low=0.0, high=60.0
    )
    clock_offset_ms: tuple[float, ...] = _per_view(0.0, "stamps ahead of the clock", unit="ms", low=-1e5, high=1e5)
    cycle_s: float = setting(4.0, "how often these happen; at each cycle's end", unit="s", low=0.1, high=600.0)
    seed: int = setting(0, "of jitter and drops", low=0)

    def __post_init__(self) -> None:
        check(self)
        camera_profile(self.profile)
        SyncConfig(views=self.views)
        if max(self.silent_s) >= self.cycle_s:
            given = f"silent_s {self.silent_s}, cycle_s {self.cycle_s}"
            raise ConfigError(f"FakeCameraConfig: {given}; a cycle must be longer than its silence")
        for f in fields(self):
            values = getattr(self, f.name)
            if isinstance(values, tuple) and f.name != "views" and len(values) not in (1, len(self.views)):
                raise ConfigError(f"FakeCameraConfig.{f.name} has {len(values)} numbers for {len(self.views)} views")

    def of(self, name: str, view: int) -> float:
        """A setting of one view."""
        values: tuple[float, ...] = getattr(self, name)
        return values[view] if len(values) > 1 else values[0]


@dataclass(frozen=True)
class Frame:
    """A message: its stamp, when it is sent, both after the start [ns], and which of the pictures it shows."""

    stamp_ns: int
    sent_ns: int
    picture: int


class Plan:
    """What one camera sends; frames are asked for in order."""

    def __init__(self, config: FakeCameraConfig, view: int) -> None:
        self._rng = np.random.default_rng((config.seed, view))
        self._view, self._config = view, config
        self.period_ns = 1e9 / (camera_profile(config.profile)[2] * config.of("rate_share", view))
        self._last: Frame | None = None
        self._sent_ns = 0

    def frame(self, k: int) -> Frame | None:
        """The k-th; None: it was dropped. What was captured first is sent first."""
        of, view = self._config.of, self._view
        captured_ns = of("phase_ms", view) * _MS + k * self.period_ns
        jitter, delay, drop = self._rng.normal(), self._rng.random(), self._rng.random()
        sent_ns = captured_ns + (of("latency_ms", view) + delay * of("delay_jitter_ms", view)) * _MS
        self._sent_ns = max(self._sent_ns, round(sent_ns))
        left_s = self._config.cycle_s - captured_ns / 1e9 % self._config.cycle_s
        if drop < of("drop_share", view) or left_s <= of("silent_s", view):
            return None
        if self._last and left_s <= of("stuck_s", view):
            return Frame(self._last.stamp_ns, self._sent_ns, self._last.picture)
        still = self._last is not None and left_s <= of("frozen_s", view)
        picture = self._last.picture if self._last and still else k % PICTURES
        off_ns = (of("clock_offset_ms", view) + jitter * of("stamp_jitter_ms", view)) * _MS
        self._last = Frame(round(captured_ns + off_ns), self._sent_ns, picture)
        return self._last


def pictures(width: int, height: int, view: int) -> list[ImageArray]:
    """`PICTURES` of `(height, width, 3)`: a texture that moves to the right."""
    rng = np.random.default_rng(view)
    coarse = rng.integers(0, 256, (height // 16 + 1, width // 16 + 1, 3), dtype=np.uint8)
    texture = np.ascontiguousarray(coarse.repeat(16, 0).repeat(16, 1)[:height, :width])
    return [np.roll(texture, 8 * i, axis=1) for i in range(PICTURES)]
