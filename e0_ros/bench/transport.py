"""Two 640 x 480 rgb8 cameras at 30 Hz and joint states at 1 kHz into the real observation_sync, over real topics.

Four processes beside this one: cameras, robot, the node under measurement, which notes when a callback begins and when
an observation has been published, and the real chunk_executor following chunks, which notes when it ticks.
`python -m e0_ros.bench.transport --seconds 60`.
"""

from __future__ import annotations

import argparse
import array
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import rclpy
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions
from sensor_msgs.msg import Image, JointState

from e0_policy.embodiment import Embodiment, load_embodiment
from e0_policy.types import ActionChunk, Observation
from e0_ros import interfaces
from e0_ros.bench.processes import environment, start
from e0_ros.conversions import chunk_to_msg, stamp_of, to_time
from e0_ros.core.chunk_executor import Mode
from e0_ros.core.observation_sync import Result
from e0_ros.core.pairing import JOINTS
from e0_ros.nodes.chunk_executor import ChunkExecutorNode
from e0_ros.nodes.chunk_executor import run as run_executor
from e0_ros.nodes.observation_sync import ObservationSyncNode
from e0_ros.own_domain import own_domain
from e0_ros.process import run_node

VIEWS = ("base", "wrist")
WRIST_PHASE_NS = 6_000_000
CAMERA_PERIOD_NS = 1_000_000_000 // 30
ROBOT_PERIOD_NS = 1_000_000
GRIPPER_EVERY = 66
CHUNK_EVERY = 400
TICK_MS = 4.0
WARM_UP_S = 2.0
TARGETS = {
    "lost": "<= 0",
    "image_p50_ms": "<= 2",
    "observation_p99_ms": "<= 10",
    "tick_error_p99_ms": "<= 1",
}


def run(seconds: float = 60.0, shared_memory_profile: bool = True) -> dict[str, float]:
    """Measure for some seconds, after a warm-up.

    `lost` counts images, joint and gripper states that were published but never arrived; `image_*` is publishing to
    the start of the node's callback; `observation_*` is the arrival of the later image to the observation published;
    `tick_error_*` is how far the interval between two ticks of the executor departs from 4 ms.
    """
    environ = environment() if shared_memory_profile else dict(os.environ)
    with tempfile.TemporaryDirectory() as folder:
        traces = {role: Path(folder) / f"{role}.npz" for role in ("node", "executor")}
        nodes = [_child(environ, role, str(trace)) for role, trace in traces.items()]
        sources = [_child(environ, role, str(seconds + WARM_UP_S)) for role in ("cameras", "robot")]
        try:
            sent = [json.loads(source.communicate(timeout=seconds + 90.0)[0]) for source in sources]
            for node in nodes:
                node.terminate()
                node.communicate(timeout=30.0)
        finally:
            for process in (*nodes, *sources):
                if process.poll() is None:
                    process.kill()
        loaded = {key: value for trace in traces.values() for key, value in np.load(trace).items()}
    return _figures({**sent[0], **sent[1]}, loaded)


def _child(environ: dict[str, str], role: str, argument: str) -> subprocess.Popen[str]:
    return start(environ, "e0_ros.bench.transport", "--role", role, argument, stdout=subprocess.PIPE)


def _figures(sent: dict[str, int], trace: dict[str, Any]) -> dict[str, float]:
    figures: dict[str, float] = {}
    for name in (*VIEWS, "joints", "gripper"):
        figures[f"{name}_sent"], figures[f"{name}_lost"] = sent[name], sent[name] - int(trace[f"{name}_received"])
    figures["lost"] = sum(figures[f"{name}_lost"] for name in (*VIEWS, "joints", "gripper"))
    start_ns = trace["base"][0, 0] + round(WARM_UP_S * 1e9)
    for name, streams in (("image", VIEWS), ("joints", ("joints",))):
        delays = np.concatenate([trace[s][trace[s][:, 0] >= start_ns] @ [-1, 1] for s in streams]) / 1e6
        figures |= _percentiles(name, delays)
    answers = trace["observations"][trace["observations"][:, 0] >= start_ns]
    arrived = [dict(trace[view]) for view in VIEWS]
    later = np.array([max(arrived[0][stamp], arrived[1][other]) for stamp, other, _ in answers])
    figures |= _percentiles("observation", (answers[:, 2] - later) / 1e6)
    stale = np.isin(trace["stale"], trace["base"][trace["base"][:, 0] >= start_ns, 0])
    figures["observations"], figures["stale"] = len(answers), int(stale.sum())
    last_ns = int(trace["base"][-1, 0])
    ticks = trace["ticks"][(trace["ticks"][:, 0] >= start_ns) & (trace["ticks"][:, 0] <= last_ns), 1]
    figures |= _percentiles("tick_error", np.abs(np.diff(ticks) / 1e6 - TICK_MS))
    figures["ticks_running_percent"] = float(trace["running_percent"])
    figures["node_cpu_percent"] = float(trace["cpu_percent"])
    return figures


def _percentiles(name: str, delays_ms: Any) -> dict[str, float]:
    p50, p99, largest = np.percentile(delays_ms, [50, 99, 100])
    return {f"{name}_p50_ms": float(p50), f"{name}_p99_ms": float(p99), f"{name}_max_ms": float(largest)}


class MeasuredNode(ObservationSyncNode):
    """The real node with a note of every arrival and every publishing."""

    def __init__(self, trace: Path) -> None:
        self._trace = trace
        self._notes: dict[str, list[tuple[int, ...]]] = {
            name: [] for name in (*VIEWS, "joints", "observations", "stale")
        }
        super().__init__()
        self._started = time.monotonic(), time.process_time()

    def _on_image(self, view: str, raw: bytes) -> None:
        self._notes[view].append((stamp_of(raw), time.time_ns()))
        super()._on_image(view, raw)

    def _on_state(self, stream: str, add: Any, raw: bytes) -> None:
        if stream == JOINTS:
            self._notes["joints"].append((stamp_of(raw), time.time_ns()))
        super()._on_state(stream, add, raw)

    def _publish(self, results: Sequence[Result]) -> None:
        super()._publish(results)
        for result in results:
            if isinstance(result, Observation):
                other_ns = result.stamp_ns + result.view_skew_ns["wrist"]
                self._notes["observations"].append((result.stamp_ns, other_ns, time.time_ns()))
            else:
                self._notes["stale"].append((result.stamp_ns,))

    def destroy_node(self) -> None:
        """Write the notes, then end."""
        wall, cpu = time.monotonic() - self._started[0], time.process_time() - self._started[1]
        received = {f"{name}_received": stream.received for name, stream in self._core.streams.items()}
        notes = {name: np.array(rows, dtype=np.int64) for name, rows in self._notes.items()}
        np.savez(self._trace, cpu_percent=100 * cpu / wall, **received, **notes)  # type: ignore[arg-type]
        super().destroy_node()


class MeasuredExecutor(ChunkExecutorNode):
    """The real executor, armed as soon as it can be, with a note of every tick."""

    def __init__(self, trace: Path) -> None:
        self._trace = trace
        self._ticks: list[tuple[int, int]] = []
        self._running = 0
        super().__init__()

    def tick(self) -> None:
        """Note the time, then tick."""
        self._ticks.append((time.time_ns(), time.monotonic_ns()))
        self._running += self.core.mode is Mode.RUNNING
        super().tick()
        if self.core.mode is Mode.DISARMED:
            self._arm(interfaces.message_class(interfaces.ARM.type).Request())

    def destroy_node(self) -> None:
        """Write the notes, then end."""
        share = 100 * self._running / max(1, len(self._ticks))
        np.savez(self._trace, ticks=np.array(self._ticks, dtype=np.int64), running_percent=share)
        super().destroy_node()


def _executor(trace: Path) -> None:
    stop: list[int] = []
    signal.signal(signal.SIGTERM, lambda got, _: stop.append(got))
    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    node = MeasuredExecutor(trace)
    run_executor(node, lambda: bool(stop))
    node.destroy_node()
    rclpy.try_shutdown()


def _publish_until(node: Node, publishers: Sequence[Any], seconds: float, steps: Callable[[int], int]) -> None:
    """Call `steps(now_ns)`, which publishes and returns the next due time, until the time is over."""
    while not all(publisher.get_subscription_count() for publisher in publishers):
        time.sleep(0.05)
    time.sleep(0.5)
    end_ns = time.time_ns() + round(seconds * 1e9)
    while (now_ns := time.time_ns()) < end_ns:
        due_ns = steps(now_ns)
        time.sleep(max(0, due_ns - time.time_ns()) / 1e9)
    time.sleep(2.0)
    node.destroy_node()


def cameras(seconds: float) -> dict[str, int]:
    """Publish both views, the wrist 6 ms after the base; returns the numbers sent."""
    node = rclpy.create_node("bench_cameras")
    publishers = {
        v: node.create_publisher(Image, (t := interfaces.camera_topic(v)).name, t.qos.profile()) for v in VIEWS
    }
    noise = np.random.default_rng(0).integers(0, 255, (4, 921600), np.uint8)
    data = array.array("B", bytes(921600))
    msg = Image(height=480, width=640, encoding="rgb8", step=1920, data=data)
    pixels, sent = np.frombuffer(msg.data, np.uint8), dict.fromkeys(VIEWS, 0)
    due: dict[str, int] = {}

    def steps(now_ns: int) -> int:
        for view, phase_ns in zip(VIEWS, (0, WRIST_PHASE_NS), strict=True):
            due.setdefault(view, now_ns + phase_ns)
            if due[view] <= now_ns:
                pixels[:] = noise[sent[view] % 4]
                msg.header.stamp = to_time(time.time_ns())
                publishers[view].publish(msg)
                sent[view] += 1
                due[view] += CAMERA_PERIOD_NS * max(1, -(-(now_ns - due[view]) // CAMERA_PERIOD_NS))
        return min(due.values())

    _publish_until(node, list(publishers.values()), seconds, steps)
    return sent


def _chunk(arm: Embodiment, sequence: int) -> ActionChunk:
    """Sixteen rows of a slow motion about the home position."""
    now_ns = time.time_ns()
    phases = (now_ns / 1e9 + np.arange(16) * 0.05)[:, None]
    rows = np.hstack([arm.home + 0.05 * np.sin(phases), np.ones((16, 1))])
    return ActionChunk(
        rows, now_ns, 50_000_000, "policy", "bench", sequence, embodiment=arm.name, joint_names=arm.joint_names
    )


def robot(seconds: float) -> dict[str, int]:
    """Publish joint states at 1 kHz, gripper states at 15 Hz and chunks at 2.5 Hz; returns the numbers sent."""
    node, arm = rclpy.create_node("bench_robot"), load_embodiment("fr3")
    topics = (interfaces.JOINT_STATES, interfaces.GRIPPER_STATES)
    joints, gripper = (node.create_publisher(JointState, t.name, t.qos.profile()) for t in topics)
    topic, follow = interfaces.ACTION_CHUNK, iter(range(1, 1_000_000))
    chunks = node.create_publisher(interfaces.message_class(topic.type), topic.name, topic.qos.profile())
    state = JointState(name=list(arm.joint_names), position=arm.home.tolist(), velocity=[0.0] * 7, effort=[0.0] * 7)
    fingers = JointState(name=list(arm.gripper_joint_names), position=[0.04, 0.04])
    sent = {"joints": 0, "gripper": 0}
    due: list[int] = []

    def steps(now_ns: int) -> int:
        if not due or now_ns - due[0] > 50 * ROBOT_PERIOD_NS:
            due[:] = [now_ns]
        while due[0] <= now_ns:
            state.header.stamp = to_time(time.time_ns())
            joints.publish(state)
            sent["joints"] += 1
            due[0] += ROBOT_PERIOD_NS
            if sent["joints"] % GRIPPER_EVERY == 1:
                fingers.header.stamp = state.header.stamp
                gripper.publish(fingers)
                sent["gripper"] += 1
            if sent["joints"] % CHUNK_EVERY == 0:
                chunks.publish(chunk_to_msg(_chunk(arm, next(follow)), time.time_ns()))
        return due[0]

    _publish_until(node, [joints, gripper], seconds, steps)
    return sent


def main(args: Sequence[str] | None = None) -> int:
    """Run the measurement and print its figures with their targets."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0, help="duration (default: 60)")
    parser.add_argument("--default-transport", action="store_true", help="without config/fastdds.xml")
    parser.add_argument("--role", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args(args)
    if options.role is None:
        with own_domain():
            measured = run(options.seconds, not options.default_transport)
        for name, value in measured.items():
            print(f"{name:<24}{value:>12.3f}   {TARGETS.get(name, '')}".rstrip())
        return 0
    role, argument = options.role
    if role == "executor":
        _executor(Path(argument))
        return 0
    if role == "node":
        return run_node(lambda: MeasuredNode(Path(argument)), [])
    rclpy.init()
    print(json.dumps({"cameras": cameras, "robot": robot}[role](float(argument))))
    rclpy.try_shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())
