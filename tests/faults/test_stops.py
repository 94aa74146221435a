"""Row 34: every way to stop starts to brake within 10 ms, is latched, and brings the arm to rest in time."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from itertools import product

import numpy as np
import pytest

from e0_policy.embodiment import load_embodiment
from e0_policy.types import ActionChunk
from e0_ros import interfaces
from e0_ros.conversions import chunk_to_msg, to_ns, to_time
from e0_ros.core.command import State
from e0_ros.core.executor_types import ExecutorConfig
from e0_ros.core.limiter import Limits, brake
from sim.hostile import stop_times
from tests.faults.scale import scaled

MS = 1_000_000
FR3, CONFIG = load_embodiment("fr3"), ExecutorConfig()
LIMITS = Limits.of(FR3, CONFIG.velocity_scale, CONFIG.acceleration_scale, CONFIG.jerk_scale)
BOUND_MS = 1e3 * (FR3.velocity / FR3.acceleration + FR3.acceleration / FR3.jerk)


def test_stopping_times_are_within_the_physical_bound(record_property) -> None:
    """v/a + a/j at the arm's own limits: what no controller can do in less from full speed, with all of the jerk."""
    np.testing.assert_allclose(BOUND_MS, [264, 264, 264, 264, 528, 420, 528], atol=0.5)
    worst = np.zeros(7)
    for velocity, acceleration in product((-1.0, 1.0), (0.0, 0.5, 1.0)):
        v = velocity * LIMITS.velocity
        a = -np.sign(velocity) * acceleration * LIMITS.acceleration
        stop = brake(LIMITS, State(FR3.home, v, a), 0)
        worst = np.maximum(worst, 1e3 * stop_times(stop))
    record_property("figure", "at rest after " + ", ".join(f"{t:.0f}" for t in worst[[0, 5, 6]]) + " ms at full speed")
    assert (worst <= BOUND_MS).all() and (worst > 0.8 * BOUND_MS).all()


def test_stops_are_as_short_as_an_oracle_makes_them(record_property) -> None:
    ruckig = pytest.importorskip("ruckig", reason="ruckig is not installed (extra [dev])")
    rng, worst_ms = np.random.default_rng(2), 0.0
    for _ in range(scaled(100, 3_000)):
        v = rng.uniform(-1, 1, 7) * LIMITS.velocity
        a = rng.uniform(-1, 1, 7) * LIMITS.acceleration
        ours = 1e3 * stop_times(brake(LIMITS, State(FR3.home, v, a), 0))
        asked, result = ruckig.InputParameter(7), ruckig.Trajectory(7)
        asked.control_interface, asked.synchronization = ruckig.ControlInterface.Velocity, ruckig.Synchronization.No
        asked.current_position, asked.current_velocity, asked.current_acceleration = FR3.home, v, a
        asked.target_velocity, asked.target_acceleration = np.zeros(7), np.zeros(7)
        asked.max_acceleration, asked.max_jerk = LIMITS.acceleration, LIMITS.jerk
        assert ruckig.Ruckig(7).calculate(asked, result) == ruckig.Result.Working
        theirs = 1e3 * np.array(result.independent_min_durations)
        worst_ms = max(worst_ms, float((ours - theirs).max()))
    record_property("figure", f"at most {worst_ms:.1f} ms longer than ruckig's")
    assert worst_ms <= 5.0, "three phases, each rounded up to whole milliseconds"


class Rig:
    """The executor's node in this process, with an arm that is where its reference is; joints come without DDS.

    Its ROS time is driven by hand, a tick of 4 ms per turn; the heartbeat's is the steady clock's.
    """

    def __init__(self, *parameters: str) -> None:
        import rclpy
        from rclpy.executors import SingleThreadedExecutor

        from e0_ros.nodes.chunk_executor import ChunkExecutorNode

        words = [word for parameter in ("heartbeat_ms:=2000.0", *parameters) for word in ("-p", parameter)]
        rclpy.init(args=["--ros-args", *words])
        self.node, self.bench, self.now_ns = ChunkExecutorNode(), rclpy.create_node("bench"), 10**12
        self.node._now_ns = lambda: self.now_ns
        self.spinner = SingleThreadedExecutor()
        self.spinner.add_node(self.node)
        self.spinner.add_node(self.bench)
        self.states: list = []
        topic = interfaces.EXECUTOR_STATE
        kind = interfaces.message_class(topic.type)
        self.bench.create_subscription(kind, topic.name, self.states.append, topic.qos.profile())
        topic = interfaces.HEARTBEAT
        self.beats = self.bench.create_publisher(interfaces.message_class(topic.type), topic.name, topic.qos.profile())
        self.until(
            lambda: self.beats.get_subscription_count() and self.bench.count_publishers(interfaces.EXECUTOR_STATE.name)
        )

    def until(self, done: Callable[[], object], beat: bool = False) -> None:
        end = time.monotonic() + 60.0
        while not done():
            assert time.monotonic() < end, self.states[-1:] or "no state"
            if beat:
                self.beat(True)
            self.now_ns += 4 * MS
            self.measure()
            self.spinner.spin_once(timeout_sec=0.002)
            self.node.watch()
            self.node.tick()

    def beat(self, well: bool) -> None:
        self.beats.publish(interfaces.message_class(interfaces.HEARTBEAT.type)(data=well))

    def measure(self) -> None:
        now_ns = self.now_ns
        reference = self.node.core.status(now_ns).reference
        q = FR3.home if reference is None else reference.position
        self.node.core.observe_joints(now_ns, FR3.joint_names, q, np.zeros(7))

    def call(self, service, beat: bool = False):
        kind = interfaces.message_class(service.type)
        client = self.bench.create_client(kind, service.name)
        self.until(client.service_is_ready, beat)
        future = client.call_async(kind.Request())
        self.until(future.done, beat)
        return future.result()

    def move(self, beat: bool = False) -> None:
        """Arm, and follow a motion until the reference is fast."""
        assert self.call(interfaces.ARM, beat).success
        now_ns = self.now_ns
        rows = FR3.home + 0.2 * (1 - np.cos(np.linspace(0, 100, 1000)))[:, None]
        fields = {"embodiment": "fr3", "joint_names": FR3.joint_names}
        chunk = ActionChunk(np.column_stack((rows, np.ones(1000))), now_ns, 50 * MS, "scripted", "a", 1, **fields)
        self.node._offer(chunk_to_msg(chunk, now_ns), now_ns)
        self.until(
            lambda: self.states and self.states[-1].mode == 2 and np.abs(self.states[-1].velocities).max() > 0.1, beat
        )
        self.states.clear()

    def close(self) -> None:
        import rclpy

        self.spinner.shutdown()
        self.node.destroy_node()
        self.bench.destroy_node()
        rclpy.try_shutdown()


@pytest.fixture
def rig() -> Iterator[Callable[..., Rig]]:
    made: list[Rig] = []

    def make(*parameters: str) -> Rig:
        made.append(Rig(*parameters))
        return made[-1]

    yield make
    for each in made:
        each.close()


WAYS = {
    "service": (lambda r: r.call(interfaces.STOP), "stopped on request"),
    "pressed": (lambda r: r.beat(False), "the emergency stop is pressed"),
    "silent": (lambda r: None, "the heartbeat is silent for"),
}


@pytest.mark.ros
@pytest.mark.parametrize("way", WAYS)
def test_every_way_to_stop_brakes_within_10_ms_and_is_latched(
    rig: Callable[..., Rig], way: str, record_property
) -> None:
    r, (stop, reason) = rig("source_silence_ms:=60000.0"), WAYS[way]
    r.move(beat=way != "service")
    stop(r)
    r.until(lambda: any(s.mode == 4 for s in r.states))
    first = next(s for s in r.states if s.mode == 4)
    assert first.reason.startswith(reason)
    braking_ms = (to_ns(first.committed_until) - to_ns(first.header.stamp)) / MS
    record_property("figure", f"{way}: braking after {braking_ms:.0f} ms")
    assert braking_ms <= 10
    r.until(lambda: not np.abs(r.states[-1].velocities).any())
    assert not r.call(interfaces.ARM).success, "latched"
    beat = way == "pressed"
    if beat:
        r.beat(False)
        r.until(lambda: r.node._heartbeat._pressed)
        assert r.call(interfaces.RESET_STOP).message == reason, "a button that is pressed is not reset"
        r.beat(True)
        r.until(lambda: not r.node._heartbeat._pressed)
    assert r.call(interfaces.RESET_STOP, beat).success
    assert r.call(interfaces.ARM, beat).success


@pytest.mark.ros
def test_a_required_heartbeat_is_needed_to_arm(rig: Callable[..., Rig]) -> None:
    r = rig("heartbeat_required:=true")
    refused = r.call(interfaces.ARM)
    assert not refused.success and "start e0 estop" in refused.message
    assert r.call(interfaces.ARM, beat=True).success


class Processes:
    """A node's process, and `e0 estop` with keys from a pipe."""

    def __init__(self) -> None:
        import rclpy

        self.node, self.states, self.made = rclpy.create_node("bench"), [], []
        topic = interfaces.EXECUTOR_STATE
        kind = interfaces.message_class(topic.type)
        self.node.create_subscription(kind, topic.name, self.states.append, topic.qos.profile())
        topic = interfaces.JOINT_STATES
        self.joints = self.node.create_publisher(interfaces.message_class(topic.type), topic.name, topic.qos.profile())

    def start(self, *command: str) -> subprocess.Popen:
        process = subprocess.Popen([sys.executable, "-m", *command], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.made.append(process)
        return process

    def until(self, done: Callable[[], object]) -> None:
        import rclpy

        end = time.monotonic() + 60.0
        while not done():
            assert time.monotonic() < end, self.states[-1:] or "no state"
            rclpy.spin_once(self.node, timeout_sec=0.02)

    def send_joints(self) -> None:
        msg = interfaces.message_class(interfaces.JOINT_STATES.type)(name=list(FR3.joint_names))
        msg.position, msg.velocity = FR3.home.tolist(), [0.0] * 7
        msg.header.stamp = to_time(self.node.get_clock().now().nanoseconds)
        self.joints.publish(msg)

    def mode(self, number: int, text: str = "") -> Callable[[], bool]:
        return lambda: bool(self.states) and self.states[-1].mode == number and text in self.states[-1].reason

    def close(self) -> None:
        for process in self.made:
            process.kill()
            process.communicate()
        self.node.destroy_node()


@pytest.fixture
def processes(ros: None) -> Iterator[Processes]:
    made = Processes()
    yield made
    made.close()


@pytest.mark.ros
def test_the_key_stops_a_running_executor_and_only_a_reset_releases_it(processes: Processes) -> None:
    p = processes
    p.start("e0_ros.nodes.chunk_executor", "--ros-args", "-p", "heartbeat_ms:=5000.0")
    p.until(p.mode(0, "not armed yet"))
    estop = p.start("e0_ros.cli", "estop")
    p.until(lambda: p.node.count_publishers(interfaces.HEARTBEAT.name))
    assert estop.stdout.readline().decode().startswith("any key stops the arm")
    assert b"DISARMED" in estop.stdout.readline()
    estop.stdin.write(b" ")
    estop.stdin.flush()
    p.until(p.mode(4, "the emergency stop is pressed"))
    estop.stdin.write(b"r")
    estop.stdin.flush()
    p.until(p.mode(0, "stop was reset"))
    estop.send_signal(signal.SIGKILL)
    p.until(p.mode(4, "the heartbeat is silent for"))


@pytest.mark.ros
def test_a_heartbeat_that_ends_stops_the_arm_also_in_lockstep(processes: Processes) -> None:
    """The steady clock goes on although the simulation, and with it ROS time, stands still."""
    from e0_ros.core.executor_types import Mode

    p = processes
    executor = ("e0_ros.nodes.chunk_executor", "--ros-args", "-p", "lockstep:=true", "-p", "use_sim_time:=true")
    p.start(*executor, "-p", "heartbeat_ms:=5000.0")
    client = p.node.create_client(interfaces.message_class(interfaces.ARM.type), interfaces.ARM.name)
    estop = p.start("e0_ros.cli", "estop")
    assert estop.stdout.readline()
    p.until(client.service_is_ready)
    future = client.call_async(interfaces.message_class(interfaces.ARM.type).Request())
    p.until(future.done)
    assert "no joint state" in future.result().message
    beats: list = []
    topic = interfaces.HEARTBEAT
    p.node.create_subscription(interfaces.message_class(topic.type), topic.name, beats.append, topic.qos.profile())
    p.until(lambda: len(beats) > 3)
    estop.send_signal(signal.SIGKILL)

    def stopped() -> bool:
        again = client.call_async(interfaces.message_class(interfaces.ARM.type).Request())
        p.until(again.done)
        return "reset_stop first" in again.result().message or "the heartbeat is silent" in again.result().message

    p.until(stopped)
    assert Mode.STOPPED == 4
