"""Rows of the fault matrix on running processes: the executor and a policy, frozen, stopped and interrupted for real.

The test plays the arm, which is where the last state says that its reference is, and the sync. It is deaf to the
pauses of a busy machine: limits and times are the business of the tests whose time is driven by hand.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from e0_msgs.msg import ExecutorState
from e0_policy.embodiment import load_embodiment
from e0_policy.types import ActionChunk, Observation
from e0_ros import interfaces
from e0_ros.conversions import chunk_to_msg, observation_to_msg, to_ns, to_time
from e0_ros.graph_client import GraphClient

pytestmark = [pytest.mark.ros, pytest.mark.timeout(600)]
ARM = load_embodiment("fr3")
MS = 1_000_000
PERIOD_NS = 50 * MS
RATE_HZ = 20.0
MAX_AGE_MS = 2000.0
CALM = {
    "joint_max_age_ms": 1000.0,
    "span_ms": 1000.0,
    "source_silence_ms": 2000.0,
    "max_chunk_age_ms": MAX_AGE_MS,
    "command_rate_hz": RATE_HZ,
    "tick_rate_hz": 50.0,
    "lead_ms": 50.0,
    "stop_lead_ms": 50.0,
    "realtime_priority": 0,
}


class Live(GraphClient):
    """Processes of nodes, what the executor said and sent, and the world around them."""

    def __init__(self, folder: Path) -> None:
        super().__init__(60.0)
        self.folder, self.processes = folder, {}
        self.states: list[ExecutorState] = []
        self.sent: list = []
        self._joints, self._chunks, self._observations = (
            self.create_publisher(interfaces.message_class(t.type), t.name, t.qos.profile())
            for t in (interfaces.JOINT_STATES, interfaces.ACTION_CHUNK, interfaces.OBSERVATION)
        )
        self._listen(interfaces.EXECUTOR_STATE, self.states.append)
        self._listen(interfaces.TRAJECTORY, self.sent.append)
        self.create_timer(0.02, self._live)

    def start(self, name: str, **parameters: object) -> None:
        words = [word for key, value in parameters.items() for word in ("-p", f"{key}:={value}")]
        command = [sys.executable, "-m", f"e0_ros.nodes.{name}", "--ros-args", *words]
        self.processes[name] = subprocess.Popen(command, stderr=subprocess.DEVNULL)

    def close(self) -> None:
        for process in self.processes.values():
            process.kill()
            process.wait()
        super().close()

    def _live(self) -> None:
        """A joint state, and an observation, of now."""
        now_ns, state = time.time_ns(), self.states[-1] if self.states else None
        q = list(state.positions) if state and len(state.positions) else ARM.home.tolist()
        msg = interfaces.message_class(interfaces.JOINT_STATES.type)(name=list(ARM.joint_names))
        msg.position, msg.velocity, msg.header.stamp = q, [0.0] * 7, to_time(now_ns)
        self._joints.publish(msg)
        if "policy" in self.processes:
            views, fields = {"base": np.zeros((4, 4, 3), np.uint8)}, {"joint_names": ARM.joint_names}
            seen = Observation(now_ns, views, np.array(q), 1.0, embodiment="fr3", **fields)
            self._observations.publish(observation_to_msg(seen, ARM.base_frame, now_ns))

    def until(self, done: Callable[[], object], seconds: float = 120.0) -> None:
        end = time.monotonic() + seconds
        while not done():
            assert time.monotonic() < end, [f"{s.mode} {s.reason}; {s.last_refusal}" for s in self.states[-2:]]
            self.spin(0.02)

    def mode(self) -> int:
        return self.states[-1].mode if self.states else -1

    def speed(self) -> float:
        return float(np.abs(self.states[-1].velocities).max())

    def offer_plan(self) -> None:
        """50 s of slow waves."""
        now_ns = time.time_ns()
        rows = ARM.home + 0.2 * (1 - np.cos(0.03 * np.arange(1000)))[:, None]
        rows = np.column_stack((rows, np.ones(len(rows))))
        fields = {"embodiment": "fr3", "joint_names": ARM.joint_names}
        chunk = ActionChunk(rows, now_ns, PERIOD_NS, "scripted", "a", now_ns, **fields)
        self._chunks.publish(chunk_to_msg(chunk, now_ns))

    def move(self) -> None:
        """The executor alone, following a plan, and fast."""
        self.start("chunk_executor", **{**CALM, "source_silence_ms": 60000.0})
        self.until(lambda: self.states and len(self.states[-1].positions))
        self.run(self.offer_plan)

    def run(self, offer: Callable[[], None]) -> None:
        """Arm, and again where a busy machine makes the executor hold; until the reference is fast.

        Skips the test where the executor stands still for seconds: no figure of it would mean anything there.
        """
        end = time.monotonic() + 60.0
        while self.mode() != ExecutorState.RUNNING or self.speed() < 0.02 or len(self.sent) < 4:
            if time.monotonic() > end:
                pytest.skip(f"this machine is too busy for real time: {self.states[-1].reason}")
            if self.mode() == ExecutorState.DISARMED:
                self.arm(to_time(0))
            if self.mode() != ExecutorState.RUNNING:
                offer()
            self.spin(0.2)

    def freeze(self, name: str, seconds: float) -> int:
        """Stop a process for a time, and live on meanwhile; when it went on [ROS time, ns]."""
        process = self.processes[name]
        process.send_signal(signal.SIGSTOP)
        try:
            self.spin(seconds)
        finally:
            resumed_ns = time.time_ns()
            process.send_signal(signal.SIGCONT)
        return resumed_ns

    def since(self, ros_ns: int) -> list[ExecutorState]:
        return [state for state in self.states if to_ns(state.header.stamp) >= ros_ns]


@pytest.fixture
def live(tmp_path: Path) -> Iterator[Live]:
    made = Live(tmp_path)
    yield made
    made.close()


def test_a_policy_that_was_frozen_for_5_s_is_held_and_its_old_plans_are_not_followed(
    live: Live, record_property
) -> None:
    rows = np.column_stack([ARM.home + 0.1 * np.sin(0.02 * np.arange(4000))[:, None], np.ones(4000)])
    np.savez(live.folder / "plan.npz", rows=rows, period_ns=PERIOD_NS, embodiment="fr3")
    live.start("chunk_executor", **CALM)
    live.start("policy", policy="replay", recording=live.folder / "plan.npz", max_observation_age_ms=1000.0)
    live.until(lambda: live.states and len(live.states[-1].positions))
    live.run(lambda: None)
    begin_ns = time.time_ns()
    resumed_ns = live.freeze("policy", 5.0)
    assert any(s.mode == ExecutorState.HOLD for s in live.since(begin_ns)), "while it was frozen"
    live.run(lambda: None)
    running = [s for s in live.since(resumed_ns) if s.mode == ExecutorState.RUNNING]
    followed = {(s.session, s.sequence): to_ns(s.t0) for s in running}
    stale = [t0_ns for t0_ns in followed.values() if t0_ns < resumed_ns - MAX_AGE_MS * MS]
    record_property("figure", f"{len(stale)} of {len(followed)} plans followed after 5 s were from before")
    assert followed and not stale


@pytest.mark.parametrize("pause_ms", [50, 200, 1000])
def test_a_frozen_executor_sends_no_burst(live: Live, pause_ms: int, record_property) -> None:
    live.move()
    begin_ns = time.time_ns()
    resumed_ns = live.freeze("chunk_executor", pause_ms / 1e3)
    live.until(lambda: live.since(resumed_ns + 600 * MS))
    stamps = [to_ns(msg.header.stamp) + 20 * MS for msg in live.sent]
    frozen = [ns for ns in stamps if begin_ns + 20 * MS < ns < resumed_ns]
    after = [ns for ns in stamps if resumed_ns <= ns < resumed_ns + 500 * MS]
    record_property("figure", f"{pause_ms} ms: {len(after)} commands in the 0.5 s after; its rate is 10")
    assert not frozen and len(after) <= 12


def test_a_stop_that_came_while_the_executor_was_frozen_is_obeyed_before_any_motion(live: Live) -> None:
    live.move()
    live.spin(0.1)
    live.processes["chunk_executor"].send_signal(signal.SIGSTOP)
    future = live._client(interfaces.STOP).call_async(interfaces.message_class(interfaces.STOP.type).Request())
    live.spin(0.5)
    resumed_ns = time.time_ns()
    live.processes["chunk_executor"].send_signal(signal.SIGCONT)
    live.until(future.done)
    live.until(lambda: live.mode() == ExecutorState.STOPPED and live.speed() == 0.0)
    late = [s for s in live.since(resumed_ns + 250 * MS) if s.mode == ExecutorState.RUNNING]
    assert not late and not live.request(interfaces.ARM).success


def test_an_interrupt_in_motion_ends_at_rest(live: Live, record_property) -> None:
    live.move()
    os.kill(live.processes["chunk_executor"].pid, signal.SIGINT)
    live.until(lambda: live.processes["chunk_executor"].poll() is not None)
    assert live.processes["chunk_executor"].returncode == 0
    live.spin(0.2)
    last = live.sent[-1].points[-1]
    assert not any(last.velocities) and not any(last.accelerations)
    record_property("figure", "Ctrl-C in motion: the last command ends at rest")
