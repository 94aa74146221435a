from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from e0_ros.core.live_status import Status, StreamStatus, line, lines, minutes_left, streams_of

GOOD = StreamStatus("base", 29.8, 30.0, 34.0, 140.0, 0.5, 20.0)
VALUES = {
    "observations": "30",
    "base rate [Hz]": "29.8",
    "base expected [Hz]": "30",
    "base gap [ms]": "34",
    "base bound [ms]": "140",
    "base skew [ms]": "0.5",
    "base age [ms]": "20",
    "base duplicates": "0",
    "gripper age at image [ms]": "3",
}


def test_streams_are_read_from_what_observation_sync_says():
    assert streams_of(VALUES) == (GOOD,)
    (broken,) = streams_of({**VALUES, "base rate [Hz]": "none"})
    assert math.isnan(broken.rate_hz) and broken.gap_ms == 34.0


@pytest.mark.parametrize(
    ("changed", "trouble"),
    [
        ({}, ""),
        ({"rate_hz": 26.0}, "26.0 Hz of 30.0 Hz"),
        ({"gap_ms": 141.0}, "gap of 141 ms"),
        ({"age_ms": 2000.0}, "gap of 2000 ms"),
        ({"age_ms": -1.0, "rate_hz": 0.0}, "0.0 Hz of 30.0 Hz"),
    ],
)
def test_what_is_wrong_with_a_stream_is_marked_unless_the_simulator_owns_the_time(changed, trouble):
    stream = StreamStatus(**{**vars(GOOD), **changed})
    assert "; ".join(stream.trouble()) == trouble and stream.trouble(lockstep=True) == []
    text = "\n".join(lines(Status((stream,))))
    assert ("!" in text) == bool(trouble) and trouble in text


def test_the_view_tells_all():
    status = Status(
        (GOOD,), "wrist: frozen: the same stamp came 3 times", "put the cup down", True, 12.3, 4_500_000, 2, 60 * 10**9
    )
    text = "\n".join(lines(Status(**{**vars(status), "bytes_per_s": 1e6, "mode": "RUNNING", "silent": ("recorder",)})))
    for part in ("REC   12.3 s", "4.50 MB", "60.0 GB free, 1000 min", "RUNNING", "put the cup down", "29.8 Hz"):
        assert part in text
    assert "! wrist: frozen" in text and "! recorder is silent" in text and "! 2 messages lost" in text
    assert "\n" not in line(status) and "frozen" in line(status)


@given(st.integers(0, 10**13), st.floats(1.0, 1e8))
def test_minutes_left(free, rate):
    assert minutes_left(free, rate) == pytest.approx(free / rate / 60)
    assert math.isnan(minutes_left(free, 0.0)) and math.isnan(minutes_left(free, math.nan))
