from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from sim.playback import Playback, PlaybackConfig

PERIOD = 50


def plan(steps: int) -> np.ndarray:
    return np.arange(steps, dtype=np.float64)[:, None] * [1.0, 10.0]


def test_the_example_of_the_docstring() -> None:
    playback = Playback(plan(7), PERIOD, PlaybackConfig(window_rows=4, replan_rows=2))
    sent = {}
    for stamp in range(1000, 1301, 50):
        if window := playback.answer(stamp):
            sent[stamp] = (window.t0_ns, window.rows[:, 0].tolist())
    assert sent == {
        1000: (1000, [0, 1, 2, 3]),
        1100: (1000, [0, 1, 2, 3]),
        1200: (1100, [2, 3, 4, 5]),
        1300: (1200, [4, 5, 6, 6]),
    }


@given(
    steps=st.integers(1, 300),
    gaps=st.lists(st.integers(1, 700), max_size=60),
    replan=st.integers(1, 20),
    more=st.integers(10, 60),
)
def test_every_row_is_in_force_at_its_own_time_whatever_the_camera_rate(
    steps: int, gaps: list[int], replan: int, more: int
) -> None:
    rows, config = plan(steps), PlaybackConfig(window_rows=replan + more, replan_rows=replan)
    playback, start = Playback(rows, PERIOD, config), 12345
    in_force = None
    for stamp in (start + np.cumsum([0, *gaps])).tolist():
        if window := playback.answer(stamp):
            assert 0 <= stamp - window.t0_ns < 3 * PERIOD
            first = (window.t0_ns - start) // PERIOD
            index = np.minimum(np.arange(first, first + len(window.rows)), steps - 1)
            assert (window.rows == rows[index]).all() and (window.t0_ns - start) % PERIOD == 0
            in_force = window
        assert in_force is not None, "the first observation must get a window"
        assert stamp < in_force.t0_ns + PERIOD * (replan + 3), "an old window was left in force"


def test_after_the_end_the_last_row_is_held() -> None:
    playback = Playback(plan(3), PERIOD, PlaybackConfig())
    playback.answer(0)
    window = playback.answer(100 * PERIOD)
    assert window is not None
    assert (window.rows == plan(3)[-1]).all()
