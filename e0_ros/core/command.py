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


class Followed(NamedTuple):
    """What a command follows, under which limits, up to its knot at `until_ns`."""

    target: Any
    limits: Any
    until_ns: int


@dataclass(frozen=True)
class Command:
    """Knots `(k,)` in strictly increasing time, states `(k, n)`; before them the first holds, after them the last.

    The last knot is at rest (velocity and acceleration 0), so that an arm that hears nothing more stops by itself.
    `followed` is for the planner of the next command, which need not follow the same target twice.
    """

    times_ns: TimeArray
    state: State
    followed: Followed | None = None

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

    @cached_property
    def _jerk(self) -> FloatArray:
        """Jerk from each knot on `(k, n)` [rad/s^3]."""
        return np.append(self.jerk, np.zeros_like(self.state.position[:1]), axis=0)

    def sample(self, time_ns: Any) -> State:
        """State at a time, or at times `(m,)` as `(m, n)`."""
        i, s = self._since_knot(time_ns)
        position, velocity, acceleration = (part[i] for part in self.state)
        pull = self._jerk[i] * s
        moved, speed = pull / 6, pull / 2
        moved += acceleration / 2
        moved *= s
        moved += velocity
        moved *= s
        moved += position
        speed += acceleration
        speed *= s
        speed += velocity
        pull += acceleration
        return State(moved, speed, pull)

    def positions(self, times_ns: TimeArray) -> FloatArray:
        """Positions at times `(m,)`, `(m, n)`: `sample` for those who need no more."""
        i, s = self._since_knot(times_ns)
        position, velocity, acceleration = self.state
        moved: FloatArray = (self._jerk / 6)[i] * s
        moved += acceleration[i] / 2
        moved *= s
        moved += velocity[i]
        moved *= s
        moved += position[i]
        return moved

    def _since_knot(self, time_ns: Any) -> tuple[Any, Any]:
        """Index of the knot in force at a time and the seconds since; of times `(m,)`, `(m,)` and `(m, 1)`."""
        knots = self.times_ns
        if isinstance(time_ns, int):
            i = max(int(knots.searchsorted(time_ns, side="right")) - 1, 0)
            begin_ns = int(knots[i])
            return i, (max(time_ns, begin_ns) - begin_ns) * 1e-9 if i < len(knots) - 1 else 0.0
        i = np.maximum(knots.searchsorted(time_ns, side="right") - 1, 0)
        inside = np.minimum(np.maximum(time_ns, knots[0]), knots[-1])
        return i, ((inside - knots[i]) * 1e-9)[..., None]

    def since(self, start_ns: int) -> Command:
        """The same motion, told from `start_ns` on."""
        later = int(self.times_ns.searchsorted(start_ns, side="right"))
        if later == len(self.times_ns):
            return Command.rest(self.state.position[-1], start_ns)
        first = self.sample(start_ns)
        states = (np.concatenate((f[None], k[later:])) for f, k in zip(first, self.state, strict=True))
        return Command(np.concatenate(([start_ns], self.times_ns[later:])), State(*states))

    def then(self, other: Command) -> Command:
        """Go on as now up to the other's first knot, then as the other."""
        before = int(self.times_ns.searchsorted(other.times_ns[0]))
        states = (np.concatenate((a[:before], b)) for a, b in zip(self.state, other.state, strict=True))
        return Command(np.concatenate((self.times_ns[:before], other.times_ns)), State(*states), other.followed)

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
