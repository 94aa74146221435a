from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.playback import Playback, PlaybackConfig

PERIOD = 50


def plan(first: int, end: int) -> np.ndarray:
    return np.arange(first, end, dtype=np.float64)[:, None] * [1.0, 10.0]


def playing(steps: int, config: PlaybackConfig | None = None, start: int = 0) -> Playback:
    playback = Playback(PERIOD, config or PlaybackConfig())
    playback.add(plan(0, steps), start)
    return playback


def test_the_example_of_the_docstring() -> None:
    playback = Playback(PERIOD, PlaybackConfig(window_rows=4, replan_rows=2))
    assert playback.answer(1000) is None and playback.over(1000)
    playback.add(plan(0, 3), 1000)
    sent, over = {}, {}
    for stamp in range(1000, 1301, 50):
        over[stamp] = playback.over(stamp)
        if stamp == 1150:
            playback.add(plan(3, 5), 1170)
        if window := playback.answer(stamp):
            sent[stamp] = (window.t0_ns, window.rows[:, 0].tolist())
    assert sent == {
        1000: (1000, [0, 1, 2, 2]),
        1100: (1000, [0, 1, 2, 2]),
        1150: (1050, [1, 2, 2, 3]),
        1250: (1150, [2, 3, 4, 4]),
    }
    assert [stamp for stamp, ended in over.items() if ended] == [1150, 1300]


@given(
    steps=st.integers(1, 300),
    gaps=st.lists(st.integers(1, 700), max_size=60),
    replan=st.integers(1, 20),
    more=st.integers(10, 60),
)
def test_every_row_is_in_force_at_its_own_time_whatever_the_camera_rate(
    steps: int, gaps: list[int], replan: int, more: int
) -> None:
    rows, config = plan(0, steps), PlaybackConfig(window_rows=replan + more, replan_rows=replan)
    start = 12345
    playback, in_force = playing(steps, config, start), None
    for stamp in (start + np.cumsum([0, *gaps])).tolist():
        if window := playback.answer(stamp):
            assert 0 <= stamp - window.t0_ns < 3 * PERIOD
            first = (window.t0_ns - start) // PERIOD
            index = np.minimum(np.arange(first, first + len(window.rows)), steps - 1)
            assert (window.rows == rows[index]).all() and (window.t0_ns - start) % PERIOD == 0
            in_force = window
        assert in_force is not None, "the first observation must get a window"
        assert stamp < in_force.t0_ns + PERIOD * (replan + 3), "an old window was left in force"


@given(lengths=st.lists(st.integers(1, 30), min_size=1, max_size=6), late=st.lists(st.integers(0, 400), min_size=6))
def test_motions_follow_one_another_and_the_last_row_is_held_while_the_next_one_is_planned(
    lengths: list[int], late: list[int]
) -> None:
    playback, ends, stamp = Playback(PERIOD, PlaybackConfig()), np.cumsum([0, *lengths]).tolist(), 1000
    commanded: list[float] = []
    window = None
    for first, end, delay in zip(ends[:-1], ends[1:], late, strict=False):
        while not playback.over(stamp):
            window = playback.answer(stamp) or window
            assert window is not None
            commanded.append(float(window.rows[(stamp - window.t0_ns) // PERIOD, 0]) if stamp >= window.t0_ns else -1)
            stamp += PERIOD
        playback.add(plan(first, end), stamp + delay)
        told = playback.answer(stamp)
        assert told is not None, "what is new is told at once"
        window = told
        due = window.t0_ns + PERIOD * int(np.argmax(window.rows[:, 0] == first)) if first in window.rows[:, 0] else None
        assert due is None or due >= stamp + delay, "no row of a motion is due before it was planned"
    started = [row for row in commanded if row >= 0]
    assert started == sorted(started) and set(np.diff(started)) <= {0.0, 1.0}, "no row is left out or comes back"


def test_after_the_end_the_last_row_is_held() -> None:
    window = playing(3).answer(100 * PERIOD)
    assert window is not None
    assert (window.rows == plan(0, 3)[-1]).all()


def test_a_motion_that_is_to_begin_in_years_is_refused() -> None:
    """Else the last row would be held, and kept, for every period until then."""
    with pytest.raises(ValueError, match="100000 rows are allowed"):
        playing(3).add(plan(3, 6), 2**31 * 10**9)
