"""The fake cameras: every fault as it was asked for, and what the live pairing makes of it."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from e0_policy.types import Observation, Stale
from e0_ros.config import ConfigError
from e0_ros.core.observation_sync import ObservationSync
from e0_ros.core.pairing import SyncConfig
from sim.fake_camera import PICTURES, FakeCameraConfig, Frame, Plan, pictures

MS, START = 1_000_000, 10**15
PERIOD = 1000 / 30


def frames(config: FakeCameraConfig, view: int = 0, count: int = 300) -> list[Frame | None]:
    plan = Plan(config, view)
    return [plan.frame(k) for k in range(count)]


def test_a_camera_without_faults_is_steady_and_never_shows_a_picture_twice() -> None:
    sent = [frame for frame in frames(FakeCameraConfig()) if frame]
    assert len(sent) == 300
    np.testing.assert_allclose(np.diff([f.stamp_ns for f in sent]), PERIOD * MS, atol=1)
    assert {round((f.sent_ns - f.stamp_ns) / MS) for f in sent} == {25}
    assert all(a.picture != b.picture for a, b in itertools.pairwise(sent))
    shown = pictures(64, 48, 0)
    assert all((a != b).any() for a, b in zip(shown, [*shown[1:], shown[0]], strict=True)) and len(shown) == PICTURES


@given(st.floats(0.0, 200.0), st.floats(0.0, 0.9), st.integers(0, 99))
def test_nothing_is_sent_before_its_capture_nor_before_what_was_captured_first(jitter_ms, drops, seed) -> None:
    config = FakeCameraConfig(delay_jitter_ms=(jitter_ms,), drop_share=(drops,), seed=seed)
    sent = [frame for frame in frames(config, count=60) if frame]
    assert all(frame.sent_ns >= frame.stamp_ns + 25 * MS - 1 for frame in sent)
    assert all(a.sent_ns <= b.sent_ns and a.stamp_ns < b.stamp_ns for a, b in itertools.pairwise(sent))
    again = [frame for frame in frames(config, count=60) if frame]
    assert sent == again, "the same seed, the same faults"


def test_every_fault_is_there_as_it_was_asked_for_and_in_no_other_view() -> None:
    dropped = frames(FakeCameraConfig(drop_share=(0.0, 0.2)), 1, 3000)
    assert 450 < dropped.count(None) < 750 and frames(FakeCameraConfig(drop_share=(0.0, 0.2)), 0).count(None) == 0
    silent = frames(FakeCameraConfig(silent_s=(1.0,)), count=240)
    assert silent[90:120] == [None] * 30 and all(silent[:90])
    still = frames(FakeCameraConfig(frozen_s=(1.0,)), count=240)
    assert len({f.picture for f in still[89:120] if f}) == 1 and len({f.stamp_ns for f in still[90:120] if f}) == 30
    stuck = frames(FakeCameraConfig(stuck_s=(1.0,)), count=240)
    assert len({f.stamp_ns for f in stuck[89:120] if f}) == 1 and len({f.sent_ns for f in stuck[89:120] if f}) > 29
    ahead = frames(FakeCameraConfig(clock_offset_ms=(0.0, 40.0)), 1, 2)
    assert ahead[0] and ahead[0].stamp_ns == 40 * MS
    slow = [f.stamp_ns for f in frames(FakeCameraConfig(rate_share=(0.5,)), count=20) if f]
    np.testing.assert_allclose(np.diff(slow), 2 * PERIOD * MS, atol=1)
    rough = [f.stamp_ns for f in frames(FakeCameraConfig(stamp_jitter_ms=(3.0,))) if f]
    assert 2 * MS < np.std(np.array(rough) - np.arange(300) * PERIOD * MS) < 4 * MS


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"profile": "640x480"}, "640x480x30"),
        ({"drop_share": (0.0, 0.1, 0.2)}, "drop_share has 3 numbers for 2 views"),
        ({"silent_s": (4.0,)}, "longer than its silence"),
        ({"views": ("a-b",)}, "letters"),
    ],
)
def test_wrong_settings_are_refused(wrong, said) -> None:
    with pytest.raises(ConfigError, match=said):
        FakeCameraConfig(**wrong)


def paired(config: FakeCameraConfig, seconds: int = 8) -> tuple[list[Observation], list[Stale], str]:
    """What the pairing makes of the two cameras beside good joints and gripper, and which clock it says is off."""
    sync, results, disagreed = ObservationSync(SyncConfig()), [], set()
    events = []
    for view, name in enumerate(config.views):
        for frame in frames(config, view, seconds * 30):
            if frame:
                add = lambda now, n=name, f=frame: sync.add_image(n, START + f.stamp_ns, IMAGE, now, f.picture)  # noqa: E731
                events.append((START + frame.sent_ns, 0, add))
    for k in range(seconds * 1000):
        t = START + k * MS
        events.append((t + 5 * MS, 1, lambda now, t=t, k=k: sync.add_joints(t, [k / 1e3], now)))
        if k % 66 == 0:
            events.append((t + 5 * MS, 2, lambda now, t=t: sync.add_gripper(t, 0.5, now)))
        if k % 10 == 0:
            events.append((t, 3, sync.poll))
        if k % 1000 == 0:
            events.append((t, 4, lambda now: disagreed.add(sync.disagreement) or []))
    for now, _, act in sorted(events, key=lambda event: event[:2]):
        results += act(now)
    good = [r for r in results if isinstance(r, Observation)]
    return good, [r for r in results if isinstance(r, Stale)], " ".join(sorted(filter(None, disagreed)))


IMAGE = np.zeros((2, 2, 3), np.uint8)


def test_the_pairing_is_content_with_cameras_that_run_free_of_each_other() -> None:
    good, stale, disagreement = paired(FakeCameraConfig(phase_ms=(0.0, 9.0), delay_jitter_ms=(8.0,)))
    assert len(good) > 220 and not [s for s in stale if s.stamp_ns > START + 500 * MS] and not disagreement


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ({"frozen_s": (0.0, 2.5)}, "identical pixels"),
        ({"stuck_s": (0.0, 1.0)}, "the same stamp"),
        ({"silent_s": (0.0, 1.0)}, "wrist"),
        ({"stamp_jitter_ms": (0.0, 30.0)}, "skew"),
        ({"delay_jitter_ms": (0.0, 600.0)}, "wrist"),
    ],
)
def test_the_pairing_names_the_fault_of_a_camera(fault, reason) -> None:
    good, stale, _ = paired(FakeCameraConfig(**fault))
    assert [s for s in stale if s.stream == "wrist" and reason in f"{s.stream} {s.reason}"], {s.reason for s in stale}
    assert all(abs(ns) <= SyncConfig().tolerance_ns for observation in good for ns in observation.view_skew_ns.values())


@pytest.mark.parametrize("offset_ms", [-PERIOD, PERIOD, 3 * PERIOD])
def test_a_clock_that_is_off_by_whole_periods_is_told_from_the_latencies(offset_ms: float) -> None:
    _, _, disagreement = paired(FakeCameraConfig(clock_offset_ms=(0.0, offset_ms)))
    assert "wrist" in disagreement
