"""Processor time of the executor's tick: planning, every check up to the braking's end, and the message that is sent.

Time is driven by hand at 250 Hz, the arm is where its reference is. A policy sends 16 rows of 50 ms every 200 ms, a
hand 5 rows of 15 ms every 8 ms. `python -m e0_ros.bench.executor --seconds 60`.
"""

from __future__ import annotations

import argparse
import gc
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from e0_policy.embodiment import load_embodiment
from e0_policy.types import ActionChunk
from e0_ros.core.chunk_executor import ChunkExecutor, Mode
from e0_ros.core.executor_types import ExecutorConfig
from e0_ros.executor_messages import TrajectoryMessage
from e0_ros.graph import TELEOP_PACE

MS = 1_000_000
TICK_NS = 4 * MS
WARM_UP_TICKS = 250
TARGETS = {"policy_command_p99_ms": "<= 2", "teleop_command_p99_ms": "<= 2"}


@dataclass(frozen=True)
class Source:
    """Who sends chunks, how often, of how many rows how far apart, and what the executor's settings are then."""

    name: str
    every_ns: int
    rows: int
    period_ns: int
    settings: dict[str, float]


SOURCES = (Source("policy", 200 * MS, 16, 50 * MS, {}), Source("teleop", 8 * MS, 5, 15 * MS, dict(TELEOP_PACE)))


def run(seconds: float = 10.0) -> dict[str, float]:
    """Run each source for about half of the time, by the wall clock.

    `<source>_tick_*` counts all ticks, `<source>_command_*` those that plan and send. `<source>_offer_*` is what
    a chunk takes when it comes in, between two ticks.
    """
    figures: dict[str, float] = {}
    gc.collect()
    gc.freeze()  # as the node does
    for source in SOURCES:
        ticks_ms, sent, offers_ms = _ticks(source, time.monotonic() + seconds / len(SOURCES))
        for name, chosen in (("tick", ticks_ms), ("command", ticks_ms[sent]), ("offer", offers_ms)):
            p50, p99, largest = np.percentile(chosen, [50, 99, 100])
            here = f"{source.name}_{name}"
            figures |= {f"{here}_p50_ms": p50, f"{here}_p99_ms": p99, f"{here}_max_ms": largest}
            figures[f"{here}s"] = len(chosen)
    return figures


def _ticks(source: Source, until_s: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Processor time of each tick [ms], whether it sent a command, and processor time of each offer [ms]."""
    arm = load_embodiment("fr3")
    core = ChunkExecutor(ExecutorConfig(**source.settings))
    message, still = TrajectoryMessage(arm.joint_names), np.zeros(arm.joints)
    now_ns, sequence, times_ns, sent, offers_ns = 10**12, 0, [], [], []
    core.observe_joints(now_ns, arm.joint_names, arm.home, still)
    core.arm(now_ns)
    while time.monotonic() < until_s or len(times_ns) <= 2 * WARM_UP_TICKS:
        now_ns += TICK_NS
        reference = core.status(now_ns).reference
        assert reference is not None
        core.observe_joints(now_ns, arm.joint_names, reference.position, still)
        if now_ns % source.every_ns == 0:
            sequence += 1
            phases = (now_ns + source.period_ns * np.arange(source.rows)) % (10**12) / 1e9
            joints = arm.home + 0.1 * np.sin(phases)[:, None] * np.ones(arm.joints)
            rows = np.column_stack((joints, np.ones(source.rows)))
            chunk = ActionChunk(
                rows, now_ns, source.period_ns, source.name, "bench", sequence, embodiment=arm.name,
                joint_names=arm.joint_names,
            )  # fmt: skip
            begin_ns = time.thread_time_ns()
            refusal = core.offer(chunk, now_ns)
            offers_ns.append(time.thread_time_ns() - begin_ns)
            if refusal:
                raise RuntimeError(f"the executor refused a chunk of this benchmark: {refusal.reason}")
        begin_ns = time.thread_time_ns()
        tick = core.tick(now_ns)
        if tick.command:
            message.of(tick.command)
        times_ns.append(time.thread_time_ns() - begin_ns)
        sent.append(tick.command is not None)
    if core.mode is not Mode.RUNNING:
        raise RuntimeError(f"the executor did not follow to the end: {core.mode.name}, {core.status(now_ns).reason}")
    few = WARM_UP_TICKS * TICK_NS // source.every_ns
    return np.array(times_ns[WARM_UP_TICKS:]) / 1e6, np.array(sent[WARM_UP_TICKS:]), np.array(offers_ns[few:]) / 1e6


def main(args: Sequence[str] | None = None) -> int:
    """Run the measurement and print its figures with their targets."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=10.0, help="duration (default: 10)")
    for name, value in run(parser.parse_args(args).seconds).items():
        print(f"{name:<24}{value:>12.3f}   {TARGETS.get(name, '')}".rstrip())
    return 0


if __name__ == "__main__":
    sys.exit(main())
