"""The target that a chunk means: a curve through its rows in time, and the hand-over to it.

Row i is reached at `t0 + i * period`. Times, never indices, decide what is in force: a row whose time has gone is
past, and after the last row the last row holds.
"""

from __future__ import annotations

import numpy as np

from e0_policy.types import FloatArray
from e0_ros.core.command import State, TimeArray


class RowCurve:
    """C2 curve through rows `(r, n)` at `t0_ns + i * period_ns`, at rest from the last one on.

    Quintic segments; the velocity at a row is the central difference, limited so that the curve does not overshoot
    between rows (van Leer's monotonised central limiter), the acceleration is the second difference.
    """

    def __init__(self, rows: FloatArray, t0_ns: int, period_ns: int) -> None:
        self._rows, self._t0_ns, self._period_ns = rows, t0_ns, period_ns
        self._h = period_ns * 1e-9
        velocity, acceleration = np.zeros_like(rows), np.zeros_like(rows)
        if len(rows) > 1:
            slope = np.diff(rows, axis=0) / self._h
            before, after = slope[:-1], slope[1:]
            steepest = np.minimum(np.minimum(np.abs(before), np.abs(after)) * 2, np.abs(before + after) / 2)
            velocity[1:-1] = np.where(before * after > 0, np.copysign(steepest, before), 0.0)
            acceleration[1:-1] = (after - before) / self._h
            velocity[0], acceleration[0] = slope[0], acceleration[1]
            if len(rows) > 2:
                extrapolated = 1.5 * slope[0] - 0.5 * slope[1]
                velocity[0] = np.where(extrapolated * slope[0] > 0, extrapolated, 0.0)
        self._polynomials = quintic(
            State(rows[:-1], velocity[:-1], acceleration[:-1]), State(rows[1:], velocity[1:], acceleration[1:]), self._h
        )

    def __call__(self, times_ns: TimeArray) -> State:
        """Target at times `(m,)`, each part `(m, n)`; before row 0 row 0 holds."""
        last = len(self._rows) - 1
        elapsed = np.asarray(times_ns) - self._t0_ns
        i = np.clip(elapsed // self._period_ns, 0, max(last - 1, 0))
        outside = (elapsed < 0) | (elapsed >= last * self._period_ns)
        if outside.all():
            rows = self._rows[np.where(elapsed < 0, 0, last)]
            return State(rows, np.zeros_like(rows), np.zeros_like(rows))
        state = evaluate(self._polynomials[:, i], ((elapsed - i * self._period_ns) * 1e-9)[:, None])
        hold = outside[:, None]
        held = self._rows[np.where(elapsed < 0, 0, last)]
        return State(
            np.where(hold, held, state.position),
            np.where(hold, 0.0, state.velocity),
            np.where(hold, 0.0, state.acceleration),
        )


class HandOver:
    """A curve reached without a step: at `start_ns` it is in `state`, from `start_ns + blend_ns` on it is the curve.

    The difference at the start decays as one quintic, which matches position, velocity and acceleration at both
    ends. So the result is C2, and a chain of hand-overs needs no memory of the chunks before.
    """

    def __init__(self, curve: RowCurve, state: State, start_ns: int, blend_ns: int) -> None:
        self._curve, self._start_ns, self._blend_ns = curve, start_ns, blend_ns
        now = curve(np.array([start_ns]))
        self.gap_rad: FloatArray = state.position - now.position[0]
        gap = State(*(a - b[0] for a, b in zip(state, now, strict=True)))
        nothing = np.zeros_like(gap.position)
        self._decay = quintic(gap, State(nothing, nothing, nothing), blend_ns * 1e-9)[:, None]

    def __call__(self, times_ns: TimeArray) -> State:
        """Target at times `(m,)`, each part `(m, n)`."""
        target = self._curve(times_ns)
        elapsed = np.maximum(times_ns - self._start_ns, 0)
        if elapsed[0] >= self._blend_ns:
            return target
        left = (elapsed < self._blend_ns)[:, None]
        gap = evaluate(self._decay, (np.minimum(elapsed, self._blend_ns) * 1e-9)[:, None])
        return State(*(a + np.where(left, b, 0.0) for a, b in zip(target, gap, strict=True)))


def quintic(start: State, end: State, duration_s: float) -> FloatArray:
    """Coefficients `(6, ...)`, constant first, of the quintic with these states at 0 and `duration_s`."""
    h = duration_s
    q, v, a = start.position, start.velocity, start.acceleration
    dq = end.position - (q + h * (v + h * a / 2))
    dv, da = (end.velocity - (v + h * a)) * h, (end.acceleration - a) * h**2
    c3, c4, c5 = 10 * dq - 4 * dv + da / 2, -15 * dq + 7 * dv - da, 6 * dq - 3 * dv + da / 2
    return np.stack((q, v, a / 2, c3 / h**3, c4 / h**4, c5 / h**5))


def evaluate(c: FloatArray, s: FloatArray) -> State:
    """State at `s` seconds of polynomials with coefficients `(6, ...)`."""
    return State(
        c[0] + s * (c[1] + s * (c[2] + s * (c[3] + s * (c[4] + s * c[5])))),
        c[1] + s * (2 * c[2] + s * (3 * c[3] + s * (4 * c[4] + s * 5 * c[5]))),
        2 * c[2] + s * (6 * c[3] + s * (12 * c[4] + s * 20 * c[5])),
    )
