"""Row 40: an executor whose core others want as well. The judge, a process of its own, sees every command."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from std_msgs.msg import Header

from e0_msgs.msg import ExecutorState
from e0_ros.conversions import to_ns, to_time
from e0_ros.core.executor_types import ExecutorConfig, Tick
from e0_ros.launcher import Launcher
from e0_ros.resolve import resolve
from tests.faults.rig import MS, Rig
from tests.faults.scale import FULL, scaled
from tests.faults.watched import Watched, patient, recording

pytestmark = [pytest.mark.ros, pytest.mark.timeout(900 if FULL else 300)]
SETTINGS = {"bridge": {"judge": True}, "chunk_executor": {"realtime_priority": 0, "state_rate_hz": 1000.0}}
BUSY = "while True: pass"
CONFIG, TICK_MS = ExecutorConfig(), 4.0
MISSED_MS, LATE_MS = 3 * TICK_MS, CONFIG.span_ms + 1e3 / CONFIG.command_rate_hz + 2 * TICK_MS
"""Between two ticks: a tick that began more than a period late; a command that is late by more than its span."""
LOADS = ((2, 0), (8, 0), (8, 10)) if FULL else ((4, 0),)
"""Busy processes on the executor's core, and how nice the executor is to them."""


@contextmanager
def starved(pid: int, others: int, niceness: int) -> Iterator[None]:
    """Every thread of a process on one core, which others want too."""
    threads = [int(path.name) for path in Path(f"/proc/{pid}/task").iterdir()]
    before, core = os.sched_getaffinity(pid), min(os.sched_getaffinity(0))
    loops = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(others)]
    try:
        for loop in loops:
            os.sched_setaffinity(loop.pid, {core})
        for thread in threads:
            os.sched_setaffinity(thread, {core})
            os.setpriority(os.PRIO_PROCESS, thread, niceness)
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()
        for thread in threads:
            with suppress(ProcessLookupError):
                os.sched_setaffinity(thread, before)
                os.setpriority(os.PRIO_PROCESS, thread, 0)


def stalls(states: list[ExecutorState], longer_ms: float) -> list[tuple[ExecutorState, ExecutorState]]:
    """Neighbouring states further apart, of which none was lost on the way to the test: few commands came between."""
    apart = [(a, b) for a, b in pairwise(states) if to_ns(b.header.stamp) - to_ns(a.header.stamp) > 1e6 * longer_ms]
    return [(a, b) for a, b in apart if b.commands - a.commands <= 2]


def test_a_stall_is_told_from_lost_states() -> None:
    state = lambda ms, commands: ExecutorState(header=Header(stamp=to_time(int(ms * 1e6))), commands=commands)  # noqa: E731
    states = [state(0, 1), state(4, 1), state(204, 2), state(604, 22), state(608, 22)]
    assert stalls(states, 12.0) == [(states[1], states[2])] and stalls(states, 300.0) == []


def test_an_executor_that_is_starved_says_so_and_sends_nothing_illegal(tmp_path: Path, record_property) -> None:
    values = {"simulator": "fr3_plant", "source": "replay", "record": False, "size": 64}
    graph = patient(resolve("sim", {**values, "recording": str(recording(tmp_path / "plan"))}, SETTINGS))
    with Launcher(graph, tmp_path / "logs") as nodes:
        seen = Watched()
        try:
            nodes.wait_ready(120.0)
            seen.until(lambda: seen.states, "the executor")
            seen.arm_it()
            seen.until(seen.runs, "motion")
            for others, niceness in LOADS:
                with starved(nodes.pid("chunk_executor"), others, niceness):
                    seen.states.clear()
                    late = seen.value("chunk_executor", "late_ticks")
                    seen.spin(scaled(4, 30))
                states = list(seen.states)
                ticks_ms = np.diff([to_ns(s.header.stamp) for s in states]) / 1e6
                p50, worst = np.percentile(ticks_ms, (50, 99.9))
                held = np.mean([s.mode == ExecutorState.HOLD for s in states])
                figure = f"{others} others, nice {niceness}: tick {p50:.0f} ms, p99.9 {worst:.0f} ms, held {held:.0%}"
                record_property("figure", figure)
                assert worst > 8.0, "it was starved"
                assert {s.mode for s in states} <= {ExecutorState.RUNNING, ExecutorState.HOLD}, figure
                assert all(s.reason for s in states)
                # A tick that is late may end one stall and begin the next: half of them are told at least.
                missed = max(1, -(-len(stalls(states, MISSED_MS)) // 2))
                told = lambda late=late: seen.value("chunk_executor", "late_ticks") - late  # noqa: E731
                seen.until(lambda missed=missed, told=told: told() >= missed, f"word of {missed} late ticks")
                long = [pair for pair in stalls(states, LATE_MS) if pair[0].mode == ExecutorState.RUNNING]
                assert all(after.mode == ExecutorState.HOLD for _, after in long), "late by a command's span: a hold"
                record_property(
                    "figure",
                    f"{missed} late ticks or more, {told():.0f} told; {len(long)} of a command too late, each a hold",
                )
                seen.until(seen.runs, "motion again")
            setpoints, violations = seen.judged()
            record_property("figure", f"{violations} illegal of {setpoints} set-points")
            assert violations == 0
        finally:
            seen.close()


@pytest.mark.parametrize("lag_ms", [0.0, 60.0])
def test_a_command_that_became_too_late_is_not_sent_however_far_ahead_its_plan_is(
    rig: Callable[..., Rig], lag_ms: float
) -> None:
    """Held up for 45 ms between planning and sending, with a lead of 20; a lagging arm's plans are followed earlier."""
    r = rig("source_silence_ms:=60000.0", f"arm_lag_ms:={lag_ms}", "lead_ms:=20.0", "stop_lead_ms:=20.0")
    r.move()
    planned = r.node.core.tick

    def held_up(now_ns: int) -> Tick:
        tick = planned(now_ns)
        r.now_ns += 45 * MS if tick.command is not None else 0
        return tick

    r.node.core.tick = held_up
    sent = r.node._commands
    for _ in range(8):
        r.now_ns += 4 * MS
        r.measure()
        r.node.tick()
    assert r.node._withdrawn >= 1 and r.node._commands == sent
