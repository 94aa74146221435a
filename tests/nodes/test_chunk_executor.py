"""The node as its users see it: a process, topics and services."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from typing import Any

import numpy as np
import pytest

from e0_policy.embodiment import load_embodiment
from e0_policy.types import ActionChunk, NoChunk
from e0_ros import interfaces
from e0_ros.conversions import chunk_to_msg, to_ns, to_time

pytestmark = pytest.mark.ros
MS = 1_000_000
ARM = load_embodiment("panda")


class Bench:
    """A process of the node, and everything around it in this one."""

    def __init__(self, *parameters: str) -> None:
        import rclpy
        from rclpy.executors import SingleThreadedExecutor

        command = [sys.executable, "-m", "e0_ros.nodes.chunk_executor", "--ros-args"]
        for parameter in ("embodiment:=panda", *parameters):
            command += ["-p", parameter]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        self.node = rclpy.create_node("bench")
        self.spinner = SingleThreadedExecutor()
        self.spinner.add_node(self.node)
        self.got: dict[str, list] = {}
        for topic in (
            interfaces.TRAJECTORY,
            interfaces.EXECUTOR_STATE,
            interfaces.GRIPPER_COMMAND,
            interfaces.IMPEDANCE_TARGET,
            interfaces.DIAGNOSTICS,
        ):
            self.got[topic.name] = []
            kind = interfaces.message_class(topic.type)
            self.node.create_subscription(kind, topic.name, self.got[topic.name].append, topic.qos.profile())
        self.chunks = self._publisher(interfaces.ACTION_CHUNK)
        self.joints = self._publisher(interfaces.JOINT_STATES)
        self.follows = False
        """Whether the arm reports, whenever the bench waits for something, that it is where it was commanded."""
        self.callers: dict[str, Any] = {}

    def find(self) -> None:
        """Wait until the node is there."""
        self.until(lambda: self.chunks.get_subscription_count() and self.joints.get_subscription_count())
        self.until(lambda: self.node.count_publishers(interfaces.EXECUTOR_STATE.name))

    def _publisher(self, topic):
        return self.node.create_publisher(interfaces.message_class(topic.type), topic.name, topic.qos.profile())

    def until(self, condition, timeout_s: float = 90.0) -> None:
        end = time.monotonic() + timeout_s
        while not condition():
            assert self.process.poll() is None, self.process.stderr.read()
            assert time.monotonic() < end, "timed out"
            if self.follows:
                moves = self.states and self.states[-1].mode
                self.send_joints(self.now_ns(), self.states[-1].positions if moves else ARM.home)
            self.spinner.spin_once(timeout_sec=0.02)

    def all_of(self, topic) -> list:
        return self.got[topic.name]

    @property
    def states(self) -> list:
        return self.got[interfaces.EXECUTOR_STATE.name]

    def call(self, service):
        future = self.caller(service).call_async(interfaces.message_class(service.type).Request())
        self.until(future.done)
        return future.result()

    def caller(self, service):
        """A client of the service once it is there; a test makes it beforehand where the arm must not wait for it."""
        if service.name not in self.callers:
            kind = interfaces.message_class(service.type)
            self.callers[service.name] = self.node.create_client(kind, service.name)
        self.until(self.callers[service.name].service_is_ready)
        return self.callers[service.name]

    def send_joints(self, stamp_ns: int, positions=ARM.home) -> None:
        msg = interfaces.message_class(interfaces.JOINT_STATES.type)(name=list(ARM.joint_names))
        msg.header.stamp = to_time(stamp_ns)
        msg.position, msg.velocity = [float(q) for q in positions], [0.0] * 7
        self.joints.publish(msg)

    def now_ns(self) -> int:
        return self.node.get_clock().now().nanoseconds

    def close(self, number: int = signal.SIGINT) -> int:
        self.process.send_signal(number)
        code = self.process.wait(90)
        self.process.stderr.close()
        self.node.destroy_node()
        return code


@pytest.fixture
def bench(ros, request):
    made = []

    def start(*parameters: str) -> Bench:
        made.append(Bench(*parameters))
        made[-1].find()
        return made[-1]

    yield start
    for each in made:
        if each.process.poll() is None:
            each.close(signal.SIGKILL)


def plan(
    t_ns: int, sequence: int, opening: float = 1.0, in_reply_to_ns: int = 0, period_ns: int = 50 * MS
) -> ActionChunk:
    rows = np.column_stack((ARM.home + 0.01 * np.arange(1, 9)[:, None], np.full(8, opening)))
    fields = {"embodiment": "panda", "joint_names": ARM.joint_names, "in_reply_to_ns": in_reply_to_ns}
    return ActionChunk(rows, t_ns, period_ns, "scripted", "a", sequence, **fields)


def test_lockstep_ticks_once_per_answered_observation_in_any_order(bench) -> None:
    b = bench("lockstep:=true", "use_sim_time:=true")
    start = 10**9
    b.send_joints(start)
    b.until(lambda: b.call(interfaces.ARM).success)
    for k in range(1, 7):
        t = start + k * 50 * MS
        reply = plan(t, k, float(k < 4), t) if k % 2 else NoChunk(t, "keep", "scripted", "a", k)
        if k % 3:
            b.send_joints(t, ARM.home)
            b.chunks.publish(chunk_to_msg(reply, t))
        else:
            b.chunks.publish(chunk_to_msg(reply, t))
            b.send_joints(t, ARM.home)
        b.until(lambda k=k: len(b.states) >= k and len(b.all_of(interfaces.TRAJECTORY)) >= b.states[-1].commands)
        state = b.states[-1]
        assert (to_ns(state.header.stamp), state.commands, state.mode) == (t, k, 2)
        trajectory = b.all_of(interfaces.TRAJECTORY)[-1]
        assert to_ns(trajectory.header.stamp) == t - 20 * MS and tuple(trajectory.joint_names) == ARM.joint_names
        assert list(trajectory.points[-1].velocities) == [0.0] * 7
    assert len(b.states) == 6 and state.chunks_accepted == 3 and state.sequence == 5
    grips = b.all_of(interfaces.GRIPPER_COMMAND)
    b.until(lambda: len(grips) == 2)
    assert [(g.sequence, g.opening, to_ns(g.header.stamp)) for g in grips] == [
        (0, 1.0, start + 50 * MS),
        (1, 0.0, start + 250 * MS),
    ]
    assert b.close() == 0


def test_lockstep_waits_for_the_expected_source_and_sends_nothing_when_disarmed(bench) -> None:
    b = bench("lockstep:=true", "expected_source:=scripted")
    t = 10**9
    b.send_joints(t)
    b.chunks.publish(chunk_to_msg(NoChunk(t, "other", "policy", "p", 0), t))
    b.chunks.publish(chunk_to_msg(NoChunk(t, "mine", "scripted", "a", 0), t))
    b.until(lambda: b.states)
    b.chunks.publish(chunk_to_msg(NoChunk(t + 50 * MS, "other", "policy", "p", 1), t))
    b.send_joints(t + 50 * MS)
    b.chunks.publish(chunk_to_msg(NoChunk(t + 50 * MS, "mine", "scripted", "a", 1), t))
    b.until(lambda: len(b.states) >= 2)
    assert [(to_ns(s.header.stamp), s.mode, s.commands) for s in b.states] == [(t, 0, 0), (t + 50 * MS, 0, 0)]
    assert all(s.reason for s in b.states)
    assert b.close(signal.SIGTERM) == 0


def test_realtime_follows_a_chunk_holds_at_its_end_and_says_why(bench) -> None:
    b = bench("joint_max_age_ms:=1000.0", "span_ms:=1000.0")  # deaf to the pauses of a busy test machine
    refused = b.call(interfaces.ARM)
    assert not refused.success and "no joint state" in refused.message

    b.follows = True
    b.until(lambda: any(len(s.positions) for s in b.states))
    assert b.call(interfaces.ARM).success
    b.until(lambda: b.states[-1].mode == 1)
    b.chunks.publish(chunk_to_msg(plan(b.now_ns(), 0), b.now_ns()))
    b.until(lambda: b.states[-1].mode == 2)
    b.until(lambda: b.states[-1].mode == 3)
    assert "plan exhausted" in b.states[-1].reason
    np.testing.assert_allclose(b.states[-1].positions, ARM.home + 0.08, atol=1e-3)
    told = b.all_of(interfaces.DIAGNOSTICS)
    b.until(lambda: any("HOLD: plan exhausted" in status.message for msg in told for status in msg.status))
    broken = chunk_to_msg(plan(b.now_ns(), 1), b.now_ns())
    broken.data[3] = float("nan")
    b.chunks.publish(broken)
    b.until(lambda: b.states[-1].chunks_refused == 1)
    assert "finite" in b.states[-1].last_refusal
    assert b.call(interfaces.STOP).message.startswith("stopped")
    assert not b.call(interfaces.ARM).success
    assert b.call(interfaces.RESET_STOP).success
    assert b.call(interfaces.DISARM).success
    messages = b.all_of(interfaces.TRAJECTORY)
    ends = [to_ns(m.header.stamp) + to_ns(m.points[-1].time_from_start) for m in messages]
    stamps = [to_ns(m.header.stamp) for m in messages]
    assert stamps == sorted(stamps) and all(end > stamp for end, stamp in zip(ends, stamps, strict=True))
    assert b.close() == 0


def test_steps_are_released_one_by_one_and_an_arm_that_stops_by_itself_gets_nothing_more(bench) -> None:
    b = bench("joint_max_age_ms:=1000.0", "span_ms:=1000.0", "step_through:=true", "step_max_age_ms:=60000.0",
              "source_silence_ms:=60000.0", "arm_fault_required:=true", "arm_fault_ms:=60000.0")  # fmt: skip
    word = b._publisher(interfaces.ARM_FAULT)
    said = interfaces.message_class(interfaces.ARM_FAULT.type)

    b.follows = True
    b.until(lambda: word.get_subscription_count() and any(len(s.positions) for s in b.states))
    assert "has not spoken" in b.call(interfaces.ARM).message
    word.publish(said(data=""))
    b.until(lambda: b.call(interfaces.ARM).success)
    assert b.call(interfaces.STEP).message == "no plan waits"
    b.chunks.publish(chunk_to_msg(plan(b.now_ns(), 0, period_ns=300 * MS), b.now_ns()))
    b.until(lambda: b.call(interfaces.STEP).success)
    assert "the last step goes on" in b.call(interfaces.STEP).message
    b.until(lambda: b.states[-1].mode == 3)
    released = next(state for state in b.states if state.mode == 2)
    assert (released.source, released.chunks_accepted) == ("scripted", 1)
    np.testing.assert_allclose(b.states[-1].positions, ARM.home + 0.08, atol=1e-3)
    word.publish(said(data="reflex: joint_reflex"))
    b.until(lambda: b.states[-1].mode == 0)
    assert b.states[-1].reason == "the arm: reflex: joint_reflex"
    trajectories, commands = b.all_of(interfaces.TRAJECTORY), b.states[-1].commands
    b.until(lambda: len(trajectories) >= commands)  # those that were sent before are on their way
    assert b.call(interfaces.ARM).message == "the arm: reflex: joint_reflex"
    count = len(b.states)
    b.until(lambda: len(b.states) > count + 20)
    assert b.states[-1].commands == commands == len(trajectories)
    word.publish(said(data=""))
    b.until(lambda: b.call(interfaces.ARM).success)
    assert b.close() == 0


def test_the_impedance_output_never_pauses(bench) -> None:
    b = bench("output:=impedance")
    targets = b.all_of(interfaces.IMPEDANCE_TARGET)
    b.until(lambda: (b.send_joints(b.now_ns()), len(targets) > 20)[1])
    assert b.states[-1].mode == 0 and not b.all_of(interfaces.TRAJECTORY)
    assert tuple(targets[0].name) == ARM.joint_names
    np.testing.assert_array_equal(targets[-1].position, ARM.home)
    b.until(lambda: (b.send_joints(b.now_ns()), b.call(interfaces.ARM).success)[1])
    for act in (interfaces.HOLD, interfaces.STOP, interfaces.RESET_STOP, interfaces.DISARM):
        count = len(targets)
        assert b.call(act).success
        b.until(lambda count=count: len(targets) > count + 5)
    b.process.send_signal(signal.SIGSTOP)
    time.sleep(0.6)
    b.process.send_signal(signal.SIGCONT)
    b.until(lambda: "paused" in b.states[-1].reason)
    count, states = len(targets), len(b.states)
    b.until(lambda: len(b.states) > states + 10)
    assert len(targets) <= count + 1, "after a pause the controller may be dead: nothing is sent until armed again"
    b.until(lambda: (b.send_joints(b.now_ns()), b.call(interfaces.ARM).success)[1])
    b.until(lambda: len(targets) > count + 5)


def test_a_bad_parameter_is_one_line_and_exit_status_2() -> None:
    command = [sys.executable, "-m", "e0_ros.nodes.chunk_executor", "--ros-args", "-p"]
    for parameter, message in (
        ("embodiment:=fr4", "did you mean 'fr3'?"),
        ("span_ms:=5.0", "allowed is 10 to 1000"),
        ("spam_ms:=50.0", "did you mean 'span_ms'?"),
        ("speed:=2.0", "allowed is 0.0 to 1.0"),
        ("span_ms:=fast", "span_ms"),
    ):
        result = subprocess.run([*command, parameter], capture_output=True, text=True, timeout=60)
        assert result.returncode == 2
        assert message in result.stderr and len(result.stderr.strip().splitlines()) == 1
