"""How one plan gives way to the next: four strategies behind one seam, chosen by the executor's `hand_over`.

| `hand_over` | the target from the hand-over on |
|---|---|
| `committed` | the new plan, joined where the reference is; what is off in velocity decays as one quintic |
| `blend` | from the old plan to the new one, linearly within `blend_ms` |
| `ensemble` | the mean of all plans that have a row for the time, weighted as ACT's temporal ensembling |
| `replace` | the new plan at once |

A policy that continues the plan in force (real-time chunking with committed rows) wants `committed`. Whatever the
target, the limiter makes the motion: a step in it is approached, never jumped.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from e0_policy.types import FloatArray
from e0_ros.core.command import State, TimeArray
from e0_ros.core.limiter import Target
from e0_ros.core.reference import HandOver, RowCurve

STRATEGIES = ("committed", "blend", "ensemble", "replace")
_CATCH_UP = 1.0  # share of the acceleration that a hand-over alone may use
_LOOK_NS, _LOOKS = 5_000_000, 40
_ENSEMBLE_DECAY = 0.01  # ACT's m: plan i, the oldest being 0, weighs exp(-m i)


class Strategy(Protocol):
    """Makes targets of plans, one hand-over after the other."""

    def join(self, curve: RowCurve, state: State, at_ns: int) -> Target:
        """What to follow from `at_ns` on, where the reference is in `state`."""

    def forget(self) -> None:
        """The plans before count no more."""


def strategy_named(name: str, blend_ns: int, velocity: FloatArray, acceleration: FloatArray) -> Strategy:
    """One of `STRATEGIES`; `velocity` and `acceleration` `(n,)` are what a blend may use."""
    if name == "committed":
        return Committed(blend_ns, velocity, acceleration)
    others: dict[str, Strategy] = {"blend": Blend(blend_ns), "ensemble": Ensemble(), "replace": Replace()}
    return others[name]


class Committed:
    """The new plan, by the gentler of two ways: joined where the reference is, or all of the difference decays.

    Joining is right where the plan's row of now is off, and wrong where the reference is: behind late rows it would
    have to leap to the next one within a period.
    """

    def __init__(self, blend_ns: int, velocity: FloatArray, acceleration: FloatArray) -> None:
        self._blend_ns, self._velocity, self._acceleration = blend_ns, velocity, _CATCH_UP * acceleration

    def join(self, curve: RowCurve, state: State, at_ns: int) -> HandOver:
        """C2 from the reference to the plan."""
        bounds = at_ns, self._blend_ns, self._velocity, self._acceleration
        ways = [HandOver(c, state, *bounds) for c in (curve.joined(state.position, at_ns), curve)]
        times = at_ns + _LOOK_NS * np.arange(_LOOKS)
        return min(ways, key=lambda way: np.abs(way(times).acceleration / self._acceleration).max())

    def forget(self) -> None:
        """Nothing is remembered."""


class Replace:
    """The new plan at once."""

    def join(self, curve: RowCurve, state: State, at_ns: int) -> Target:
        """The plan itself."""
        return curve

    def forget(self) -> None:
        """Nothing is remembered."""


@dataclass(frozen=True)
class Mixture:
    """`before` gives way to `curve`: its weight falls linearly from 1 at `at_ns` to 0 after `blend_ns`."""

    before: Target
    curve: RowCurve
    at_ns: int
    blend_ns: int

    def __call__(self, times_ns: TimeArray) -> State:
        """Target at times `(m,)`; the weight's own slope is part of the velocity."""
        left = np.clip(1.0 - (np.asarray(times_ns) - self.at_ns) / self.blend_ns, 0.0, 1.0)[:, None]
        old, new = self.before(times_ns), self.curve(times_ns)
        mixed = [left * a + (1.0 - left) * b for a, b in zip(old, new, strict=True)]
        slope = np.where((left > 0) & (left < 1), -1e9 / self.blend_ns, 0.0)
        mixed[1] = mixed[1] + slope * (old.position - new.position)
        return State(*mixed)

    def since(self, now_ns: int) -> Target:
        """The same from `now_ns` on, without what has ended."""
        if now_ns >= self.at_ns + self.blend_ns:
            return self.curve
        before = self.before.since(now_ns) if isinstance(self.before, Mixture) else self.before
        return Mixture(before, self.curve, self.at_ns, self.blend_ns)


class Blend:
    """Linear from the plan before, which rests at its end; the first plan is blended from where the arm is."""

    def __init__(self, blend_ns: int) -> None:
        self._blend_ns = blend_ns
        self._target: Target | None = None

    def join(self, curve: RowCurve, state: State, at_ns: int) -> Target:
        """A mixture of the old target and the plan."""
        before = self._target or RowCurve(state.position[None], at_ns, 1)
        before = before.since(at_ns) if isinstance(before, Mixture) else before
        self._target = Mixture(before, curve, at_ns, self._blend_ns)
        return self._target

    def forget(self) -> None:
        """The next plan is blended from where the arm is."""
        self._target = None


class Ensemble:
    """Mean over plans by time, weighted `exp(-m i)` from the oldest on (ACT: Zhao et al. 2023, arXiv 2304.13705)."""

    def __init__(self) -> None:
        self._curves: list[RowCurve] = []

    def join(self, curve: RowCurve, state: State, at_ns: int) -> Target:
        """The mean of the plans that go on, this one included."""
        self._curves = curves = [*(c for c in self._curves if c.end_ns > at_ns and c is not curve), curve]
        return lambda times_ns: _mean(curves, times_ns)

    def forget(self) -> None:
        """The next plan is alone."""
        self._curves = []


def _mean(curves: list[RowCurve], times_ns: TimeArray) -> State:
    """The newest plan counts at all times, the others where they have rows."""
    there = np.stack([(c.t0_ns <= times_ns) & (times_ns <= c.end_ns) for c in curves])
    there[-1] = True
    weights = np.exp(-_ENSEMBLE_DECAY * np.arange(len(curves)))[:, None] * there
    weights = (weights / weights.sum(axis=0))[..., None]
    states = [curve(times_ns) for curve in curves]
    return State(*((weights * np.stack(parts)).sum(axis=0) for parts in zip(*states, strict=True)))
