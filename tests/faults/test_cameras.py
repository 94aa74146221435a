"""Rows of the fault matrix on cameras: frozen, late, of another clock. The pairing core, with time driven by hand."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from e0_policy.types import Observation, Stale
from e0_ros.core.observation_sync import ObservationSync, Result
from e0_ros.core.pairing import SyncConfig
from tests.faults.scale import scaled

MS = 1_000_000
START = 100_000 * MS
IMAGE = np.zeros((2, 2, 3), np.uint8)
PERIOD_MS = 1000 / 30


class Cameras:
    """Two cameras at 30 Hz, joints at 1 kHz and a gripper at 15 Hz, 5 ms on their way; polled every 10 ms.

    `change(view, frame, stamp_ms, arrival_ms)` returns what becomes of an image: its stamp, its arrival, its pixels.
    """

    def __init__(self, change: Callable[[str, int, float, float], tuple[float, float, int]]) -> None:
        self.config, self._change = SyncConfig(views=("base", "wrist")), change
        self.sync = ObservationSync(self.config)
        self.results: list[tuple[float, Result]] = []
        self._each_second: Callable[[], None] = lambda: None

    def run(self, seconds: float) -> Cameras:
        events: list[tuple[float, int, Callable[[int], list[Result]]]] = []
        sync = self.sync
        for frame in range(int(seconds * 30)):
            taken = frame * PERIOD_MS
            for view in ("base", "wrist"):
                stamp, arrival, pixels = self._change(view, frame, taken, taken + 5)
                events.append(
                    (arrival, 0, lambda now, v=view, s=stamp, p=pixels: sync.add_image(v, at(s), IMAGE, now, p))
                )
        joints, grips, polls = (range(int(seconds * rate)) for rate in (1000, 15, 100))
        events += [(k + 5, 1, lambda now, k=k: sync.add_joints(at(k), [k / 1e3], now)) for k in joints]
        grip_ms = [k * 1000 / 15 for k in grips]
        events += [(t + 5, 2, lambda now, t=t: sync.add_gripper(at(t), 0.5, now)) for t in grip_ms]
        events += [(10.0 * k, 3, sync.poll) for k in polls]
        events += [(1000.0 * k, 4, lambda now: self._each_second() or []) for k in range(int(seconds))]
        for now_ms, _, act in sorted(events, key=lambda event: event[:2]):
            self.results += [(now_ms, result) for result in act(at(now_ms))]
        return self

    def told(self, seconds: float) -> tuple[float, str]:
        """When the sync says which clock is off (its node asks each second), and what."""
        asked: list[str] = []
        self._each_second = lambda: asked.append(self.sync.disagreement)
        self.run(seconds)
        first = next((k for k, text in enumerate(asked) if text), len(asked))
        return float(first), asked[first] if first < len(asked) else ""

    def stale(self) -> list[tuple[float, Stale]]:
        return [(now, result) for now, result in self.results if isinstance(result, Stale)]

    def good(self, since_ms: float = 200.0) -> list[Observation]:
        return [r for now, r in self.results if isinstance(r, Observation) and now >= since_ms]


def at(ms: float) -> int:
    return START + round(ms * MS)


def as_it_is(view: str, frame: int, taken: float, arrival: float) -> tuple[float, float, int]:
    return taken, arrival, frame


def test_nothing_is_wrong_with_cameras_that_work() -> None:
    cameras = Cameras(as_it_is).run(2.0)
    assert len(cameras.good(0.0)) >= 58 and not [s for now, s in cameras.stale() if now > 100]


@pytest.mark.parametrize("view", ["base", "wrist"])
@pytest.mark.parametrize("frame", [20, 33])
def test_a_camera_that_repeats_its_stamp_gives_no_observation_and_is_named_in_150_ms(
    record_property, view: str, frame: int
) -> None:
    def frozen(name: str, k: int, taken: float, arrival: float) -> tuple[float, float, int]:
        return (taken, arrival, k) if name != view or k < frame else ((frame - 1) * PERIOD_MS, arrival, frame - 1)

    cameras, due = Cameras(frozen).run(2.0), frame * PERIOD_MS
    assert not [r for r in cameras.good(0.0) if r.stamp_ns >= at(due)], "nobody plans from it"
    named = next((now, s) for now, s in cameras.stale() if now > due)
    assert named[1].stream == view and named[1].reason.startswith("frozen: the same stamp came")
    record_property("figure", f"stamp {named[0] - due:.0f} ms")
    assert named[0] - due <= 150.0, "after the image was due"


@pytest.mark.parametrize("view", ["base", "wrist"])
def test_pixels_that_stand_still_under_fresh_stamps_are_found_within_a_second(record_property, view: str) -> None:
    def still(name: str, k: int, taken: float, arrival: float) -> tuple[float, float, int]:
        return taken, arrival, k if name != view else min(k, 29)

    cameras, due = Cameras(still).run(3.0), 30 * PERIOD_MS
    found = next((now, s) for now, s in cameras.stale() if now > due)
    assert found[1].stream == view and "identical pixels" in found[1].reason
    record_property("figure", f"pixels {found[0] - due:.0f} ms")
    assert found[0] - due <= 1000.0, "after the first image that should have differed"
    assert not [r for r in cameras.good(0.0) if r.stamp_ns >= at(found[0])]


def test_no_pair_lies_further_apart_than_allowed_whatever_the_delays(record_property) -> None:
    rng, seconds = np.random.default_rng(3), scaled(4, 60)

    def jitter(view: str, k: int, taken: float, arrival: float) -> tuple[float, float, int]:
        return taken + rng.uniform(-12, 12), arrival + rng.uniform(0, 200 if k % 3 else 30), k

    cameras = Cameras(jitter).run(seconds)
    pairs = cameras.good(0.0)
    worst_ms = max(abs(skew) for r in pairs for skew in r.view_skew_ns.values()) / MS
    late = [s for _, s in cameras.stale() if s.reason.startswith(("late", "skewed", "missing"))]
    most_ms = cameras.config.tolerance_ns / MS
    record_property("figure", f"{worst_ms:.1f} ms of {most_ms:.0f} allowed in {len(pairs)} pairs, {len(late)} refused")
    assert worst_ms <= most_ms and len(pairs) > 5 * seconds and late


@pytest.mark.parametrize("phase_ms", range(0, 34, 3))
def test_cameras_that_run_free_of_each_other_are_answered_at_any_phase(phase_ms: float) -> None:
    def free(view: str, k: int, taken: float, arrival: float) -> tuple[float, float, int]:
        shift = phase_ms if view == "wrist" else 0.0
        return taken + shift, arrival + shift, k

    cameras = Cameras(free)
    assert not cameras.told(3.0)[1] and len(cameras.good(0.0)) >= 86
    assert not [s for now, s in cameras.stale() if now > 100]


@pytest.mark.parametrize("skew_ms", [20.0, -20.0, 100.0, -100.0, 500.0, -500.0])
def test_a_view_of_another_clock_is_told_with_its_offset(record_property, skew_ms: float) -> None:
    def skewed(view: str, k: int, taken: float, arrival: float) -> tuple[float, float, int]:
        return taken + (skew_ms if view == "wrist" else 0.0), arrival + (7 * k) % 10, k

    cameras = Cameras(skewed)
    told = cameras.told(10.0)
    wrong = [r for r in cameras.good() if abs(r.view_skew_ns["wrist"]) > 15 * MS]
    wrong += [r for r in cameras.good(0.0) if abs(r.view_skew_ns["wrist"]) > cameras.config.tolerance_ns]
    record_property("figure", f"{skew_ms:+.0f} ms: told after {told[0]:.0f} s")
    assert not wrong and told[1].startswith("wrist")
    number = float(next(word for word in told[1].split() if word.lstrip("+-")[:1].isdigit()))
    assert abs(abs(number) - abs(skew_ms)) <= 6.0, "5 ms of it are the way"


@pytest.mark.parametrize("skew_ms", [20.0, 100.0, 500.0, -500.0])
def test_cameras_of_another_clock_than_the_joints_are_told_or_refused(record_property, skew_ms: float) -> None:
    def skewed(view: str, k: int, taken: float, arrival: float) -> tuple[float, float, int]:
        return taken + skew_ms, arrival, k

    cameras = Cameras(skewed)
    told = cameras.told(10.0)
    assert told[1] or not cameras.good(0.0)
    record_property(
        "figure", f"all cameras {skew_ms:+.0f} ms: " + (f"told after {told[0]:.0f} s" if told[1] else "refused")
    )


def test_cameras_that_agree_are_not_accused() -> None:
    rng = np.random.default_rng(8)
    cameras = Cameras(lambda view, k, taken, arrival: (taken, arrival + rng.uniform(0, 60), k))
    assert cameras.told(10.0) == (10.0, "")
