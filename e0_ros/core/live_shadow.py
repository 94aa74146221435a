"""A policy in the shadow of whoever moves the arm, live: its plans beside what was done, as time passes.

shadow = LiveShadow(arm)
shadow.plan(chunk)                        # what it would have done from the observation's time on
shadow.done(stamp_ns, state)              # where the arm then was, at every observation
shadow.errors()                           # of the plans whose time is over: as of `shadow.Shadow`, or None
"""

from __future__ import annotations

from collections import deque

import numpy as np
from numpy.typing import NDArray

from e0_policy.embodiment import Embodiment
from e0_policy.types import ActionChunk, FloatArray, Representation
from e0_ros.core.shadow import Errors, Shadow

PLANS = 60
STATES = 4000
GAP_NS = 300_000_000
"""Where no state came for longer, nothing is known of what was done."""


class LiveShadow:
    """The newest plans and what was done in their time. Times are ROS time in ns."""

    def __init__(self, arm: Embodiment) -> None:
        self._arm = arm
        self._plans: deque[ActionChunk] = deque(maxlen=PLANS)
        self._states: deque[tuple[int, FloatArray]] = deque(maxlen=STATES)

    def plan(self, chunk: ActionChunk) -> None:
        """Take a plan; one of another kind than joint positions is not compared."""
        if chunk.representation is Representation.JOINT_POSITION:
            self._plans.append(chunk)

    def done(self, stamp_ns: int, state: FloatArray) -> None:
        """Take where the arm was: `(joints + 1,)` rad and opening, else nothing. An older time begins anew."""
        if len(state) != self._arm.joints + 1:
            return
        if self._states and stamp_ns <= self._states[-1][0]:
            self.forget()
        self._states.append((stamp_ns, state))
        while self._plans and len(self._states) > 1 and self._states[1][0] <= self._plans[0].t0_ns:
            self._states.popleft()  # no plan that is kept is as old

    def forget(self) -> None:
        """Begin anew: an episode, or a clock that went back."""
        self._plans.clear()
        self._states.clear()

    def shadow(self) -> Shadow | None:
        """The plans whose time is over beside what was done; None while there is none."""
        if len(self._states) < 2:
            return None
        stamps = np.array([t for t, _ in self._states], np.int64)
        states = np.array([s for _, s in self._states])
        over = [p for p in self._plans if stamps[0] <= p.t0_ns and p.end_ns <= stamps[-1]]
        if not over:
            return None
        period_ns, rows = over[-1].period_ns, len(over[-1].rows)
        alike = [p for p in over if p.period_ns == period_ns and len(p.rows) == rows]
        times = np.array([p.t0_ns for p in alike])[:, None] + period_ns * np.arange(rows)
        done = _at(times.ravel(), stamps, states).reshape(len(alike), rows, -1)
        return Shadow(
            self._arm.joint_names, period_ns, tuple(p.t0_ns for p in alike),
            done[:, 0], np.array([p.rows for p in alike]), done,
        )  # fmt: skip

    def errors(self) -> Errors | None:
        """The open-loop error of the newest plans; None while there is none."""
        shadow = self.shadow()
        return None if shadow is None or not np.isfinite(shadow.recorded).any() else shadow.errors()


def _at(times_ns: NDArray[np.int64], stamps_ns: NDArray[np.int64], states: FloatArray) -> FloatArray:
    """States between samples; NaN where none is near."""
    start = stamps_ns[0]
    t, known = (times_ns - start) / 1e9, (stamps_ns - start) / 1e9
    found = np.stack([np.interp(t, known, column) for column in states.T], axis=1)
    after = np.clip(np.searchsorted(stamps_ns, times_ns), 1, len(stamps_ns) - 1)
    apart = stamps_ns[after] - stamps_ns[after - 1] > GAP_NS
    found[apart & ~np.isin(times_ns, stamps_ns)] = np.nan
    return found


def said(errors: Errors) -> dict[str, object]:
    """Figures for a report: half a second ahead, or at the end of shorter plans."""
    i = int(np.argmin(np.abs(errors.ahead_ms - 500.0)))
    return {
        "shadow plans": int(errors.plans[i]),
        "shadow ahead [ms]": float(errors.ahead_ms[i]),
        "shadow error [rad]": float(errors.mean_rad[i]),
        "shadow staying put [rad]": float(errors.still_rad[i]),
        "shadow gripper": float(errors.opening[i]),
    }
