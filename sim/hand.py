"""The Franka Hand as franka_gripper drives it: what the fingers do for a goal, and when and how the goal ends.

Known of libfranka and franka_gripper (`gripper.cpp`, `gripper_action_server.cpp`): every goal is accepted at once and
has the fingers from then on; the one before is aborted. Homing closes and opens. Move goes to a width, with the
position held there, and neither arrives nor ends where something is in the way. Grasp closes until something stops the
fingers and goes on pressing; it failed if the width is not within its tolerances. A cancelled goal stops the fingers.
Not known, and so chosen: with nothing in the way a grasp closes to the end, and without its driver a motion stops.

hand = Hand(max_m=0.08)
hand.begin(1, Goal("grasp", 0.0, 0.1, inner_m=0.005, outer_m=0.085), width_m=0.08)
hand.advance(10 * MS, 0.08)      # (); hand.command_m is 0.079
hand.advance(600 * MS, 0.03)     # (); an object of 30 mm
hand.advance(100 * MS, 0.03)     # (Ended(1, True),); hand.command_m is 0.0
"""

from __future__ import annotations

from dataclasses import dataclass

S = 1_000_000_000
HOMING_M_S = 0.1
ARRIVED_M = 0.001
PRESSED_M = 0.001
"""Fingers that are commanded this much further than they stand press on something, if they stand still."""
STILL_M = 0.0001
STILL_NS = S // 10
DIED, BACK = "hand_died", "hand_back"
"""What /e0/sim/fault may ask for: franka_gripper ends with whatever it does, and is started again."""
FAILED, ABORTED = "libfranka gripper: Command failed!", "libfranka gripper: Command aborted!"


@dataclass(frozen=True)
class Goal:
    """`homing`, `move` or `grasp`: width [m], speed of the width [m/s], and of a grasp tolerances [m] and force [N]."""

    kind: str
    width_m: float = 0.0
    speed_m_s: float = HOMING_M_S
    inner_m: float = 0.0
    outer_m: float = 0.0
    force_n: float = 0.0

    def __str__(self) -> str:
        force = f", within -{self.inner_m:.3f} +{self.outer_m:.3f} m, {self.force_n:g} N" * (self.kind == "grasp")
        return self.kind if self.kind == "homing" else f"{self.kind} {self.width_m:.3f} m{force}"


@dataclass(frozen=True)
class Ended:
    """How a goal has ended; `error` is libfranka's."""

    number: int
    success: bool
    error: str = ""
    cancelled: bool = False


class Hand:
    """The fingers' command and the goal under way. Widths are between the fingers.

    Attributes:
        command_m: where the fingers are sent: the width that the plant's gripper is to have.

    """

    def __init__(self, max_m: float) -> None:
        self._max_m = self.command_m = self._still_m = max_m
        self._still_ns = 0
        self._goal: tuple[int, Goal] | None = None
        self._legs: list[float] = []
        self._ended: list[Ended] = []

    def begin(self, number: int, goal: Goal, width_m: float) -> None:
        """Take a goal with the fingers at this width."""
        if self._goal:
            self._end(False, ABORTED)
        self._goal = number, goal
        self.command_m = self._still_m = width_m
        self._still_ns = 0
        self._legs = [0.0, self._max_m] if goal.kind == "homing" else [goal.width_m if goal.kind == "move" else 0.0]
        if not 0.0 <= goal.width_m <= self._max_m or not goal.speed_m_s > 0.0:  # NaN fails both
            self._end(False, FAILED)

    def cancel(self, number: int) -> None:
        """Stop the fingers if that goal is under way."""
        if self._goal and self._goal[0] == number:
            self.command_m = self._still_m
            self._end(False, ABORTED, cancelled=True)

    def die(self) -> None:
        """Whoever drives the hand is gone: a motion stops, what is held stays held, and no goal ends."""
        if self._goal:
            self.command_m, self._goal = self._still_m, None
        self._ended.clear()

    def advance(self, past_ns: int, width_m: float) -> tuple[Ended, ...]:
        """The plant has gone on by `past_ns` and the fingers are at `width_m`; the goals that have ended."""
        moved = abs(width_m - self._still_m) > STILL_M
        self._still_m, self._still_ns = (width_m, 0) if moved else (self._still_m, self._still_ns + past_ns)
        if self._goal:
            self._follow(self._goal[1], past_ns / S, width_m)
        ended, self._ended = tuple(self._ended), []
        return ended

    def _follow(self, goal: Goal, past_s: float, width_m: float) -> None:
        step_m = goal.speed_m_s * past_s
        self.command_m += min(max(self._legs[0] - self.command_m, -step_m), step_m)
        presses = self.command_m < width_m - PRESSED_M and self._still_ns >= STILL_NS
        if abs(width_m - self._legs[0]) > ARRIVED_M and (goal.kind == "move" or not presses):
            return
        if len(self._legs) > 1:
            del self._legs[0]
            self.command_m = width_m
        elif goal.kind == "grasp":
            self.command_m = 0.0
            held = goal.width_m - goal.inner_m < width_m < goal.width_m + goal.outer_m
            self._end(held, "" if held else FAILED)
        else:
            self.command_m = self._legs[0]
            self._end(True)

    def _end(self, success: bool, error: str = "", cancelled: bool = False) -> None:
        assert self._goal is not None
        self._ended.append(Ended(self._goal[0], success, error, cancelled))
        self._goal = None
