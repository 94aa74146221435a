"""All takes together: counts by task and outcome, and the joints' ranges beside their limits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from e0_ros.core.inspection import TakeReport, arm_named
from e0_ros.core.inspection_findings import LIMIT_RAD


@dataclass(frozen=True)
class JointRange:
    """Measured range of a joint over all takes, and its limits if the embodiment is known [rad]."""

    name: str
    low: float
    high: float
    lower: float | None = None
    upper: float | None = None

    @property
    def outside(self) -> bool:
        """Whether it was measured beyond its limits."""
        beyond_low = self.lower is not None and self.low < self.lower - LIMIT_RAD
        return beyond_low or (self.upper is not None and self.high > self.upper + LIMIT_RAD)


@dataclass
class Totals:
    """Sums over takes. `instructions`: (task, instruction) to outcome to count; `joints` by embodiment."""

    takes: int = 0
    suspicious: int = 0
    unreadable: int = 0
    duration_s: float = 0.0
    frames: int = 0
    size_bytes: int = 0
    instructions: dict[tuple[str, str], Counter[str]] = field(default_factory=dict)
    joints: dict[str, list[JointRange]] = field(default_factory=dict)

    def plain(self) -> dict[str, Any]:
        """As JSON can hold it."""
        values = asdict(self)
        values["instructions"] = [
            {"task": task, "instruction": text, "outcomes": dict(counts)}
            for (task, text), counts in sorted(self.instructions.items())
        ]
        return values


def totals_of(takes: Sequence[TakeReport]) -> Totals:
    """Sum up."""
    totals = Totals()
    for take in takes:
        totals.takes += take.kind != "video"
        totals.suspicious += take.suspicious
        totals.unreadable += bool(take.fault)
        totals.duration_s += take.duration_s
        totals.frames += take.frames
        totals.size_bytes += take.size_bytes
        if take.kind != "video" and (take.streams or not take.fault):
            totals.instructions.setdefault((take.task, take.instruction), Counter())[take.outcome] += 1
        if take.motion is not None and take.motion.low:
            _widen(totals.joints, take)
    return totals


def _widen(joints: dict[str, list[JointRange]], take: TakeReport) -> None:
    motion, arm = take.motion, arm_named(take.embodiment)
    assert motion is not None
    known = joints.setdefault(take.embodiment, [])
    limits = arm if arm is not None and arm.joint_names == motion.joint_names else None
    names = [j.name for j in known]
    for i, (name, low, high) in enumerate(zip(motion.joint_names, motion.low, motion.high, strict=False)):
        if name in names:
            before = known[names.index(name)]
            known[names.index(name)] = replace(before, low=min(low, before.low), high=max(high, before.high))
        else:
            lower, upper = (None, None) if limits is None else (limits.position_lower[i], limits.position_upper[i])
            known.append(
                JointRange(
                    name, low, high, None if lower is None else float(lower), None if upper is None else float(upper)
                )
            )
