"""Pacing physics to the wall clock: which ROS time the simulation should have reached."""

from __future__ import annotations

SLEW_NS = 100_000
SLACK_NS = 100_000_000
"""How far behind a simulation may be: it makes that up, and what is beyond it skips."""


class Pacer:
    """ROS time that runs with the steady clock from an anchor on, so that a stepped wall clock makes no jump.

    `overrun_ns` sums the time that was given up because the simulation was more than `slack_ns` behind, in whole steps
    of `step_ns`, as it is skipped.
    """

    def __init__(self, slack_ns: int, step_ns: int = 1) -> None:
        self._slack_ns, self._step_ns = slack_ns, step_ns
        self.anchor(0, 0)

    def anchor(self, ros_ns: int, steady_ns: int) -> None:
        """Tie the clocks together, at the start and after every reset."""
        self._offset_ns = ros_ns - steady_ns
        self.overrun_ns = 0

    def due_ns(self, steady_ns: int) -> int:
        """ROS time now."""
        return steady_ns + self._offset_ns

    def follow(self, ros_ns: int, steady_ns: int) -> None:
        """Correct the drift between the clocks by at most 0.1 ms; call it every control step."""
        drift_ns = ros_ns - self.due_ns(steady_ns)
        self._offset_ns += min(max(drift_ns, -SLEW_NS), SLEW_NS)

    def give_up(self, reached_ns: int, steady_ns: int) -> int:
        """Time to skip [ns], 0 while the simulation keeps up; it is added to the overrun."""
        behind_ns = self.due_ns(steady_ns) - reached_ns
        if behind_ns <= self._slack_ns:
            return 0
        skip_ns = behind_ns // self._step_ns * self._step_ns
        self.overrun_ns += skip_ns
        return skip_ns
