"""Legal motion: every command made here obeys an arm's limits up to and including its braking to rest.

`plan` follows a target by a per-joint tracking law under acceleration and jerk limits (`track`), brakes from its end
(`brake`), and then checks the whole against the embodiment's own limits (`legal`). A joint that fails gets a shorter
span, and at last keeps the motion that it was already told to make, which was checked when it was made. So a command
is legal by induction, whatever the target.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from e0_policy.embodiment import Embodiment
from e0_policy.types import FloatArray
from e0_ros.core.command import Command, Followed, State, TimeArray

STEP_NS = 5_000_000
_GRID_NS = 1_000_000  # braking phases last whole milliseconds
_CHECK_NS = 4_000_000
_GAIN_POSITION = 25.0  # 1/s, slowest mode of the tracking law
_GAIN_VELOCITY = 60.0  # 1/s
_MARGIN_RAD = 2e-3
_APPROACH = 0.6  # share of the acceleration that catching up with a moving target may use
_BRAKING = 0.8  # share of the acceleration that the speed cap before a position limit counts on

Target = Callable[[TimeArray], State]


@dataclass(frozen=True)
class Limits:
    """What planning aims at (inside the embodiment's limits) and the embodiment itself. Vectors are `(n,)`.

    The speed cap at distance `x` from a position bound is `sqrt(offset^2 + 2 * braking * x) - offset`. With
    `braking <= envelope_gain / 2` and `offset >= envelope_offset` it lies inside Franka's position-dependent
    envelope, and with `braking` below the acceleration limit the arm can always brake along it (the envelope of the
    FR3's joints 5 and 7 alone asks for 17 rad/s^2 where 10 are allowed).
    """

    embodiment: Embodiment
    lower: FloatArray
    upper: FloatArray
    velocity: FloatArray
    acceleration: FloatArray
    jerk: FloatArray
    braking: FloatArray
    offset: FloatArray

    @classmethod
    def of(cls, embodiment: Embodiment, velocity_scale: float, acceleration_scale: float, jerk_scale: float) -> Limits:
        """Planning limits as shares of the embodiment's."""
        acceleration = embodiment.acceleration * acceleration_scale
        braking = np.minimum(_BRAKING * acceleration, 0.475 * embodiment.envelope_gain)
        still = embodiment.envelope_offset**2 / embodiment.envelope_gain
        return cls(
            embodiment=embodiment,
            lower=np.maximum(embodiment.position_lower, embodiment.envelope_lower + still) + _MARGIN_RAD,
            upper=np.minimum(embodiment.position_upper, embodiment.envelope_upper - still) - _MARGIN_RAD,
            velocity=embodiment.velocity * velocity_scale,
            acceleration=acceleration,
            jerk=embodiment.jerk * jerk_scale,
            braking=braking,
            offset=np.maximum(embodiment.envelope_offset, braking / _GAIN_POSITION),
        )

    @cached_property
    def pull(self) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
        """For `track`, each `(3, n)`: acceleration of each pull, speed that softens it, that squared, its largest."""
        approach = _APPROACH * self.acceleration
        soft = np.stack((approach / _GAIN_POSITION, self.offset, self.offset))
        top = _GAIN_VELOCITY * np.stack((np.full_like(self.velocity, np.inf), self.velocity, self.velocity))
        return np.stack((approach, self.braking, self.braking)), soft, soft**2, top

    def part(self, joints: NDArray[np.intp]) -> Limits:
        """The limits of some joints."""
        arm = self.embodiment
        vectors = {f.name: getattr(arm, f.name)[joints] for f in fields(arm) if f.type == "FloatArray"}
        names = tuple(arm.joint_names[joint] for joint in joints)
        own = {f.name: getattr(self, f.name)[joints] for f in fields(self) if f.type == "FloatArray"}
        return replace(self, embodiment=replace(arm, joint_names=names, **vectors), **own)


def track(limits: Limits, start: State, target: State) -> State:
    """Follow a target `(steps + 1, n)`, one knot per `STEP_NS`, from a state `(n,)`; returns `(steps + 1, n)`.

    Backstepping with the target's own velocity and acceleration fed forward: a target that the limits allow is
    followed without lag, an error decays without overshoot. Speed caps are barriers on the acceleration:
    `a <= d(cap)/dt + gain * (cap - v)` keeps `v` below the cap. The target and both bounds pull by the same law, so
    that they are three rows of one array `(3, n)`: to the target, away from the upper bound, away from the lower one.
    """
    dt, (knots, joints) = STEP_NS * 1e-9, target.position.shape
    states = np.empty((knots, 4, joints))  # position, velocity, acceleration, and the acceleration of the next knot
    states[0, :3] = start
    step = np.array([[1.0, dt, dt * dt / 3, dt * dt / 6], [0.0, 1.0, dt / 2, dt / 2], [0.0, 0.0, 0.0, 1.0]])
    side, floor = np.array([[-1.0], [-1.0], [1.0]]), np.array([[-np.inf], [0.0], [0.0]])
    aim, flow = np.zeros((2, knots, 3, joints))
    aim[:, 0], aim[:, 1], aim[:, 2], flow[:, 0] = target.position, limits.upper, -limits.lower, target.velocity
    strength, soft, soft2, top = limits.pull
    double, most, least = 2 * strength, limits.acceleration, -limits.acceleration
    slew = np.stack((-limits.jerk, limits.jerk)) * dt
    error, rate, root, pull = np.empty((4, 3, joints))
    (to_target, up, down), reach = pull, np.empty((2, joints))
    lowest, highest = reach
    for k in range(knots - 1):
        q, v, a, wanted = now = states[k]
        np.maximum(np.add(np.multiply(side, q, out=error), aim[k], out=error), floor, out=error)
        np.sqrt(np.add(np.multiply(np.abs(error, out=root), double, out=root), soft2, out=root), out=root)
        np.add(np.multiply(side, v, out=rate), flow[k], out=rate)
        np.copysign(np.subtract(root, soft, out=pull), error, out=pull)
        pull *= _GAIN_VELOCITY
        pull += np.multiply(np.divide(strength, root, out=root), rate, out=root)
        np.minimum(pull, top, out=pull)
        pull += np.multiply(rate, _GAIN_VELOCITY, out=rate)
        np.minimum(np.add(to_target, target.acceleration[k + 1], out=wanted), up, out=wanted)
        np.maximum(wanted, np.negative(down, out=down), out=wanted)
        np.minimum(np.maximum(np.add(a, slew, out=reach), least, out=reach), most, out=reach)
        np.minimum(np.maximum(wanted, lowest, out=wanted), highest, out=wanted)
        np.matmul(step, now, out=states[k + 1, :3])
    return State(states[:, 0], states[:, 1], states[:, 2])


def brake(limits: Limits, start: State, start_ns: int) -> Command:
    """Bring every joint to rest from a state `(n,)`, each as fast as its acceleration and jerk allow.

    Three phases of constant jerk per joint (build up, hold and release the deceleration), rounded up to whole
    milliseconds; the deceleration is then solved for so that velocity and acceleration end at exactly 0. A joint whose
    state is not finite (which `legal` finds) spoils none of the others.
    """
    velocity, acceleration, jerk, grid = start.velocity, start.acceleration, limits.jerk, _GRID_NS * 1e-9
    # Along `side` the joint has to gain speed `gain` from acceleration `first`, ending with none.
    side = -np.sign(velocity + acceleration * np.abs(acceleration) / (2 * jerk))
    gain, first = -side * velocity, side * acceleration
    peak = np.minimum(np.sqrt(np.maximum(jerk * gain + first**2 / 2, 0.0)), limits.acceleration)
    held = np.maximum(gain - (2 * peak**2 - first**2) / (2 * jerk), 0.0) / np.maximum(peak, 1e-9)
    held, (build, release) = np.ceil(held / grid - 1e-6), np.maximum(_ramps(peak, first, jerk), 1.0)
    for _ in range(3):
        peak = (gain - first * build * (grid / 2)) / ((build / 2 + held + release / 2) * grid)
        longer = np.maximum((build, release), _ramps(peak, first, jerk))
        if (longer[0] == build).all() and (longer[1] == release).all():
            break
        build, release = longer
    peak = side * (gain - first * build * (grid / 2)) / ((build / 2 + held + release / 2) * grid)
    durations = np.stack((build, held, release))
    return _phases(start, np.where(np.isfinite(durations), durations, 1.0), peak, start_ns)


def _ramps(peak: FloatArray, first: FloatArray, jerk: FloatArray) -> FloatArray:
    """How long `(2, n)` [ms] a jerk needs from an acceleration to the peak, and from the peak to none."""
    ramps: FloatArray = np.ceil(np.abs((peak - first, peak)) / (jerk * (_GRID_NS * 1e-9)) - 1e-6)
    return ramps


def _phases(start: State, durations: FloatArray, peak: FloatArray, start_ns: int) -> Command:
    """Knots common to all joints of phases `(3, n)` [ms] whose accelerations end at `peak`, `peak` and 0."""
    ends, grid = np.cumsum(durations, axis=0), _GRID_NS * 1e-9
    times = np.unique(np.append(ends, 0.0))
    pull, then = np.stack((start.acceleration, peak, peak)), np.stack((peak, peak, 0.0 * peak))
    gains = durations * grid * (pull + then) / 2
    speed = start.velocity + np.cumsum(gains, axis=0) - gains
    growth = (then - pull) / np.maximum(durations * grid, 1e-9)
    s = np.maximum(times[:, None] - (ends - durations)[:, None], 0.0)
    s = np.minimum(s, durations[:, None], out=s)
    s *= grid
    gained = s * growth[:, None]
    faster, moved = gained / 2, gained / 6
    faster += pull[:, None]
    faster *= s
    moved += pull[:, None] / 2
    moved *= s
    moved += speed[:, None]
    moved *= s
    parts = zip(start, (moved, faster, gained), strict=True)
    q, v, a = (part + more.sum(axis=0) for part, more in parts)
    still = times[:, None] >= ends[-1]
    v[still] = a[still] = 0.0
    return Command(start_ns + times.astype(np.int64) * _GRID_NS, State(q, v, a))


def legal(limits: Limits, command: Command) -> NDArray[np.bool_]:
    """Which joints `(n,)` stay inside the embodiment's own limits for the whole command."""
    arm = limits.embodiment
    grid, knots = np.arange(command.start_ns, command.end_ns, _CHECK_NS), command.times_ns
    grid = grid[(np.diff(knots) > _CHECK_NS)[np.searchsorted(knots, grid, side="right") - 1]]
    q, v, a = (np.concatenate(p) for p in zip(command.state, command.sample(grid), strict=True))
    fastest = envelope(arm, np.array((arm.envelope_upper - q, q - arm.envelope_lower)))
    fastest -= 1e-3
    np.minimum(fastest, 0.998 * arm.velocity, out=fastest)
    up, down = np.maximum(fastest, 1e-9, out=fastest)
    fine = (q <= arm.position_upper) & (q >= arm.position_lower) & (v <= up) & (-v <= down)
    fine &= np.abs(a) <= 0.998 * arm.acceleration
    smooth = (np.abs(command.jerk) <= 0.998 * arm.jerk).all(axis=0)
    result: NDArray[np.bool_] = fine.all(axis=0) & smooth
    return result


def envelope(arm: Embodiment, distance: FloatArray) -> FloatArray:
    """Speed [rad/s] that Franka's envelope allows at a distance [rad] from its bound; infinite without one."""
    free = np.isinf(arm.envelope_gain)
    speed: FloatArray = np.maximum(distance, 0.0)
    speed *= np.where(free, 0.0, arm.envelope_gain)
    np.sqrt(speed, out=speed)
    speed -= arm.envelope_offset
    if free.any():
        speed[..., free] = np.inf
    return speed


def _followed(limits: Limits, last: Command, target: Target | None, times_ns: TimeArray) -> State | None:
    """What `last` has of following this target at the first of these times, one knot each; None if nothing."""
    done = last.followed
    if done is None or target is None or done.target is not target or done.limits is not limits:
        return None
    first = int(last.times_ns.searchsorted(times_ns[0]))
    count = min(len(times_ns), (done.until_ns - int(times_ns[0])) // STEP_NS + 1, len(last.times_ns) - first)
    if count < 1 or not np.array_equal(last.times_ns[first : first + count], times_ns[:count]):
        return None
    return State(*(part[first : first + count] for part in last.state))


def plan(limits: Limits, last: Command, target: Target | None, commit_ns: int, span_ns: int) -> Command:
    """The command from `commit_ns` on: along the target for `span_ns`, then to rest; at once to rest without one.

    It goes on from where `last` will be at `commit_ns`, with the same velocity and acceleration.
    """
    steps = 0 if target is None else span_ns // STEP_NS
    times = commit_ns + STEP_NS * np.arange(steps + 1)
    knots = _followed(limits, last, target, times) or State(*(part[None] for part in last.sample(commit_ns)))
    if target is not None:
        known = len(knots.position) - 1
        new = track(limits, State(*(part[-1] for part in knots)), target(times[known:]))
        knots = State(*(np.concatenate((a[:-1], b)) for a, b in zip(knots, new, strict=True)))
    parts: list[tuple[NDArray[np.intp], Command]] = []
    part, waiting = limits, np.arange(knots.position.shape[1])
    for length in (steps, steps // 2, steps // 4, 0):
        ahead_of_rest = State(*(states[: length + 1, waiting] for states in knots))
        tail = brake(part, State(*(states[length] for states in ahead_of_rest)), int(times[length]))
        follow = Command(times[:length], State(*(states[:length] for states in ahead_of_rest)))
        candidate = follow.then(tail) if length else tail
        good = legal(part, candidate)
        if good.all() and not parts:
            return replace(candidate, followed=Followed(target, limits, int(times[length]))) if length else candidate
        if good.any():
            parts.append((waiting[good], candidate.of(good)))
        waiting = waiting[~good]
        if not len(waiting):
            return Command.together(parts)
        part = limits.part(waiting)
    return Command.together([*parts, (waiting, last.since(commit_ns).of(waiting))])
