"""`e0 camera fake`, a process of its own, each view with another fault: `e0 doctor` finds them over real topics."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("rclpy", reason="rclpy is not installed")
pytestmark = [pytest.mark.ros, pytest.mark.timeout(180)]

import rclpy  # noqa: E402
from rclpy.context import Context  # noqa: E402
from rclpy.executors import SingleThreadedExecutor  # noqa: E402

from e0_ros.cli import main  # noqa: E402
from e0_ros.core.camera_model import transforms_of  # noqa: E402
from e0_ros.interfaces import TF_STATIC, Topic, camera_info_topic, camera_topic, message_class  # noqa: E402

FAULTS = {
    "good": {},
    "uneven": {"delay_jitter_ms": 500.0},
    "holed": {"silent_s": 0.8},
    "frozen": {"frozen_s": 1.6},
    "ahead": {"clock_offset_ms": 1000 / 30},
    "askew": {"stamp_jitter_ms": 30.0},
    "slow": {"rate_share": 0.5},
}
PROFILE = "160x120x30"


@pytest.fixture(scope="module")
def cameras() -> Iterator[None]:
    """The process; it is asked to end as Ctrl-C does."""
    words = ["--views", *FAULTS, "--profile", PROFILE, "--cycle-s", "2"]
    for name, nothing in (("delay_jitter_ms", 0.0), ("silent_s", 0.0), ("frozen_s", 0.0), ("clock_offset_ms", 0.0),
                          ("stamp_jitter_ms", 0.0), ("rate_share", 1.0)):  # fmt: skip
        words += ["--" + name.replace("_", "-"), *(str(fault.get(name, nothing)) for fault in FAULTS.values())]
    environ = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    command = [sys.executable, "-m", "e0_ros.cli", "camera", "fake", *words]
    with subprocess.Popen(command, env=environ, stderr=subprocess.PIPE, text=True) as process:
        with listening() as (node, executor):
            until(lambda: node.count_publishers(camera_topic("slow").name), executor)
        yield
        process.send_signal(signal.SIGINT)
        assert process.wait(90) == 0, process.stderr.read() if process.stderr else ""


@contextmanager
def listening() -> Iterator[tuple[Any, Any]]:
    context = Context()
    rclpy.init(args=[], context=context)
    node, executor = rclpy.create_node("ears", context=context), SingleThreadedExecutor(context=context)
    executor.add_node(node)
    yield node, executor
    executor.shutdown()
    node.destroy_node()
    context.try_shutdown()


def until(condition: Callable[[], Any], executor: Any, timeout_s: float = 60.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        executor.spin_once(timeout_sec=0.1)


def heard_of(*topics: Topic) -> dict[str, Any]:
    heard: dict[str, Any] = {}
    with listening() as (node, executor):
        for topic in topics:
            hear = partial(heard.__setitem__, topic.name)
            node.create_subscription(message_class(topic.type), topic.name, hear, topic.qos.profile())
        until(lambda: len(heard) == len(topics), executor)
    return heard


def test_the_doctor_finds_each_fault_in_the_camera_that_has_it(cameras, tmp_path, capsys) -> None:
    out = tmp_path / "doctor.json"
    words = ["--only", "streams", "--views", *FAULTS, "--camera-profile", PROFILE, "--measure-s", "6"]
    assert main(["doctor", *words, "--json", str(out)]) == 1, capsys.readouterr().out
    seen = json.loads(out.read_text())["checks"]["streams"]["seen"]
    for kind, view in (("late", "uneven"), ("gap", "holed"), ("frozen", "frozen"), ("clock", "ahead"),
                       ("skew", "askew"), ("rate", "slow")):  # fmt: skip
        assert re.search(rf"\b{kind} {view}: ", seen), (kind, view, seen)
    for view in ("good", "uneven", "ahead"):  # what a busy machine adds on its own is lateness alone
        assert not re.search(rf"\bfrozen {view}: ", seen), seen
    for view in FAULTS:
        assert f"missing {view}" not in seen


def test_it_says_what_realsense2_camera_says(cameras) -> None:
    heard = heard_of(TF_STATIC, camera_topic("good"), camera_info_topic("good"))
    image, info = heard[camera_topic("good").name], heard[camera_info_topic("good").name]
    assert (image.encoding, image.width, image.height, image.step) == ("rgb8", 160, 120, 480)
    assert image.header.frame_id == info.header.frame_id == "good_color_optical_frame"
    assert (info.width, info.height, info.distortion_model, len(info.d)) == (160, 120, "plumb_bob", 5)
    assert info.k[0] > 0 and info.k[2] == pytest.approx(79.5) and list(info.p[:3]) == list(info.k[:3])
    places = transforms_of([heard[TF_STATIC.name]])
    assert {f"{view}_color_optical_frame" for view in FAULTS} <= set(places)
