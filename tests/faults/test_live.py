"""Rows of the fault matrix on running processes: bridge with the judge, sync, policy and executor in real time."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from e0_msgs.msg import ExecutorState
from e0_policy.embodiment import load_embodiment
from e0_ros import interfaces
from e0_ros.conversions import to_ns, to_time
from e0_ros.graph import CONTINUE
from e0_ros.graph_client import GraphClient
from e0_ros.launcher import Launcher
from e0_ros.resolve import resolve

pytestmark = [pytest.mark.ros, pytest.mark.timeout(600)]
MS = 1_000_000
NODES = ("bridge", "observation_sync", "policy", "chunk_executor")
SILENCE_MS = 1500.0
SETTINGS = {  # deaf to the pauses of a busy machine: the figures are those of the tests with time driven by hand
    "bridge": {"judge": True, "joint_state_rate_hz": 200},
    "observation_sync": {"joint_rate_hz": 200.0},
    "chunk_executor": {
        "joint_max_age_ms": 400.0,
        "lead_ms": 50.0,
        "stop_lead_ms": 50.0,
        "source_silence_ms": SILENCE_MS,
    },
}


class Live(GraphClient):
    """The graph, and everything that the executor said and sent."""

    def __init__(self, folder: Path) -> None:
        arm = load_embodiment("fr3")
        rows = arm.home + 0.15 * np.sin(np.linspace(0.0, 60.0, 2400))[:, None]
        rows = np.column_stack([rows, np.ones(len(rows))])
        np.savez(folder / "plan.npz", rows=rows, period_ns=50 * MS, embodiment="fr3")
        values = {"simulator": "fr3_plant", "source": "replay", "recording": str(folder / "plan.npz")}
        graph = resolve("sim", {**values, "views": ["base"], "size": 64, "bag_dir": str(folder)})
        processes = [
            replace(p, on_death=CONTINUE, settings={**p.settings, **SETTINGS.get(p.name, {})})
            for p in graph.processes
            if p.name in NODES
        ]
        self.launcher = Launcher(replace(graph, processes=tuple(processes)), folder / "logs")
        super().__init__(60.0)
        self.states: list[ExecutorState] = []
        self.sent_ns: list[int] = []
        self.judged: list[int] = []
        self._listen(interfaces.EXECUTOR_STATE, self.states.append)
        self._listen(interfaces.TRAJECTORY, lambda msg: self.sent_ns.append(to_ns(msg.header.stamp)))
        self._listen(interfaces.DIAGNOSTICS, self._on_bridge)
        self.launcher.start()
        self.launcher.wait_ready(120.0)

    def _on_bridge(self, msg) -> None:
        for status in msg.status:
            if status.name == "bridge":
                values = {v.key: v.value for v in status.values}
                self.judged.append(int(values["violations"]) + int(values["refused"]))

    def until(self, done: Callable[[], object], seconds: float = 90.0) -> None:
        end = time.monotonic() + seconds
        while not done():
            assert time.monotonic() < end, [f"{s.mode} {s.reason}" for s in self.states[-3:]]
            self.spin(0.02)

    def move(self) -> None:
        """Follow the recording from its start until the arm is fast."""
        self.call(interfaces.RESET_POLICY)
        self.arm(to_time(0))
        self.until(lambda: self.states and self.states[-1].mode == ExecutorState.RUNNING and self.fast())

    def fast(self) -> bool:
        return bool(np.abs(self.states[-1].velocities).max() > 0.05)

    def calm(self) -> None:
        """Come to rest; the judge found nothing, and no command was refused."""
        if self.states[-1].mode == ExecutorState.STOPPED:
            self.call(interfaces.RESET_STOP)
        self.call(interfaces.DISARM)
        seen = len(self.judged)
        self.until(lambda: self.at_rest() and len(self.judged) > seen)
        assert self.judged[-1] == 0

    def at_rest(self) -> bool:
        return not np.abs(self.states[-1].velocities).any()

    def freeze(self, name: str, seconds: float) -> int:
        """Stop a process for a time, and hear what comes meanwhile; when it went on [ROS time, ns]."""
        pid = self.launcher.pid(name)
        os.kill(pid, signal.SIGSTOP)
        try:
            self.spin(seconds)
        finally:
            resumed_ns = time.time_ns()
            os.kill(pid, signal.SIGCONT)
        return resumed_ns

    def said_since(self, ros_ns: int) -> list[ExecutorState]:
        return [s for s in self.states if to_ns(s.header.stamp) >= ros_ns]


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    made = Live(tmp_path_factory.mktemp("live"))
    yield made
    made.close()
    made.launcher.stop()


def test_a_policy_that_was_frozen_for_5_s_is_held_and_its_old_plans_are_not_followed(
    live: Live, record_property
) -> None:
    live.move()
    begin_ns = time.time_ns()
    resumed_ns = live.freeze("policy", 5.0)
    held = next(s for s in live.said_since(begin_ns) if s.mode == ExecutorState.HOLD)
    assert held.reason.startswith(("plan exhausted", "replay is silent")), held.reason
    assert live.at_rest()
    live.until(lambda: live.states[-1].mode == ExecutorState.RUNNING and live.fast())
    followed = {
        (s.session, s.sequence): to_ns(s.t0) for s in live.said_since(resumed_ns) if s.mode == ExecutorState.RUNNING
    }
    stale = [t0_ns for t0_ns in followed.values() if t0_ns < resumed_ns - 500 * MS]
    record_property("figure", f"{len(stale)} of {len(followed)} plans followed afterwards were from before")
    assert followed and not stale
    live.calm()


@pytest.mark.parametrize("pause_ms", [50, 200, 1000])
def test_a_frozen_executor_sends_no_burst(live: Live, pause_ms: int, record_property) -> None:
    live.move()
    begin_ns, live.sent_ns = time.time_ns(), []
    resumed_ns = live.freeze("chunk_executor", pause_ms / 1e3)
    live.until(
        lambda: (
            (live.sent_ns and live.sent_ns[-1] > resumed_ns + 500 * MS) or live.states[-1].mode == ExecutorState.HOLD
        )
    )
    live.spin(0.6)
    frozen = [ns for ns in live.sent_ns if begin_ns + 30 * MS < ns < resumed_ns - 30 * MS]
    after = [ns for ns in live.sent_ns if resumed_ns - 30 * MS <= ns < resumed_ns + 470 * MS]
    record_property("figure", f"{pause_ms} ms: {len(after)} commands in the 0.5 s after, 25 to 27 in time")
    assert not frozen and len(after) <= 28
    live.calm()


def test_without_joint_states_the_arm_is_braked(live: Live) -> None:
    live.move()
    begin_ns = time.time_ns()
    live.freeze("bridge", 1.5)
    held = next(s for s in live.said_since(begin_ns) if s.mode == ExecutorState.HOLD)
    assert "joint state is" in held.reason and live.at_rest()
    live.calm()


def test_a_stop_that_came_while_the_executor_was_frozen_is_obeyed_before_any_motion(live: Live) -> None:
    live.move()
    pid = live.launcher.pid("chunk_executor")
    os.kill(pid, signal.SIGSTOP)
    try:
        stop = live._client(interfaces.STOP)
        future = stop.call_async(interfaces.message_class(interfaces.STOP.type).Request())
        live.spin(0.5)
    finally:
        resumed_ns = time.time_ns()
        os.kill(pid, signal.SIGCONT)
    live.until(future.done)
    live.until(lambda: live.states[-1].mode == ExecutorState.STOPPED and live.at_rest())
    modes = [s.mode for s in live.said_since(resumed_ns)]
    assert ExecutorState.RUNNING not in modes
    assert not live.request(interfaces.ARM).success
    live.calm()


def test_an_interrupt_in_motion_ends_at_rest(live: Live) -> None:
    live.move()
    os.kill(live.launcher.pid("chunk_executor"), signal.SIGINT)
    live.until(lambda: live.launcher.status()["chunk_executor"] is not None)
    assert live.launcher.status()["chunk_executor"] == 0
    speeds: list[float] = []
    live._listen(interfaces.JOINT_STATES, lambda msg: speeds.append(float(np.abs(msg.velocity).max())))
    live.until(lambda: len(speeds) > 20 and max(speeds[-20:]) < 0.005)
    seen = len(live.judged)
    live.until(lambda: len(live.judged) > seen)
    assert live.judged[-1] == 0
