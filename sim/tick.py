"""When is a lock-step tick complete? Counts answers, whatever the order in which topics deliver them."""

from __future__ import annotations


class TickGate:
    """Waits for the executor's answer to one tick: its state, and the command that the state counts.

    With a trajectory output the state's `commands` tells how many trajectories have been sent. Only differences are
    used, from the last complete tick on, so it does not matter who started first: for the first tick, and after a
    restart of the executor, one trajectory is awaited unless the executor is disarmed. An impedance output never
    pauses and stamps its target with the tick.
    """

    def __init__(self, impedance: bool) -> None:
        self._impedance = impedance
        self._received = 0
        self._base: tuple[int, int] | None = None
        self.waiting = False

    def open(self, stamp_ns: int) -> None:
        """Begin to wait for the answer to the tick at `stamp_ns`."""
        self.waiting, self._stamp_ns = True, stamp_ns
        self._at_open = self._received
        self._state: tuple[int, bool] | None = None
        self._targeted = False

    def close(self) -> None:
        """Give up: what comes late belongs to no tick, and counting starts anew."""
        self.waiting, self._base = False, None

    def trajectory(self) -> None:
        """A trajectory arrived."""
        self._received += 1

    def target(self, stamp_ns: int) -> None:
        """An impedance target arrived."""
        self._targeted |= self.waiting and stamp_ns == self._stamp_ns

    def state(self, stamp_ns: int, commands: int, disarmed: bool) -> bool:
        """An executor state arrived; says whether it is this tick's."""
        if not self.waiting or stamp_ns != self._stamp_ns:
            return False
        self._state = commands, disarmed
        return True

    def missing(self) -> str:
        """What the tick still waits for, in words; empty: it is complete, and the gate is closed for it."""
        if self._state is None:
            return "the executor's state"
        if self._impedance:
            missing = "" if self._targeted else "the impedance target"
        else:
            first, needed = self._needed(*self._state)
            have = self._received - first
            missing = "" if have >= needed else f"{needed - have} of {needed} trajectories"
            self._base = self._base if missing else (self._state[0], first + needed)
        self.waiting = bool(missing)
        return missing

    def _needed(self, commands: int, disarmed: bool) -> tuple[int, int]:
        if self._base is not None and commands >= self._base[0]:
            return self._base[1], commands - self._base[0]
        return self._at_open, 0 if disarmed else 1
