"""From gripper set-points to goals of a Franka Hand: one at a time, the newest wins, never the same one twice.

The hand takes about a second per goal and knows two: Move, which hangs on an object, and Grasp, which closes until it
holds something and succeeds if the width is within its tolerances (franka_gripper, `grasp`). Every goal that it is
given while another runs is accepted and runs too, so a goal is cancelled, and its end awaited, before the next is sent.

goals = GripperGoals(GripperConfig(homing=False), width_m=0.08)
goals.command(0.0, now_ns)        # (Send(Goal(1, Kind.GRASP, width_m=0.0, ...)),)
goals.command(1.0, now_ns)        # (Cancel(1),)  superseded
goals.finished(1, False, "preempted", now_ns)  # (Send(Goal(2, Kind.MOVE, width_m=0.08, ...)),)
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum

from e0_ros.config import check, setting

S = 1_000_000_000
SAME = 1e-6
CLOSING_M = 0.001
"""A set-point this much narrower than the fingers stand is a closing one."""
SLACK_M = 0.005
"""franka_gripper's own tolerance, on top of ours."""
HOLDING_M = 0.002
"""Fingers that stand this much wider than they were to close hold something."""


class Kind(Enum):
    """Goals by the names of franka_gripper's actions."""

    HOMING = "homing"
    MOVE = "move"
    GRASP = "grasp"


@dataclass(frozen=True)
class GripperConfig:
    """How the hand is driven, and how long it may take."""

    homing: bool = setting(True, "find the hand's width at start: it opens and closes once; drops what it holds")
    speed_m_s: float = setting(0.1, "speed of the fingers", unit="m/s", low=0.005, high=0.2)
    force_n: float = setting(40.0, "force of a grasp", unit="N", low=1.0, high=70.0)
    patience_s: float = setting(
        3.0, "a goal that takes longer is cancelled, but not before its way at that speed", unit="s", low=0.2, high=60.0
    )
    homing_s: float = setting(20.0, "the same for homing", unit="s", low=1.0, high=120.0)
    cancel_s: float = setting(2.0, "a cancelled goal that has not ended by then is a fault", unit="s", low=0.1, high=60)
    forget_s: float = setting(10.0, "and by then forgotten: its server was restarted", unit="s", low=0.1, high=600)

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True)
class Goal:
    """A goal: width between the fingers [m], and of a grasp the tolerances below and above it [m]."""

    number: int
    kind: Kind
    opening: float
    width_m: float
    inner_m: float
    outer_m: float


@dataclass(frozen=True)
class Send:
    """Send a goal."""

    goal: Goal


@dataclass(frozen=True)
class Cancel:
    """Cancel the goal of this number; its end is still to be reported by `finished`."""

    number: int


Act = Send | Cancel


@dataclass(frozen=True)
class GripperStatus:
    """What was commanded and what was achieved. Widths are NaN and the opening is NaN while there was none.

    `fault` is empty, or says what went wrong with the last goal or command, until the next goal succeeds.
    """

    phase: str
    commanded: float
    commanded_width_m: float
    achieved_width_m: float
    holding: bool
    sent: int
    superseded: int
    failed: int
    fault: str


class GripperGoals:
    """Decides which goal is sent when.

    Args:
        config: settings.
        width_m: width of the fully open hand, between the fingers [m].

    """

    def __init__(self, config: GripperConfig, width_m: float) -> None:
        self._config, self._max_m = config, width_m
        self._patience_s = max(config.patience_s, width_m / config.speed_m_s + 1.0)
        self._ready = False
        self._homing = config.homing
        self._wanted: float | None = None
        self._attempted: float | None = None
        self._flight: Goal | None = None
        self._since_ns = 0
        self._cancelling = self._replacing = False
        self._achieved_m = math.nan
        self._grasped: Goal | None = None
        self._sent = self._superseded = self._failed = 0
        self._fault = ""

    def ready(self, now_ns: int) -> tuple[Act, ...]:
        """The hand's actions are served, or again: begin, with homing unless it is switched off or was done."""
        self._ready = True
        return self._next(now_ns)

    def lost(self, now_ns: int) -> None:
        """The hand's actions are no longer served: what was in flight never ends, and homing that was begins anew."""
        goal, self._ready = self._flight, False
        if goal is not None:
            self.finished(goal.number, False, "franka_gripper went away meanwhile", now_ns)
            self._homing = goal.kind is Kind.HOMING

    def command(self, opening: float, now_ns: int) -> tuple[Act, ...]:
        """Take a set-point in [0, 1]; any other number is refused and reported."""
        if not 0.0 <= opening <= 1.0:  # refuses NaN too
            self._fault = f"a set-point of {opening}; allowed are 0 to 1"
            return ()
        self._wanted = opening
        flight = self._flight
        if flight is None:
            self._attempted = None if self._fault else self._attempted
            return self._next(now_ns)
        if flight.kind is Kind.HOMING or self._cancelling or abs(opening - flight.opening) < SAME:
            return ()
        self._superseded += 1
        self._replacing = True
        return self._cancel(now_ns)

    def measured(self, width_m: float) -> None:
        """Note the width between the fingers [m]; what is not finite is ignored."""
        if math.isfinite(width_m):
            self._achieved_m = width_m

    def finished(self, number: int, success: bool, error: str, now_ns: int) -> tuple[Act, ...]:
        """The goal of this number has ended, was cancelled or was rejected; what to do next."""
        goal = self._flight
        if goal is None or goal.number != number:
            return ()
        replacing = self._replacing
        self._flight, self._cancelling, self._replacing = None, False, False
        self._homing = self._homing and goal.kind is not Kind.HOMING
        self._grasped = goal if success and goal.kind is Kind.GRASP else None
        if success:
            self._fault = ""
        elif replacing:
            self._attempted = None
        else:
            self._failed += 1
            self._fault = f"{goal.kind.value} to {goal.width_m * 1e3:.0f} mm: {error or 'failed without a reason'}"
        return self._next(now_ns)

    def poll(self, now_ns: int) -> tuple[Act, ...]:
        """What to do as time passes: a goal that takes too long is cancelled; one that does not end is reported.

        At last it is forgotten: a server that was restarted never ends it.
        """
        goal = self._flight
        if goal is None:
            return ()
        waited_s = (now_ns - self._since_ns) / S
        if self._cancelling:
            if waited_s > self._config.forget_s:
                return self.finished(goal.number, False, f"forgotten {waited_s:.1f} s after it was cancelled", now_ns)
            if waited_s > self._config.cancel_s:
                self._fault = (
                    f"{goal.kind.value}: cancelled {waited_s:.1f} s ago and not ended; is franka_gripper alive?"
                )
            return ()
        limit_s = self._config.homing_s if goal.kind is Kind.HOMING else self._patience_s
        return self._cancel(now_ns) if waited_s > limit_s else ()

    def status(self) -> GripperStatus:
        """What was commanded, what was achieved, what is under way."""
        wanted = math.nan if self._wanted is None else self._wanted
        grasped = self._grasped
        phase = "waiting for the hand" if not self._ready else "idle"
        if self._flight is not None:
            phase = ("cancelling " if self._cancelling else "") + self._flight.kind.value
        return GripperStatus(
            phase=phase,
            commanded=wanted,
            commanded_width_m=wanted * self._max_m,
            achieved_width_m=self._achieved_m,
            holding=grasped is not None and self._achieved_m > grasped.width_m + HOLDING_M,
            sent=self._sent,
            superseded=self._superseded,
            failed=self._failed,
            fault=self._fault,
        )

    def _next(self, now_ns: int) -> tuple[Act, ...]:
        if not self._ready or self._flight is not None:
            return ()
        if self._homing:
            return self._send(Kind.HOMING, 1.0, now_ns)
        wanted = self._wanted
        if wanted is None or (self._attempted is not None and abs(wanted - self._attempted) < SAME):
            return ()
        kind = Kind.GRASP if self._closes(wanted) else Kind.MOVE
        self._attempted = wanted
        return self._send(kind, wanted, now_ns)

    def _closes(self, opening: float) -> bool:
        """Whether a set-point closes the fingers; with an unknown width all but fully open does."""
        if opening in (0.0, 1.0):
            return opening == 0.0
        fingers_m = self._max_m if math.isnan(self._achieved_m) else self._achieved_m
        return opening * self._max_m < fingers_m - CLOSING_M

    def _send(self, kind: Kind, opening: float, now_ns: int) -> tuple[Act, ...]:
        self._sent += 1
        width_m = opening * self._max_m
        inner_m, outer_m = width_m + SLACK_M, self._max_m - width_m + SLACK_M
        self._flight = Goal(self._sent, kind, opening, width_m, inner_m, outer_m)
        self._since_ns, self._grasped = now_ns, None
        return (Send(self._flight),)

    def _cancel(self, now_ns: int) -> tuple[Act, ...]:
        assert self._flight is not None
        self._cancelling, self._since_ns = True, now_ns
        return (Cancel(self._flight.number),)
