"""Three raw 640 x 480 rgb8 cameras at 33 Hz (91 MB/s) and joint states at 1 kHz into the real recorder.

`python -m e0_ros.bench.recorder --seconds 30`. Publishers and recorder are processes of their own; what they sent is
compared with what the bag holds.
"""

from __future__ import annotations

import argparse
import array
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import rclpy
from sensor_msgs.msg import Image, JointState

from e0_msgs.srv import EndEpisode, StartEpisode
from e0_ros.bench.processes import environment, start
from e0_ros.conversions import to_time
from e0_ros.core.bag_reader import Bag, verify
from e0_ros.interfaces import END_EPISODE, JOINT_STATES, START_EPISODE, camera_topic

VIEWS = ("base", "side", "wrist")
RATES_HZ = {"cameras": 33, "robot": 1000}
TARGETS = {"lost": "<= 0", "lost_by_own_count": "<= 0", "received_mb_per_s": ">= 90"}


def run(seconds: float = 30.0, images: str = "raw") -> dict[str, float]:
    """Record for some seconds and return the figures; `images` is the recorder's setting."""
    environ = environment()
    with tempfile.TemporaryDirectory() as folder:
        recorder = _recorder(folder, images, environ)
        sources: list[subprocess.Popen[str]] = []
        try:
            sources = [_source(role, seconds, environ) for role in RATES_HZ]
            ended, sent, cpu, wall = _episode(recorder, sources, seconds)
        finally:
            for source in sources:
                source.communicate(timeout=30.0)
            recorder.terminate()
            recorder.wait(30.0)
        return _figures(Path(ended.bag), ended, sent, cpu, wall)


def _recorder(folder: str, images: str, environ: dict[str, str]) -> subprocess.Popen[str]:
    settings = (f"bag_dir:={folder}/bags", f"images:={images}", f"views:=[{','.join(VIEWS)}]")
    words = [word for setting in settings for word in ("-p", setting)]
    return start(environ, "e0_ros.nodes.episode_recorder", "--ros-args", *words)


def _source(role: str, seconds: float, environ: dict[str, str]) -> subprocess.Popen[str]:
    words, pipe = ("--role", role, "--seconds", str(seconds)), subprocess.PIPE
    return start(environ, "e0_ros.bench.recorder", *words, stdin=pipe, stdout=pipe)


def _episode(recorder: Any, sources: Sequence[Any], seconds: float) -> tuple[Any, dict[str, int], float, float]:
    """Start, let the sources publish, end; returns the reply, what was sent, and CPU and wall time [s]."""
    rclpy.init()
    node = rclpy.create_node("recorder_bench")
    try:
        for source in sources:
            source.stdout.readline()
        started = _call(node, StartEpisode, START_EPISODE.name, StartEpisode.Request())
        if not started.success:
            raise RuntimeError(started.message)
        before, begin = _cpu_s(recorder.pid), time.monotonic()
        for source in sources:
            source.stdin.write("go\n")
            source.stdin.flush()
        sent: dict[str, int] = {}
        for source in sources:
            sent |= json.loads(source.stdout.readline())
        cpu, wall = _cpu_s(recorder.pid) - before, time.monotonic() - begin
        return _call(node, EndEpisode, END_EPISODE.name, EndEpisode.Request(outcome="unlabelled")), sent, cpu, wall
    finally:
        node.destroy_node()
        rclpy.try_shutdown()


def _call(node: Any, kind: Any, name: str, request: Any) -> Any:
    client = node.create_client(kind, name)
    if not client.wait_for_service(60.0):
        raise RuntimeError(f"nobody serves {name}")
    future = client.call_async(request)
    rclpy.spin_until_future_complete(node, future, timeout_sec=60.0)
    return future.result()


def _figures(path: Path, ended: Any, sent: dict[str, int], cpu: float, wall: float) -> dict[str, float]:
    verify(path)
    held = dict.fromkeys(sent, 0)
    for message in Bag(path).messages():
        topic = message.topic.removesuffix("/compressed")
        if topic in held:
            held[topic] += 1
    image_bytes = 640 * 480 * 3 * sum(sent[camera_topic(view).name] for view in VIEWS)
    return {
        "lost": sum(sent.values()) - sum(held.values()),
        "lost_by_own_count": math.nan if ended.unnumbered else ended.lost,
        "received_mb_per_s": image_bytes / wall / 1e6,
        "written_mb_per_s": ended.bytes / wall / 1e6,
        "messages_hz": sum(sent.values()) / wall,
        "cpu_percent": 100.0 * cpu / wall,
    }


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _publish(role: str, seconds: float) -> None:
    """Publish at the role's rate after a line on stdin, then print how many messages each topic got, as JSON."""
    rclpy.init()
    node = rclpy.create_node(f"bench_{role}")
    topics = [camera_topic(view) for view in VIEWS] if role == "cameras" else [JOINT_STATES]
    kind = Image if role == "cameras" else JointState
    publishers = [node.create_publisher(kind, topic.name, topic.qos.profile()) for topic in topics]
    message = _image() if role == "cameras" else _joints()
    while any(publisher.get_subscription_count() == 0 for publisher in publishers):
        time.sleep(0.01)
    time.sleep(1.0)  # the recorder's side of the match has no sign on this one
    print("ready", flush=True)
    sys.stdin.readline()
    count, period_s, begin = int(seconds * RATES_HZ[role]), 1.0 / RATES_HZ[role], time.monotonic()
    for i in range(count):
        message.header.stamp = to_time(time.time_ns())
        for publisher in publishers:
            publisher.publish(message)
        time.sleep(max(0.0, begin + (i + 1) * period_s - time.monotonic()))
    print(json.dumps({topic.name: count for topic in topics}), flush=True)
    sys.stdin.readline()
    rclpy.try_shutdown()


def _image() -> Image:
    message = Image(height=480, width=640, encoding="rgb8", step=1920)
    noise = np.random.default_rng(0).integers(0, 256, 480 * 1920, dtype=np.uint8)
    message.data = array.array("B", noise.tobytes())
    return message


def _joints() -> JointState:
    names = [f"fr3_joint{i}" for i in range(1, 8)]
    return JointState(name=names, position=[0.1] * 7, velocity=[0.0] * 7, effort=[0.0] * 7)


def main(argv: Sequence[str] | None = None) -> int:
    """Print the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--images", default="raw", choices=("raw", "jpeg", "png"))
    parser.add_argument("--role", choices=tuple(RATES_HZ), help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    if arguments.role:
        _publish(arguments.role, arguments.seconds)
    else:
        print(json.dumps(run(arguments.seconds, arguments.images), indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
