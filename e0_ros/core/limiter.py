"""Legal motion: every command made here obeys an arm's limits up to and including its braking to rest.

`plan` follows a target by a per-joint tracking law under acceleration and jerk limits (`track`), brakes from its end
(`brake`), and then checks the whole against the embodiment's own limits (`legal`). A joint that fails gets a shorter
span, and at last keeps the motion that it was already told to make, which was checked when it was made. So a command
is legal by induction, whatever the target.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace

import numpy as np
from numpy.typing import NDArray

from e0_policy.embodiment import Embodiment
from e0_policy.types import FloatArray
from e0_ros.core.command import Command, State, TimeArray

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
    `a <= d(cap)/dt + gain * (cap - v)` keeps `v` below the cap.
    """
    dt = STEP_NS * 1e-9
    states = np.empty((target.position.shape[0], 3, start.position.shape[0]))
    states[0] = start
    # One step of constant jerk: what stays of position, velocity and acceleration, and what the new one adds.
    stays = np.array([[1.0, dt, dt * dt / 3], [0.0, 1.0, dt / 2], [0.0, 0.0, 0.0]])
    adds = np.array([[dt * dt / 6], [dt / 2], [1.0]])
    mirror, bounds = np.array([[1.0], [-1.0]]), np.stack((limits.upper, -limits.lower))
    approach = _APPROACH * limits.acceleration
    soft = approach / _GAIN_POSITION
    soft2, offset2, approach2, braking2 = soft**2, limits.offset**2, 2 * approach, 2 * limits.braking
    offset, top = _GAIN_VELOCITY * limits.offset, _GAIN_VELOCITY * limits.velocity
    most, slew = limits.acceleration, limits.jerk * dt
    least, aims = -most, np.stack((target.position, target.velocity), axis=1)
    for k in range(1, len(states)):
        q, v, a = states[k - 1]
        error, catch_up = aims[k - 1] - states[k - 1, :2]
        root = np.sqrt(soft2 + approach2 * np.abs(error))
        wanted = target.acceleration[k] + approach / root * catch_up
        wanted += _GAIN_VELOCITY * (catch_up + np.copysign(root - soft, error))
        speed = mirror * v
        root = np.sqrt(offset2 + braking2 * np.maximum(bounds - mirror * q, 0.0))
        cap = np.minimum(_GAIN_VELOCITY * root - offset - limits.braking / root * speed, top)
        cap -= _GAIN_VELOCITY * speed
        wanted = np.maximum(np.minimum(wanted, cap[0]), -cap[1])
        wanted = np.minimum(np.maximum(wanted, np.maximum(a - slew, least)), np.minimum(a + slew, most))
        states[k] = stays @ states[k - 1] + adds * wanted
    return State(states[:, 0], states[:, 1], states[:, 2])


def brake(limits: Limits, start: State, start_ns: int) -> Command:
    """Bring every joint to rest from a state `(n,)`, each as fast as its acceleration and jerk allow.

    Three phases of constant jerk per joint (build up, hold and release the deceleration), rounded up to whole
    milliseconds; the deceleration is then solved for so that velocity and acceleration end at exactly 0. A joint whose
    state is not finite (which `legal` finds) spoils none of the others.
    """
    position, velocity, acceleration = start
    jerk, peak_limit = limits.jerk, limits.acceleration
    # Along `side` the joint has to gain speed `gain` from acceleration `first`, ending with none.
    side = -np.sign(velocity + acceleration * np.abs(acceleration) / (2 * jerk))
    gain, first = -side * velocity, side * acceleration
    peak = np.minimum(np.sqrt(np.maximum(jerk * gain + first**2 / 2, 0.0)), peak_limit)
    build, release = np.maximum(peak - first, 0.0) / jerk, peak / jerk
    held = np.maximum(gain - (2 * peak**2 - first**2) / (2 * jerk), 0.0) / np.maximum(peak, 1e-9)
    grid = _GRID_NS * 1e-9
    build, held, release = (np.ceil(phase / grid - 1e-6) for phase in (build, held, release))
    build, release = np.maximum(build, 1.0), np.maximum(release, 1.0)
    for _ in range(3):
        peak = (gain - first * build * grid / 2) / ((build / 2 + held + release / 2) * grid)
        build = np.maximum(build, np.ceil(np.abs(peak - first) / jerk / grid - 1e-6))
        release = np.maximum(release, np.ceil(np.abs(peak) / jerk / grid - 1e-6))
    peak = side * (gain - first * build * grid / 2) / ((build / 2 + held + release / 2) * grid)
    durations = np.nan_to_num(np.stack((build, held, release)), nan=1.0, posinf=1.0)
    return _phases(State(position, velocity, acceleration), durations, peak, start_ns)


def _phases(start: State, durations: FloatArray, peak: FloatArray, start_ns: int) -> Command:
    """Knots common to all joints of phases `(3, n)` [ms] whose accelerations end at `peak`, `peak` and 0."""
    ends, none = np.cumsum(durations, axis=0), np.zeros_like(peak)
    times = np.unique(np.append(ends, 0.0))
    q, v, a = (np.repeat(part[None], len(times), axis=0) for part in start)
    speed, pull, begin = start.velocity, start.acceleration, none
    for end, then in zip(ends, (peak, peak, none), strict=True):
        h = (end - begin) * (_GRID_NS * 1e-9)
        s = np.clip(times[:, None] - begin, 0.0, end - begin) * (_GRID_NS * 1e-9)
        s_jerk = s * ((then - pull) / np.maximum(h, 1e-9))
        q += s * (speed + s * (pull / 2 + s_jerk / 6))
        v += s * (pull + s_jerk / 2)
        a += s_jerk
        speed, pull, begin = speed + h * (pull + then) / 2, then, end
    still = times[:, None] >= ends[-1]
    v[still] = a[still] = 0.0
    return Command(start_ns + times.astype(np.int64) * _GRID_NS, State(q, v, a))


def legal(limits: Limits, command: Command) -> NDArray[np.bool_]:
    """Which joints `(n,)` stay inside the embodiment's own limits for the whole command."""
    arm = limits.embodiment
    grid, knots = np.arange(command.start_ns, command.end_ns, _CHECK_NS), command.times_ns
    grid = grid[(np.diff(knots) > _CHECK_NS)[np.searchsorted(knots, grid, side="right") - 1]]
    q, v, a = (np.concatenate(p) for p in zip(command.state, command.sample(grid), strict=True))
    speed_up = np.minimum(0.998 * arm.velocity, envelope(arm, arm.envelope_upper - q) - 1e-3)
    speed_down = np.minimum(0.998 * arm.velocity, envelope(arm, q - arm.envelope_lower) - 1e-3)
    fine = (q <= arm.position_upper) & (q >= arm.position_lower)
    fine &= (v <= np.maximum(speed_up, 1e-9)) & (-v <= np.maximum(speed_down, 1e-9))
    fine &= np.abs(a) <= 0.998 * arm.acceleration
    smooth = (np.abs(command.jerk) <= 0.998 * arm.jerk).all(axis=0)
    result: NDArray[np.bool_] = fine.all(axis=0) & smooth
    return result


def envelope(arm: Embodiment, distance: FloatArray) -> FloatArray:
    """Speed [rad/s] that Franka's envelope allows at a distance [rad] from its bound; infinite without one."""
    free = np.isinf(arm.envelope_gain)
    gain = np.where(free, 0.0, arm.envelope_gain)
    speed: FloatArray = np.where(free, np.inf, np.sqrt(gain * np.maximum(distance, 0.0)) - arm.envelope_offset)
    return speed


def plan(limits: Limits, last: Command, target: Target | None, commit_ns: int, span_ns: int) -> Command:
    """The command from `commit_ns` on: along the target for `span_ns`, then to rest; at once to rest without one.

    It goes on from where `last` will be at `commit_ns`, with the same velocity and acceleration.
    """
    start = last.sample(commit_ns)
    steps = 0 if target is None else span_ns // STEP_NS
    times = commit_ns + STEP_NS * np.arange(steps + 1)
    knots = State(*(part[None] for part in start)) if target is None else track(limits, start, target(times))
    parts: list[tuple[NDArray[np.intp], Command]] = []
    part, waiting = limits, np.arange(start.position.shape[0])
    for length in (steps, steps // 2, steps // 4, 0):
        ahead = State(*(states[: length + 1, waiting] for states in knots))
        tail = brake(part, State(*(states[length] for states in ahead)), int(times[length]))
        follow = Command(times[:length], State(*(states[:length] for states in ahead)))
        candidate = follow.then(tail) if length else tail
        good = legal(part, candidate)
        if good.all() and not parts:
            return candidate
        if good.any():
            parts.append((waiting[good], candidate.of(good)))
        waiting = waiting[~good]
        if not len(waiting):
            return Command.together(parts)
        part = limits.part(waiting)
    return Command.together([*parts, (waiting, last.since(commit_ns).of(waiting))])
