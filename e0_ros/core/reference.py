"""The target that a chunk means: a curve through its rows in time, and the hand-over to it.

Row i is reached at `t0 + i * period`. Times, never indices, decide what is in force: a row whose time has gone is
past, and after the last row the last row holds, or the motion slows down to rest.
"""

from __future__ import annotations

from copy import copy

import numpy as np

from e0_policy.types import FloatArray
from e0_ros.core.command import State, TimeArray

_STRETCH = 2.0 ** np.arange(0, 4.5, 0.25)
_PROBES = np.linspace(0.1, 0.9, 9)
_SAME_RAD, _SAME_RAD_S = 2e-3, 0.1


class RowCurve:
    """C2 curve through rows `(r, n)` at `t0_ns + i * period_ns`, at rest from the last one on.

    Quintic segments through the rows with central differences for velocity and acceleration. Both are limited as
    van Leer's monotonised central scheme does, so that a corner between rows is not overshot; on smooth rows the
    limits do nothing. With `slow_down_ns` the last row is passed at its own speed, which ends within that time: a plan
    that breaks off in the middle of a motion is no reason to stop within its last period.
    """

    def __init__(self, rows: FloatArray, t0_ns: int, period_ns: int, slow_down_ns: int = 0) -> None:
        self._rows, self._t0_ns, self._period_ns, self._slow_down_ns = rows, t0_ns, period_ns, slow_down_ns
        self._h, slow_s = period_ns * 1e-9, slow_down_ns * 1e-9
        velocity, acceleration = _derivatives(rows, self._h)
        if slow_down_ns and len(rows) > 2:
            velocity[-1] = _last_velocity(rows, self._h)
        self._rest = rows[-1] + velocity[-1] * slow_s / 2
        still = np.zeros_like(self._rest)
        tail = quintic(State(rows[-1], velocity[-1], still), State(self._rest, still, still), max(slow_s, 1e-9))
        between = quintic(
            State(rows[:-1], velocity[:-1], acceleration[:-1]), State(rows[1:], velocity[1:], acceleration[1:]), self._h
        )
        self._polynomials = np.concatenate((between, tail[:, None]), axis=1)

    @property
    def t0_ns(self) -> int:
        """Time of row 0."""
        return self._t0_ns

    @property
    def end_ns(self) -> int:
        """Time of the last row."""
        return self._t0_ns + (len(self._rows) - 1) * self._period_ns

    def joined(self, position: FloatArray, at_ns: int) -> RowCurve:
        """The curve from where the reference is at `at_ns`: rows whose time has come are no targets any more.

        They are moved by what the curve is off there; rows still to come stay. The curve itself where it has not begun
        or is at its end.
        """
        past = (at_ns - self._t0_ns) // self._period_ns
        if not 0 <= past < len(self._rows) - 1:
            return self
        rows = self._rows.copy()
        rows[: past + 1] += position - self(np.array([at_ns])).position[0]
        return RowCurve(rows, self._t0_ns, self._period_ns, self._slow_down_ns)

    def __call__(self, times_ns: TimeArray) -> State:
        """Target at times `(m,)`, each part `(m, n)`; before row 0 row 0 holds."""
        last = len(self._rows) - 1
        elapsed = np.asarray(times_ns) - self._t0_ns
        i = np.minimum(np.maximum(elapsed // self._period_ns, 0), last)
        outside = (elapsed < 0) | (elapsed >= last * self._period_ns + self._slow_down_ns)
        state = evaluate(self._polynomials[:, i], ((elapsed - i * self._period_ns) * 1e-9)[:, None])
        if outside.any():
            state.position[outside] = np.where((elapsed < 0)[:, None], self._rows[0], self._rest)[outside]
            state.velocity[outside] = state.acceleration[outside] = 0.0
        return state


def _last_velocity(rows: FloatArray, h: float) -> FloatArray:
    """Speed at the last of three or more rows, as the rows before have it, and not more than they had last."""
    slope = np.diff(rows[-3:], axis=0) / h
    ahead = 1.5 * slope[1] - 0.5 * slope[0]
    speed = np.minimum(np.abs(ahead), np.abs(slope[1]))
    velocity: FloatArray = np.where(ahead * slope[1] > 0, np.copysign(speed, slope[1]), 0.0)
    return velocity


def _derivatives(rows: FloatArray, h: float) -> tuple[FloatArray, FloatArray]:
    velocity, acceleration = np.zeros_like(rows), np.zeros_like(rows)
    if len(rows) < 3:
        velocity[:-1] = np.diff(rows, axis=0) / h
        return velocity, acceleration
    slope = np.diff(rows, axis=0) / h
    before, after = slope[:-1], slope[1:]
    velocity[1:-1] = _limited((before + after) / 2, before, after)
    extrapolated = 1.5 * slope[0] - 0.5 * slope[1]
    velocity[0] = np.where(extrapolated * slope[0] > 0, extrapolated, 0.0)
    bend = (after - before) / h
    bends = np.concatenate((bend[:1], bend, bend[-1:]))
    acceleration[1:-1] = _limited(bend, bends[:-2], bends[2:])
    acceleration[0] = acceleration[1]
    return velocity, acceleration


def _limited(central: FloatArray, before: FloatArray, after: FloatArray) -> FloatArray:
    """`central`, at most twice either neighbour's; 0 where the neighbours differ in sign."""
    size = np.minimum(np.abs(central), 2 * np.minimum(np.abs(before), np.abs(after)))
    limited: FloatArray = np.where(before * after > 0, np.copysign(size, central), 0.0)
    return limited


class HandOver:
    """A curve reached without a step: at `start_ns` it is in `state`, after the blend it is the curve.

    The difference at the start decays as one quintic, which matches position, velocity and acceleration at both
    ends. So the result is C2, and a chain of hand-overs needs no memory of the chunks before. The blend lasts
    `blend_ns`, or longer by the first of `_STRETCH` with which the decay itself keeps to `velocity` and
    `acceleration` `(n,)`: a far target is approached, not overshot.

    `along` goes on with another curve, as a hand's next reading does: the blend that has begun goes on too. A new one
    for each of 100 readings a second would never end, and the reference would run away; so would a new one for each of
    many short plans, between which the reference follows how each slows down at its end.
    """

    def __init__(
        self,
        curve: RowCurve,
        state: State,
        start_ns: int,
        blend_ns: int,
        velocity: FloatArray,
        acceleration: FloatArray,
    ) -> None:
        self.curve, self._start_ns = curve, start_ns
        now = curve(np.array([start_ns]))
        gap = State(*(a - b[0] for a, b in zip(state, now, strict=True)))
        nothing = np.zeros_like(gap.position)
        rest = State(nothing, nothing, nothing)
        durations = (blend_ns * 1e-9 * _STRETCH)[:, None]
        decays = quintic(gap, rest, durations)
        fastest, hardest = _slopes(decays, durations * _PROBES[:, None, None])
        allowed = np.maximum(acceleration, np.abs(gap.acceleration))
        fine = (np.abs(fastest) <= velocity) & (np.abs(hardest) <= allowed)
        feasible = fine.all(axis=(0, 2))
        choice = int(feasible.argmax()) if feasible.any() else len(_STRETCH) - 1
        self.blend_ns = int(blend_ns * _STRETCH[choice])
        self._decay = decays[:, choice, None]

    def along(self, curve: RowCurve) -> HandOver:
        """The same decay, to another curve."""
        other = copy(self)
        other.curve = curve
        return other

    def told_anew_by(self, curve: RowCurve, at_ns: int) -> bool:
        """Whether a curve is the one followed, told again while the difference still decays at `at_ns`."""
        common = np.array([min(at_ns, self.curve.end_ns)])
        if common[0] < curve.t0_ns or at_ns >= self._start_ns + self.blend_ns:
            return False
        old, new = self.curve(common), curve(common)
        near = np.abs(new.position - old.position) <= _SAME_RAD
        return bool((near & (np.abs(new.velocity - old.velocity) <= _SAME_RAD_S)).all())

    def __call__(self, times_ns: TimeArray) -> State:
        """Target at times `(m,)`, each part `(m, n)`."""
        target = self.curve(times_ns)
        elapsed = np.maximum(times_ns - self._start_ns, 0)
        if elapsed[0] >= self.blend_ns:
            return target
        left = (elapsed < self.blend_ns)[:, None]
        gap = evaluate(self._decay, (np.minimum(elapsed, self.blend_ns) * 1e-9)[:, None])
        return State(*(a + np.where(left, b, 0.0) for a, b in zip(target, gap, strict=True)))


def quintic(start: State, end: State, duration_s: float | FloatArray) -> FloatArray:
    """Coefficients `(6, ...)`, constant first, of the quintic with these states at 0 and `duration_s`, or at each."""
    h = duration_s
    q, v, a = start.position, start.velocity, start.acceleration
    dq = end.position - (q + h * (v + h * a / 2))
    dv, da = (end.velocity - (v + h * a)) * h, (end.acceleration - a) * h**2
    c3, c4, c5 = 10 * dq - 4 * dv + da / 2, -15 * dq + 7 * dv - da, 6 * dq - 3 * dv + da / 2
    coefficients = np.empty((6, *c3.shape))
    for row, coefficient in zip(coefficients, (q, v, a / 2, c3 / h**3, c4 / h**4, c5 / h**5), strict=True):
        row[...] = coefficient
    return coefficients


def evaluate(c: FloatArray, s: FloatArray) -> State:
    """State at `s` seconds of polynomials with coefficients `(6, ...)`."""
    return State(c[0] + s * (c[1] + s * (c[2] + s * (c[3] + s * (c[4] + s * c[5])))), *_slopes(c, s))


def _slopes(c: FloatArray, s: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Velocity and acceleration of the same."""
    return (
        c[1] + s * (2 * c[2] + s * (3 * c[3] + s * (4 * c[4] + s * 5 * c[5]))),
        2 * c[2] + s * (6 * c[3] + s * (12 * c[4] + s * 20 * c[5])),
    )
