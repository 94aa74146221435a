from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from e0_ros.core.gripper import Gripper


def test_the_example_of_the_docstring() -> None:
    gripper = Gripper(hysteresis=0.05)
    assert [gripper.update(x) for x in (1.0, 0.97, 0.94, 0.0)] == [1.0, None, 0.94, 0.0]


def test_noise_around_a_set_point_sends_nothing() -> None:
    gripper = Gripper(hysteresis=0.05)
    assert [gripper.update(0.5 + 0.02 * (-1) ** k) for k in range(20)][1:] == [None] * 19


@given(st.lists(st.floats(0, 1)))
def test_what_was_sent_is_never_far_and_an_end_is_exact(openings: list[float]) -> None:
    gripper = Gripper(hysteresis=0.1)
    last = None
    for opening in openings:
        sent = gripper.update(opening)
        assert sent != last or sent is None
        last = last if sent is None else sent
        assert last == opening or (abs(last - opening) < 0.1 and opening not in (0.0, 1.0))
