"""How fast, and whether at once, a machine's plans are followed: speed scaling and step-through.

pace = Pace(PaceConfig(step_through=True))
pace.plan(chunk, now_ns)        # None: withheld until it is released
pace.step(now_ns, executor)     # None: the executor follows the chunk, its first row in force from now on; or why not

Below full speed a plan's rows keep their order and their first time and come later: row i from
`t0 + i * period / speed`. A plan that is not followed as it was sent has another t0 (by 1 ns at least), by which its
sender and the converter of bags know it. A human's plans and moves to a pose are never slowed or withheld.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from e0_policy.types import MAX_PERIOD_NS, ActionChunk
from e0_ros.config import check, setting
from e0_ros.core.admission import Refusal
from e0_ros.core.executor import Executor
from e0_ros.core.executor_types import Mode

_MS = 1_000_000
PACED = ("policy", "replay", "scripted")
SLOWEST = 0.02


@dataclass(frozen=True)
class PaceConfig:
    """How plans of machines are followed."""

    speed: float = setting(1.0, "share of a plan's own speed; /e0/speed changes it; 0: stand", low=0.0, high=1.0)
    step_through: bool = setting(False, "follow a machine's plan only when /e0/step releases it")
    step_max_age_ms: float = setting(
        2000.0, "oldest observation of a plan that is released", unit="ms", low=100, high=60e3
    )

    def __post_init__(self) -> None:
        check(self)


class Pace:
    """Changes plans on their way to the executor, or keeps them back. Times are ROS time in ns."""

    def __init__(self, config: PaceConfig) -> None:
        self._config = config
        self.speed = config.speed
        self._waiting: ActionChunk | None = None
        self._until_ns = 0

    def set_speed(self, speed: float) -> str:
        """Take another speed for the plans to come; why not, in words, if it is none."""
        if not (math.isfinite(speed) and 0.0 <= speed <= 1.0):
            return f"speed is {speed}; allowed is 0 to 1"
        self.speed = speed if speed == 0.0 else max(speed, SLOWEST)
        return ""

    def plan(self, chunk: ActionChunk, now_ns: int) -> ActionChunk | None:
        """The plan to follow at once; None: it is kept back."""
        if chunk.source not in PACED:
            return chunk
        if self._config.step_through:
            self._waiting = chunk
            return None
        return self._slowed(chunk) if self.speed > 0.0 else None

    def step(self, now_ns: int, executor: Executor) -> Refusal | None:
        """Have the newest plan followed, from its first row on, or say why not; a plan that is refused waits on."""
        chunk = self._waiting
        if not self._config.step_through:
            return Refusal("step_through is off: plans are followed at once")
        if self.speed <= 0.0:
            return Refusal("the speed is 0")
        if executor.mode is Mode.RUNNING and now_ns < self._until_ns:
            return Refusal(f"the last step goes on for {(self._until_ns - now_ns) / 1e9:.1f} s")
        if chunk is None:
            return Refusal("no plan waits")
        age_ms = (now_ns - (chunk.in_reply_to_ns or chunk.t0_ns)) / _MS
        if age_ms > self._config.step_max_age_ms:
            return Refusal(f"the newest plan is of {age_ms / 1e3:.1f} s ago")
        step = self._slowed(replace(chunk, t0_ns=now_ns))
        if refusal := executor.offer(step, now_ns):
            return refusal
        self._waiting, self._until_ns = None, step.end_ns
        return None

    def forget(self) -> None:
        """What waits counts no more: the arm was armed anew, or disarmed."""
        self._waiting, self._until_ns = None, 0

    @property
    def waits(self) -> str:
        """What keeps a plan back, in words; empty if nothing does."""
        if self._config.step_through:
            return "step-through: /e0/step releases a plan" if self._waiting else "step-through: no plan yet"
        return "" if self.speed > 0.0 else "the speed is 0"

    def _slowed(self, chunk: ActionChunk) -> ActionChunk:
        if self.speed >= 1.0:
            return chunk
        period_ns = min(round(chunk.period_ns / self.speed), MAX_PERIOD_NS)
        return replace(chunk, t0_ns=chunk.t0_ns + 1, period_ns=period_ns)
