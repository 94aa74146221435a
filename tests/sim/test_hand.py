"""The fingers of the Franka Hand, over a gripper that follows at 0.1 m/s and may have something in its way."""

from __future__ import annotations

import math

import pytest

from sim.hand import ABORTED, FAILED, Ended, Goal, Hand

MS = 1_000_000
WIDE = {"inner_m": 0.005, "outer_m": 0.085}


class Fingers:
    """The plant's: `object_m` wide is what lies between them."""

    def __init__(self, width_m: float = 0.08, object_m: float = 0.0) -> None:
        self.hand, self.width_m, self.object_m = Hand(0.08), width_m, object_m
        self.ended: list[Ended] = []

    def begin(self, number: int, kind: str, *goal: float, **tolerances: float) -> None:
        self.hand.begin(number, Goal(kind, *goal, **tolerances), self.width_m)

    def run(self, ms: int, step_ms: int = 4) -> tuple[Ended, ...]:
        """Let time pass; what has ended meanwhile."""
        ended: list[Ended] = []
        for _ in range(0, ms, step_ms):
            change = min(max(self.hand.command_m - self.width_m, -1e-4 * step_ms), 1e-4 * step_ms)
            self.width_m = max(self.width_m + change, min(self.object_m, self.width_m))
            ended += self.hand.advance(step_ms * MS, self.width_m)
        return tuple(ended)


@pytest.mark.parametrize("object_m", [0.0, 0.03])
def test_homing_closes_as_far_as_it_goes_and_opens(object_m: float) -> None:
    fingers = Fingers(0.05, object_m)
    fingers.begin(1, "homing")
    widths = []
    while not (ended := fingers.run(4)):
        widths.append(fingers.width_m)
    assert ended == (Ended(1, True),) and fingers.width_m > 0.0789
    assert min(widths) == pytest.approx(object_m, abs=1e-3) and 150 < len(widths) < 500


@pytest.mark.parametrize(("speed", "ms"), [(0.1, 400), (0.02, 2000)])
def test_a_move_takes_its_time_and_stays(speed: float, ms: int) -> None:
    fingers = Fingers()
    fingers.begin(1, "move", 0.04, speed)
    assert fingers.run(ms * 9 // 10) == ()
    assert fingers.run(ms // 5) == (Ended(1, True),)
    fingers.run(500)
    assert fingers.width_m == pytest.approx(0.04)


def test_a_move_onto_something_neither_arrives_nor_ends_until_it_is_cancelled() -> None:
    fingers = Fingers(object_m=0.03)
    fingers.begin(1, "move", 0.0, 0.1)
    assert fingers.run(20_000) == () and fingers.width_m == pytest.approx(0.03)
    fingers.hand.cancel(1)
    assert fingers.run(4) == (Ended(1, False, ABORTED, cancelled=True),)
    assert fingers.hand.command_m == pytest.approx(0.03, abs=2e-4), "it no longer presses"


@pytest.mark.parametrize(
    ("object_m", "width_m", "tolerances", "held"),
    [
        (0.03, 0.03, {"inner_m": 0.005, "outer_m": 0.005}, True),
        (0.03, 0.02, {"inner_m": 0.005, "outer_m": 0.005}, False),
        (0.03, 0.04, {"inner_m": 0.005, "outer_m": 0.005}, False),
        (0.03, 0.0, WIDE, True),
        (0.0, 0.0, WIDE, True),
        (0.0, 0.03, {"inner_m": 0.005, "outer_m": 0.005}, False),
    ],
)
def test_a_grasp_closes_on_what_is_there_and_its_tolerances_say_what_that_was(
    object_m: float, width_m: float, tolerances: dict[str, float], held: bool
) -> None:
    fingers = Fingers(object_m=object_m)
    fingers.begin(1, "grasp", width_m, 0.1, **tolerances)
    assert fingers.run(480) == ()
    assert fingers.run(500) == (Ended(1, held, "" if held else FAILED),)
    assert fingers.width_m == pytest.approx(object_m, abs=1e-3)
    assert fingers.hand.command_m == 0.0, "it goes on pressing"
    fingers.object_m = 0.01
    fingers.run(500)
    assert fingers.width_m == pytest.approx(min(object_m, 0.01), abs=1e-3), "and follows what yields"


def test_a_slow_grasp_is_not_taken_for_one_that_holds_something() -> None:
    fingers = Fingers(object_m=0.03)
    fingers.begin(1, "grasp", 0.0, 0.005, **WIDE)
    assert fingers.run(9_900) == ()
    assert fingers.run(1_000) == (Ended(1, True),)


def test_time_in_which_the_plant_stood_still_counts_for_nothing() -> None:
    hand = Hand(0.08)
    hand.begin(1, Goal("grasp", 0.0, 0.1, **WIDE), 0.08)
    for _ in range(1000):
        assert hand.advance(0, 0.08) == ()
    assert hand.command_m == 0.08


def test_every_goal_is_taken_and_ends_the_one_before() -> None:
    fingers = Fingers()
    fingers.begin(1, "grasp", 0.0, 0.1, **WIDE)
    fingers.run(200)
    fingers.begin(2, "move", 0.08, 0.1)
    fingers.hand.cancel(1)
    assert fingers.run(100) == (Ended(1, False, ABORTED),)
    assert fingers.run(200) == (Ended(2, True),)


@pytest.mark.parametrize(
    "goal", [("move", 0.09, 0.1), ("move", -0.01, 0.1), ("move", math.nan, 0.1), ("move", 0.04, 0.0)]
)
def test_what_no_hand_can_do_fails_and_moves_nothing(goal: tuple[str, float, float]) -> None:
    fingers = Fingers(0.05)
    fingers.begin(1, *goal)
    assert fingers.run(500) == (Ended(1, False, FAILED),) and fingers.width_m == 0.05


def test_without_its_driver_a_motion_stops_and_what_is_held_stays_held() -> None:
    fingers = Fingers(object_m=0.03)
    fingers.begin(1, "grasp", 0.0, 0.1, **WIDE)
    fingers.run(200)
    fingers.hand.die()
    assert fingers.run(1000) == () and fingers.width_m == pytest.approx(0.06, abs=1e-3)
    fingers.begin(2, "grasp", 0.0, 0.1, **WIDE)
    assert fingers.run(1000) == (Ended(2, True),)
    fingers.hand.die()
    assert fingers.hand.command_m == 0.0
