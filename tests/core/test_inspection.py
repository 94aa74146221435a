import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from e0_policy.embodiment import load_embodiment
from e0_ros.core.inspection import TakeReport, frozen_ms, lag_ms, motion_of, short, skew_ms, stream_of
from e0_ros.core.inspection_findings import compare, findings_of
from e0_ros.core.traces import Trace, Traces

MS = 1_000_000
ARM = load_embodiment("fr3")


def stamps(*ms: float) -> np.ndarray:
    return np.array([round(v * MS) for v in ms], np.int64)


def traces(measured: np.ndarray, commanded: np.ndarray, rate_hz: float = 20.0) -> Traces:
    times = np.arange(len(commanded)) / rate_hz
    none = Trace(np.empty(0), np.empty((0, 1)))
    return Traces(
        "", "", "", "", 0, ARM.joint_names, Trace(times, measured), Trace(times, commanded), none, none, (), ()
    )


def test_a_stream_has_its_rate_its_longest_gap_and_where_it_is():
    stream = stream_of("base", "x", stamps(100, 150, 200, 330, 380), 100 * MS)
    assert stream.count == 5 and stream.rate_hz == pytest.approx(4 / 0.28)
    assert (stream.gap_ms, stream.gap_at_s, stream.backwards) == (130.0, 0.1, 0)
    assert stream_of("base", "x", stamps(100, 90, 110), 0).backwards == 1
    assert stream_of("base", "x", stamps(5), 0).rate_hz == stream_of("base", "x", stamps(5, 5), 0).rate_hz == 0.0


@settings(deadline=None)
@given(
    st.lists(st.integers(0, 10**6), min_size=1, max_size=20), st.lists(st.integers(0, 10**6), min_size=1, max_size=20)
)
def test_skew_is_the_largest_distance_to_the_nearest(reference, other):
    expected = max(min(abs(r - o) for o in other) for r in reference) / 1e6
    assert skew_ms(np.array(reference), np.array(other)) == pytest.approx(expected)


def test_frozen_is_the_longest_time_of_equal_fingerprints():
    assert frozen_ms(stamps(0, 50, 100, 150, 200), [1, 1, 1, 2, 2]) == 100.0
    assert frozen_ms(stamps(0, 50, 100), [1, 2, 1]) == 0.0
    assert frozen_ms(stamps(0), [1]) is None


@pytest.mark.parametrize("lag_s", [0.0, 0.05, 0.12])
def test_the_lag_is_found(lag_s):
    times = np.arange(0, 5, 0.01)

    def wave(t):
        return np.stack([np.sin(2 * t + i) for i in range(7)], axis=1)

    assert lag_ms(Trace(times, wave(times - lag_s)), Trace(times, wave(times))) == pytest.approx(1e3 * lag_s, abs=10)
    still = np.zeros((len(times), 7))
    assert lag_ms(Trace(times, still), Trace(times, still)) is None


def test_roughness_is_0_for_a_line_and_the_root_of_3_for_noise():
    line = ARM.home + np.outer(np.arange(100), np.full(7, 0.002))
    smooth = motion_of(traces(line, line), ARM)
    noise = motion_of(traces(line, ARM.home + np.random.default_rng(0).normal(0, 0.01, (400, 7))[:100]), ARM)
    assert smooth.roughness == pytest.approx(0.0, abs=1e-6) and noise.roughness == pytest.approx(3**0.5, rel=0.1)
    assert smooth.speed == pytest.approx((0.04 / ARM.velocity).max())
    assert smooth.error_max == pytest.approx((0.0,) * 7) and smooth.low == pytest.approx(tuple(ARM.home))


def test_idle_ends_are_measured():
    moving = np.zeros((100, 7))
    moving[40:60] = np.linspace(0, 0.5, 20)[:, None]
    moving[60:] = 0.5
    motion = motion_of(traces(moving, moving), ARM)
    assert motion.idle_start_s == pytest.approx(2.0, abs=0.1) and motion.idle_end_s == pytest.approx(2.0, abs=0.1)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda a: a.position_upper + 0.1, "limits"),
        (lambda a: a.home, "does not move"),
    ],
)
def test_motion_that_cannot_be_right_is_named(change, text):
    end = change(ARM)
    path = ARM.home + np.linspace(0, 1, 200)[:, None] * (end - ARM.home)
    take = TakeReport("a", "a", "bag", embodiment="fr3", frames=200, motion=motion_of(traces(path, path), ARM))
    assert any(text in finding for finding in findings_of(take))
    healthy = ARM.home + np.linspace(0, 1, 200)[:, None] * 0.2
    assert (
        findings_of(
            TakeReport("a", "a", "bag", embodiment="fr3", frames=200, motion=motion_of(traces(healthy, healthy), ARM))
        )
        == []
    )


def test_a_take_much_longer_than_the_others_of_its_task_is_named():
    takes = [TakeReport(str(i), "", "bag", task="pick", duration_s=5.0 + 0.1 * i) for i in range(9)]
    takes += [
        TakeReport("long", "", "bag", task="pick", duration_s=30.0),
        TakeReport("push", "", "bag", task="push", duration_s=30.0),
    ]
    compare(takes)
    assert [t.name for t in takes if t.findings] == ["long"] and "30.0 s" in takes[-2].findings[0]


def test_text_from_data_is_cut_and_has_no_control_characters():
    assert short("a\x1b[31m\nb") == "a [31m b" and len(short("x" * 10_000)) == 301
