"""From a reading of the leader to the command at the controller: a fake GELLO on a pseudo-terminal, over real topics.

Processes as on the bench: the leader, whose answers take as long as on the wire, the real gello_teleop and
chunk_executor, and an ideal arm with joint states at 1 kHz, which notes when a command arrives. Leader and arm stand
for hardware and for ros2_control, which runs at real-time priority, and ask for the same.
`python -m e0_ros.bench.teleop --seconds 60`.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import rclpy
from rclpy.signals import SignalHandlerOptions
from sensor_msgs.msg import JointState
from trajectory_msgs.msg import JointTrajectory

from e0_msgs.msg import ActionChunk as ChunkMsg
from e0_policy.embodiment import load_embodiment
from e0_policy.resources import config_dir
from e0_ros import interfaces
from e0_ros.bench.processes import environment, start
from e0_ros.conversions import to_ns, to_time
from e0_ros.core.chunk_executor import Mode
from e0_ros.core.command import Command
from e0_ros.graph import TELEOP_PACE
from e0_ros.nodes.chunk_executor import ChunkExecutorNode
from e0_ros.nodes.chunk_executor import run as run_executor
from e0_ros.polled import Polled

TARGETS = {"latency_p99_ms": "<= 15", "commands_per_reading": ">= 1"}
LED_S = 3.0
_READY_S = 60.0
_PERIOD_NS = 1_000_000
_HARDWARE_PRIORITY = 50  # that of ros2_control's controller manager


def run(seconds: float = 60.0) -> dict[str, float]:
    """Measure for some seconds of leading, after the first three.

    `latency_*` is from the leader's reading (when its servos were asked) to the arrival of the first command that
    follows that reading or a later one in the process of the controller, without what Python takes to read it;
    `chunk_*` is from the reading to the executor, and so without the wait for a command.
    """
    environ = environment()
    with tempfile.TemporaryDirectory() as folder:
        traces = {role: Path(folder) / f"{role}.npz" for role in ("executor", "arm")}
        children = [_child(environ, "leader", folder)]
        try:
            port = children[0].stdout.readline().strip() if children[0].stdout else ""
            children += [_child(environ, role, str(trace)) for role, trace in traces.items()]
            children.append(start(environ, "e0_ros.nodes.gello_teleop", "--ros-args", "-p", f"port:={port}"))
            _wait_until_led(traces["executor"], children)
            time.sleep(LED_S + seconds)
            for child in reversed(children):
                child.terminate()
                child.wait(timeout=30.0)
        finally:
            for child in children:
                if child.poll() is None:
                    child.kill()
        return _figures(*(np.load(trace) for trace in traces.values()))


def _child(environ: dict[str, str], role: str, argument: str) -> subprocess.Popen[str]:
    return start(environ, "e0_ros.bench.teleop", "--role", role, argument, stdout=subprocess.PIPE)


def _wait_until_led(trace: Path, children: Sequence[subprocess.Popen[str]]) -> None:
    deadline = time.monotonic() + _READY_S
    while not trace.with_suffix(".led").exists():
        if time.monotonic() > deadline or any(child.poll() is not None for child in children):
            raise RuntimeError("the leader did not take the arm; see what gello_teleop said")
        time.sleep(0.1)


def _figures(executor: dict[str, np.ndarray], arm: dict[str, np.ndarray]) -> dict[str, float]:
    readings, followed, arrivals = executor["readings"], executor["followed"], dict(arm["arrivals"])
    readings = readings[readings[:, 0] >= readings[0, 0] + round(LED_S * 1e9)]
    there = np.array([(t0, arrivals[stamp]) for stamp, t0 in followed if stamp in arrivals])
    first = np.searchsorted(there[:, 0], readings[:, 0])  # the first command that follows this reading or a later one
    answered = first < len(there)
    delays = (there[first[answered], 1] - readings[answered, 0]) / 1e6
    span_s = (readings[-1, 0] - readings[0, 0]) / 1e9
    figures = {"readings": float(answered.sum()), "readings_hz": (len(readings) - 1) / span_s}
    figures["commands_hz"] = float(np.sum(there[:, 0] >= readings[0, 0])) / span_s
    figures["commands_per_reading"] = figures["commands_hz"] / figures["readings_hz"]
    for name, values in (("latency", delays), ("chunk", (readings[:, 1] - readings[:, 0]) / 1e6)):
        p50, p99, largest = np.percentile(values, [50, 99, 100])
        figures |= {f"{name}_p50_ms": p50, f"{name}_p99_ms": p99, f"{name}_max_ms": largest}
    return figures


class MeasuredExecutor(ChunkExecutorNode):
    """The real executor, armed as soon as it can be, with notes of readings and of what each command follows."""

    def __init__(self, trace: Path) -> None:
        self._trace = trace
        self._readings: list[tuple[int, int]] = []
        self._followed: list[tuple[int, int]] = []
        super().__init__()

    def _on_chunk(self, msg: ChunkMsg) -> None:
        if msg.rows:
            self._readings.append((to_ns(msg.t0), time.time_ns()))
        super()._on_chunk(msg)

    def _send(self, command: Command, commit_ns: int) -> None:
        chunk = self.core.status(commit_ns).chunk
        if chunk is not None:
            if not self._followed:
                self._trace.with_suffix(".led").touch()
            self._followed.append((command.start_ns, chunk.t0_ns))
        super()._send(command, commit_ns)

    def tick(self) -> None:
        """Tick, and arm if that was not done yet."""
        super().tick()
        if self.core.mode is Mode.DISARMED:
            self._arm(interfaces.message_class(interfaces.ARM.type).Request())

    def destroy_node(self) -> None:
        """Write the notes, then end."""
        np.savez(self._trace, readings=np.array(self._readings), followed=np.array(self._followed))
        super().destroy_node()


def _executor(stopping: Callable[[], bool], trace: Path) -> None:
    pace = [word for name, value in TELEOP_PACE.items() for word in ("-p", f"{name}:={value}")]
    rclpy.init(args=["--ros-args", *pace], signal_handler_options=SignalHandlerOptions.NO)
    node = MeasuredExecutor(trace)
    run_executor(node, stopping)
    node.destroy_node()


def _as_hardware() -> None:
    """Come before the nodes, where the system allows it."""
    with contextlib.suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(_HARDWARE_PRIORITY))


def _arm(stopping: Callable[[], bool], trace: Path) -> None:
    """Be where the newest command says, tell so at 1 kHz, and note when each command arrives."""
    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    node, arm = rclpy.create_node("bench_arm"), load_embodiment("fr3")
    arrivals: list[tuple[int, int]] = []
    knots: list[tuple[np.ndarray, np.ndarray]] = []

    def hear(msg: JointTrajectory, info: Mapping[str, Any]) -> None:
        arrivals.append((to_ns(msg.header.stamp), info["received_timestamp"]))
        times = np.array([p.time_from_start.sec * 1e9 + p.time_from_start.nanosec for p in msg.points])
        knots[:] = [(times + arrivals[-1][0], np.array([p.positions for p in msg.points]))]

    topic, told = interfaces.JOINT_STATES, interfaces.TRAJECTORY
    publisher = node.create_publisher(JointState, topic.name, topic.qos.profile())
    quiet = lambda _: None  # noqa: E731
    heard = node.create_subscription(JointTrajectory, told.name, quiet, told.qos.profile(), callback_group=Polled())
    state = JointState(name=list(arm.joint_names), position=arm.home.tolist(), velocity=[0.0] * arm.joints)
    due_ns = time.time_ns()
    _as_hardware()
    while not stopping():
        time.sleep(max(0.0, (due_ns - time.time_ns()) / 1e9))
        with heard.handle:
            while taken := heard.handle.take_message(JointTrajectory, False):
                hear(*taken)
        for times, positions in knots:
            state.position = [float(np.interp(due_ns, times, column)) for column in positions.T]
        state.header.stamp = to_time(time.time_ns())
        publisher.publish(state)
        due_ns = max(due_ns + _PERIOD_NS, time.time_ns())
    np.savez(trace, arrivals=np.array(arrivals))
    node.destroy_node()


def _leader(stopping: Callable[[], bool], _: Path) -> None:
    """Print the port, and move again and again until told to stop."""
    from e0_ros.core.gello_geometry import load_calibration
    from sim.fake_gello import FakeConfig, FakeGello

    _as_hardware()
    config = FakeConfig(still_s=0.5, amplitude_rad=0.05)  # so little that after a hold it is aligned again
    with FakeGello(config, load_calibration(config_dir() / "gello.yaml")) as leader:
        print(leader.port, flush=True)
        while not stopping():
            time.sleep(0.1)


def main(args: Sequence[str] | None = None) -> int:
    """Run the measurement and print its figures with their targets."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0, help="duration (default: 60)")
    parser.add_argument("--role", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args(args)
    if options.role is None:
        for name, value in run(options.seconds).items():
            print(f"{name:<24}{value:>12.3f}   {TARGETS.get(name, '')}".rstrip())
        return 0
    role, argument = options.role
    stop: list[int] = []
    signal.signal(signal.SIGTERM, lambda got, _: stop.append(got))
    {"executor": _executor, "arm": _arm, "leader": _leader}[role](lambda: bool(stop), Path(argument))
    rclpy.try_shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())
