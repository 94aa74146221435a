"""A command to the arm: knots of position, velocity and acceleration that end at rest.

Between two knots the jerk is constant. A quintic through both ends of such a segment is that same cubic, so a
controller with quintic splines (joint_trajectory_controller) reproduces the command exactly, wherever it samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from e0_policy.types import FloatArray

TimeArray = NDArray[np.int64]
_REST_NS = 200_000_000


class State(NamedTuple):
    """Position [rad], velocity [rad/s] and acceleration [rad/s^2], each `(..., n)`."""

    position: FloatArray
    velocity: FloatArray
    acceleration: FloatArray


@dataclass(frozen=True)
class Command:
    """Knots `(k,)` in strictly increasing time, states `(k, n)`; before them the first holds, after them the last.

    The last knot is at rest (velocity and acceleration 0), so that an arm that hears nothing more stops by itself.
    """

    times_ns: TimeArray
    state: State

    @classmethod
    def rest(cls, position: FloatArray, start_ns: int) -> Command:
        """A command that stays at `position` `(n,)`."""
        still = np.zeros((2, position.shape[0]))
        return cls(np.array([start_ns, start_ns + _REST_NS]), State(np.tile(position, (2, 1)), still, still))

    @property
    def start_ns(self) -> int:
        """Time of the first knot."""
        return int(self.times_ns[0])

    @property
    def end_ns(self) -> int:
        """Time from which the command rests."""
        return int(self.times_ns[-1])

    @cached_property
    def jerk(self) -> FloatArray:
        """Jerk of each segment `(k - 1, n)` [rad/s^3]."""
        jerk: FloatArray = np.diff(self.state.acceleration, axis=0) / (np.diff(self.times_ns) * 1e-9)[:, None]
        return jerk

    def sample(self, time_ns: Any) -> State:
        """State at a time, or at times `(m,)` as `(m, n)`."""
        knots, state = self.times_ns, self.state
        i = np.clip(np.searchsorted(knots, time_ns, side="right") - 1, 0, len(knots) - 1)
        n = np.minimum(i + 1, len(knots) - 1)
        s = (np.clip(time_ns, knots[0], knots[-1]) - knots[i])[..., None] * 1e-9
        span = np.maximum(knots[n] - knots[i], 1)[..., None] * 1e-9
        velocity, acceleration = state.velocity[i], state.acceleration[i]
        jerk = (state.acceleration[n] - acceleration) / span
        moved = s * (velocity + s * (acceleration / 2 + s * jerk / 6))
        return State(state.position[i] + moved, velocity + s * (acceleration + s * jerk / 2), acceleration + s * jerk)

    def positions(self, times_ns: TimeArray) -> FloatArray:
        """Positions at times `(m,)`, `(m, n)`: `sample` for those who need no more."""
        knots, (position, velocity, acceleration) = self.times_ns, self.state
        i = np.clip(np.searchsorted(knots, times_ns, side="right") - 1, 0, len(knots) - 1)
        s = (np.clip(times_ns, knots[0], knots[-1]) - knots[i])[:, None] * 1e-9
        moved: FloatArray = np.append(self.jerk / 6, np.zeros_like(position[:1]), axis=0)[i] * s
        moved += acceleration[i] / 2
        moved *= s
        moved += velocity[i]
        moved *= s
        moved += position[i]
        return moved

    def since(self, start_ns: int) -> Command:
        """The same motion, told from `start_ns` on."""
        later = self.times_ns > start_ns
        if not later.any():
            return Command.rest(self.state.position[-1], start_ns)
        first = self.sample(start_ns)
        states = (np.concatenate((f[None], k[later])) for f, k in zip(first, self.state, strict=True))
        return Command(np.concatenate(([start_ns], self.times_ns[later])), State(*states))

    def then(self, other: Command) -> Command:
        """Go on as now up to the other's first knot, then as the other."""
        before = self.times_ns < other.start_ns
        states = (np.concatenate((a[before], b)) for a, b in zip(self.state, other.state, strict=True))
        return Command(np.concatenate((self.times_ns[before], other.times_ns)), State(*states))

    def lasting(self, end_ns: int) -> Command:
        """The same motion, told until `end_ns` at least (a controller rejects a trajectory that is over)."""
        if self.end_ns >= end_ns:
            return self
        states = (np.concatenate((part, part[-1:])) for part in self.state)
        return Command(np.append(self.times_ns, end_ns), State(*states))

    def of(self, joints: NDArray[Any]) -> Command:
        """The motion of some joints, by a mask or indices."""
        return Command(self.times_ns, State(*(part[:, joints] for part in self.state)))

    @classmethod
    def together(cls, parts: Sequence[tuple[NDArray[np.intp], Command]]) -> Command:
        """Motions of different joints, which start at one time, as one: the indices of each one's joints, and it."""
        times = np.unique(np.concatenate([motion.times_ns for _, motion in parts]))
        state = State(*(np.empty((len(times), sum(len(joints) for joints, _ in parts))) for _ in range(3)))
        for joints, motion in parts:
            for whole, own in zip(state, motion.sample(times), strict=True):
                whole[:, joints] = own
        return cls(times, state)

    def at_rest(self, time_ns: int) -> bool:
        """Whether the arm is to stand still from `time_ns` on."""
        return time_ns >= self.end_ns or not any(np.any(part) for part in self.since(time_ns).state[1:])
