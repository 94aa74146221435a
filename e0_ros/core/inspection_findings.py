"""What is suspicious of a take, in words; by itself, and beside the others of its kind."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from e0_ros.core.inspection import Motion, TakeReport, arm_named

GAP_PERIODS = 3.0
SKEW_PERIODS = 0.75
FROZEN_MS = 1000.0
ROUGHNESS = 1.2
IDLE_S = 3.0
STALE_SHARE = 0.05
LIMIT_RAD = 0.005
SHORT_FRAMES = 5
STILL_RAD = 1e-3
OUTLIER = 6.0
_PERIODIC = ("sensor_msgs/",)


def findings_of(take: TakeReport) -> list[str]:
    """What one take shows by itself."""
    if take.fault and not take.streams:
        return []
    timing = [] if take.graded else [*_timing(take), *_ages(take)]
    found = [*take.flags, *timing, *_counts(take)]
    if take.motion is not None:
        found += _motion(take.motion, take.embodiment)
        if not take.graded and take.motion.low and _moved_rad(take.motion) < STILL_RAD:
            found.append("the arm does not move")
    return found


def compare(takes: Sequence[TakeReport]) -> None:
    """Add what only shows beside the other takes of the same task: a length or a rate unlike the others'."""
    groups: dict[tuple[str, str], list[TakeReport]] = defaultdict(list)
    for take in takes:
        if not take.fault:
            groups[(take.kind, take.task or take.instruction)].append(take)
    for group in groups.values():
        _outliers(group, [t.duration_s for t in group], "lasts {value:.1f} s, the others of its task {median:.1f} s")
        rates = [(t, r.rate_hz) for t in group if (r := t.reference()) is not None and r.count > 2]
        _outliers(
            [t for t, _ in rates], [r for _, r in rates], "camera at {value:.1f} Hz, the others at {median:.1f} Hz"
        )


def _outliers(takes: Sequence[TakeReport], values: Sequence[float], text: str) -> None:
    if len(values) < 8:
        return
    median = float(np.median(values))
    spread = max(1.4826 * float(np.median(np.abs(np.array(values) - median))), 0.05 * abs(median))
    for take, value in zip(takes, values, strict=True):
        if abs(value - median) > OUTLIER * spread:
            take.findings.append(text.format(value=value, median=median))


def _timing(take: TakeReport) -> list[str]:
    found = []
    for s in take.streams:
        if s.name in take.views or s.type.startswith(_PERIODIC):
            period_ms = 1000.0 / s.rate_hz if s.rate_hz else 0.0
            if s.count > 3 and s.gap_ms > max(GAP_PERIODS * period_ms, 20.0):
                found.append(f"{s.name}: {s.gap_ms:.0f} ms without a sample at {s.gap_at_s:.1f} s")
            if s.backwards:
                found.append(f"{s.name}: stamps go back {s.backwards} times")
            if s.skew_ms is not None and s.skew_ms > SKEW_PERIODS * period_ms > 0:
                found.append(f"{s.name}: {s.skew_ms:.0f} ms away from the reference view")
        if s.frozen_ms is not None and s.frozen_ms > FROZEN_MS:
            found.append(f"{s.name}: the same pixels for {s.frozen_ms / 1000:.1f} s")
    return found


def _ages(take: TakeReport) -> list[str]:
    """Streams of a dataset that are held over a gap: its rows alone have none."""
    return [
        f"{name}: a sample is {age:.0f} ms old; allowed are {bound:.0f} ms"
        for name, bound in take.age_bounds_ms.items()
        if (age := take.ages_ms.get(name, 0.0)) > bound
    ]


def _counts(take: TakeReport) -> list[str]:
    found = []
    if take.frames < SHORT_FRAMES:
        found.append(f"{take.frames} frames" if take.frames else "no camera images")
    stale = sum(take.stale.values())
    if take.observations and stale > STALE_SHARE * take.observations:
        found.append(f"{stale} of {take.observations} observations stale ({next(iter(take.stale))})")
    if take.refused:
        found.append(f"{take.refused} chunks refused")
    return found


def _moved_rad(motion: Motion) -> float:
    return max(high - low for high, low in zip(motion.high, motion.low, strict=True))


def _motion(motion: Motion, embodiment: str) -> list[str]:
    found, arm = [], arm_named(embodiment)
    if arm is not None and arm.joint_names == motion.joint_names:
        for i, name in enumerate(motion.joint_names[: len(motion.low)]):
            low, high = arm.position_lower[i], arm.position_upper[i]
            if motion.low[i] < low - LIMIT_RAD or motion.high[i] > high + LIMIT_RAD:
                found.append(f"{name}: {motion.low[i]:.3f} to {motion.high[i]:.3f} rad, limits {low:.3f} to {high:.3f}")
        if motion.speed is not None and motion.speed > 1.01:
            found.append(f"commanded at {motion.speed:.2f} times the speed limit")
    if motion.roughness is not None and motion.roughness > ROUGHNESS:
        found.append(f"rough actions (roughness {motion.roughness:.2f})")
    if motion.idle_start_s + motion.idle_end_s > IDLE_S:
        found.append(f"idle for {motion.idle_start_s:.1f} s at the start and {motion.idle_end_s:.1f} s at the end")
    return found
