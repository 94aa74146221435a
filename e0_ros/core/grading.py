"""The verdict on a take: what would be found at training otherwise, with the stream and the numbers.

grade_bag(Bag(path))
# [Flag("gap", "wrist", "no image for 412 ms at 3.20 s; allowed are 140 ms", ...)]

Bounds follow from each stream's configured rate (`SyncConfig`, as it was in force). In lock-step a stream's own median
period is the measure, and nothing may be missing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from e0_policy.types import FloatArray
from e0_ros.config import check, setting
from e0_ros.core.bag_reader import Bag
from e0_ros.core.pairing import GRIPPER, JOINTS, SyncConfig
from e0_ros.core.take import Int64Array, Samples, Take, read_take, stream_config
from e0_ros.interfaces import EPISODE_EVENT

MS, S = 1e6, 1e9
LOCKSTEP_PERIODS = 1.5
KINDS = ("missing", "gap", "rate", "frozen", "skew", "loss", "clock", "static", "fault")


@dataclass(frozen=True)
class GradeConfig:
    """Bounds of the verdict beside those of the streams."""

    rate_share: float = setting(0.9, "least share of the configured rate that a stream must reach", low=0.0, high=1.0)
    still_rad: float = setting(0.02, "an arm whose joints all move less in a take is static", unit="rad", low=0.0)
    frozen_s: float = setting(1.0, "pixels that stand so long while the arm moves are frozen", unit="s", low=0.05)
    moved_rad: float = setting(0.1, "so much of a joint's motion must show in the pixels", unit="rad", low=0.0)
    clock_ms: float = setting(500.0, "largest distance of stamps from their receipt", unit="ms", low=1.0)

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True)
class Flag:
    """Something wrong with a take. `value` broke `bound`, in the unit that `text` names; `at_s` is since the start."""

    kind: str
    stream: str
    text: str
    value: float = 0.0
    bound: float = 0.0
    at_s: float = 0.0

    def __str__(self) -> str:
        return f"{self.kind} {self.stream}: {self.text}" if self.stream else f"{self.kind}: {self.text}"


def grade(take: Take, streams: SyncConfig, config: GradeConfig | None = None) -> list[Flag]:
    """Everything that is wrong with a take; empty for a good one. Of each kind a stream is flagged once, the worst."""
    config, flags = config or GradeConfig(), []
    if take.fault:
        flags.append(Flag("fault", "", take.fault))
    flags += [Flag("loss", topic, f"{n} messages lost", n) for topic, n in sorted(take.lost.items()) if n > 0]
    for name, rate_hz in rates_hz(streams).items():
        samples = take.streams.get(name)
        if samples is None or not len(samples.stamps_ns):
            flags.append(Flag("missing", name, "nothing was recorded"))
            continue
        flags += _timing(take, name, samples, rate_hz, streams, config)
        flags += _clock(take, name, samples, config)
        if name in streams.views:
            flags += _frozen(take, name, samples, streams, config)
    return [*flags, *_clock_steps(take, flags), *_skew(take, streams), *_static(take, config)]


def grade_bag(bag: Bag, config: GradeConfig | None = None) -> list[Flag]:
    """The verdict on a bag, by the configuration that it carries.

    Raises:
        BagReadError: damage, unless the bag was opened to be salvaged.

    """
    streams = stream_config(bag)
    return grade(read_take(bag, streams.views), streams, config)


def is_graded(bag: Bag) -> bool:
    """Whether a bag is of this project's recorder, whose configuration tells what was to be expected of it."""
    return EPISODE_EVENT.name in bag.topics


def gap_bounds_ms(take: Take, streams: SyncConfig) -> dict[str, float]:
    """The longest time that each stream of a take may be without a sample [ms]."""
    rates = rates_hz(streams)
    found = {name: samples for name, samples in take.streams.items() if len(samples.stamps_ns)}
    return {name: _gap_bound_ns(samples, rates[name], streams) / MS for name, samples in found.items()}


def rates_hz(streams: SyncConfig) -> dict[str, float]:
    """The configured rate of each stream."""
    rates = dict.fromkeys(streams.views, streams.camera_rate_hz)
    return rates | {JOINTS: streams.joint_rate_hz, GRIPPER: streams.gripper_rate_hz}


def period_ns(samples: Samples, rate_hz: float, lockstep: bool) -> float:
    """A stream's period: the configured one, in lock-step its own median [ns]."""
    steps = np.diff(np.unique(samples.stamps_ns))
    return float(np.median(steps)) if lockstep and len(steps) else S / rate_hz


def _gap_bound_ns(samples: Samples, rate_hz: float, streams: SyncConfig) -> float:
    if streams.lockstep:
        return LOCKSTEP_PERIODS * period_ns(samples, rate_hz, True)
    return streams.silent_ms(rate_hz) * MS


def _gap_bounds_ns(take: Take, name: str, count: int, rate_hz: float, streams: SyncConfig) -> FloatArray:
    """`(count,)` longest times without a sample: before the first, between two, after the last [ns].

    In lock-step the first control step comes a step after the start, whatever the stream's own period.
    """
    bounds = np.full(count, _gap_bound_ns(take.streams[name], rate_hz, streams))
    if not streams.lockstep:
        return bounds
    slowest = max(period_ns(s, rate_hz, True) for s in take.streams.values() if len(s.stamps_ns))
    bounds[0] = LOCKSTEP_PERIODS * slowest
    return bounds


def _timing(
    take: Take, name: str, samples: Samples, rate_hz: float, streams: SyncConfig, config: GradeConfig
) -> Iterator[Flag]:
    stamps = np.unique(samples.stamps_ns)
    inside = stamps[(stamps >= take.start_ns) & (stamps <= take.end_ns)]
    edges = np.concatenate([[take.start_ns], inside, [take.end_ns]])
    steps, bounds = np.diff(edges), _gap_bounds_ns(take, name, len(inside) + 1, rate_hz, streams)
    worst = int((steps - bounds).argmax())
    if steps[worst] > bounds[worst]:
        more, value, bound = int((steps > bounds).sum()) - 1, steps[worst] / MS, bounds[worst] / MS
        at_s = (edges[worst] - take.start_ns) / S
        text = f"nothing for {value:.0f} ms at {at_s:.2f} s; allowed are {bound:.0f} ms"
        yield Flag("gap", name, text + (f" ({more} more)" if more else ""), value, bound, at_s)
    span_s = (stamps[-1] - stamps[0]) / S
    if not streams.lockstep and len(stamps) > 1:
        rate, least = (len(stamps) - 1) / span_s, config.rate_share * rate_hz
        if rate < least:
            yield Flag("rate", name, f"{rate:.1f} Hz of {rate_hz:.1f} Hz; at least {least:.1f} Hz", rate, least)


def _clock(take: Take, name: str, samples: Samples, config: GradeConfig) -> Iterator[Flag]:
    """Stamps that go back, or that are far from the time of receipt."""
    back = np.diff(samples.stamps_ns)
    if len(back) and back.min() < 0:
        at = int(back.argmin())
        at_s = (samples.stamps_ns[at] - take.start_ns) / S
        yield Flag(
            "clock", name, f"stamps go back by {-back[at] / MS:.0f} ms at {at_s:.2f} s", -back[at] / MS, 0.0, at_s
        )
    away_ms = float(np.median(samples.received_ns - samples.stamps_ns)) / MS
    if abs(away_ms) > config.clock_ms:
        text = f"stamps lie {away_ms:.0f} ms before their receipt; allowed are {config.clock_ms:.0f} ms"
        yield Flag("clock", name, text, away_ms, config.clock_ms)


def _clock_steps(take: Take, flags: list[Flag]) -> Iterator[Flag]:
    """A gap of every stream at the same time: the clock was set, or the whole machine stood still."""
    gaps = {flag.stream: flag for flag in flags if flag.kind == "gap"}
    first = gaps.get(JOINTS)
    if first is None or set(gaps) != {name for name, samples in take.streams.items() if len(samples.stamps_ns)}:
        return
    together = all(abs(flag.at_s - first.at_s) * 1e3 <= min(flag.value, first.value) for flag in gaps.values())
    if together and len(gaps) > 1:
        text = f"time jumps by {first.value:.0f} ms at {first.at_s:.2f} s in every stream"
        yield Flag("clock", "", text, first.value, first.bound, first.at_s)


def _frozen(take: Take, view: str, samples: Samples, streams: SyncConfig, config: GradeConfig) -> Iterator[Flag]:
    """The longest time in which the pixels stood still: too long, or while the arm moved."""
    bound_ns = streams.frozen_pixels_ms * MS
    worst: Flag | None = None
    for begin, end in _runs(samples.fingerprints):
        start_ns, stop_ns = int(samples.stamps_ns[begin]), int(samples.stamps_ns[end])
        still_ns, moved = stop_ns - start_ns, _moved_rad(take, start_ns, stop_ns)
        if (0 < bound_ns <= still_ns) or (still_ns >= config.frozen_s * S and moved > config.moved_rad):
            at_s, allowed = (start_ns - take.start_ns) / S, bound_ns / MS if bound_ns else config.frozen_s * 1e3
            text = f"the same picture for {still_ns / S:.2f} s at {at_s:.2f} s while a joint moved {moved:.2f} rad"
            if worst is None or still_ns / MS > worst.value:
                worst = Flag("frozen", view, text, still_ns / MS, allowed, at_s)
    if worst is not None:
        yield worst


def _runs(values: Int64Array) -> Iterator[tuple[int, int]]:
    """First and last index of every run of equal values, longer than one."""
    edges = np.flatnonzero(np.diff(values)) + 1
    for begin, end in zip([0, *edges], [*edges, len(values)], strict=True):
        if end - begin > 1:
            yield int(begin), int(end) - 1


def _moved_rad(take: Take, start_ns: int, end_ns: int) -> float:
    """The largest motion of a joint in a time [rad]."""
    joints = take.streams.get(JOINTS)
    if joints is None:
        return 0.0
    inside = joints.values[(joints.value_stamps_ns >= start_ns) & (joints.value_stamps_ns <= end_ns)]
    return float(np.ptp(inside, axis=0).max()) if inside.size else 0.0


def _skew(take: Take, streams: SyncConfig) -> Iterator[Flag]:
    """Images of the reference view that have none of another view within the tolerance."""
    reference = take.streams.get(streams.views[0])
    if reference is None:
        return
    stamps, bound = np.unique(reference.stamps_ns), streams.tolerance_ns
    for view in streams.views[1:]:
        others = np.unique(take.streams[view].stamps_ns) if view in take.streams else np.empty(0, np.int64)
        if not len(others):
            continue
        inside = stamps[(stamps >= others[0]) & (stamps <= others[-1])]
        skew = nearest_ns(inside, others)
        if len(skew) and skew.max() > bound:
            count, worst = int((skew > bound).sum()), int(skew.argmax())
            at_s = (inside[worst] - take.start_ns) / S
            text = f"{count} of {len(inside)} images of {streams.views[0]} have none within {bound / MS:.0f} ms"
            text += f"; the worst is {skew[worst] / MS:.0f} ms away at {at_s:.2f} s"
            yield Flag("skew", view, text, skew[worst] / MS, bound / MS, at_s)


def nearest_ns(stamps_ns: Int64Array, others_ns: Int64Array) -> Int64Array:
    """Distance of each stamp to the nearest of the others, which ascend and are not empty [ns]."""
    after = np.searchsorted(others_ns, stamps_ns).clip(0, len(others_ns) - 1)
    before = (after - 1).clip(0)
    distance: Int64Array = np.minimum(np.abs(others_ns[after] - stamps_ns), np.abs(others_ns[before] - stamps_ns))
    return distance


def _static(take: Take, config: GradeConfig) -> Iterator[Flag]:
    joints = take.streams.get(JOINTS)
    if joints is None or not len(joints.values):
        return
    moved = float(np.ptp(joints.values, axis=0).max())
    if moved < config.still_rad:
        text = f"no joint moved more than {moved:.4f} rad; at least {config.still_rad} rad"
        yield Flag("static", JOINTS, text, moved, config.still_rad)
