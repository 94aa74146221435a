import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import rclpy

from e0_msgs.msg import EpisodeEvent
from e0_msgs.srv import StartEpisode
from e0_ros.core.bag_reader import Bag, BagReadError
from e0_ros.interfaces import (
    EPISODE_EVENT,
    START_EPISODE,
)
from tests.nodes.recorder_bench import read

pytestmark = pytest.mark.ros


@pytest.mark.parametrize(("sent", "closed"), [(signal.SIGKILL, False), (signal.SIGTERM, True), (signal.SIGINT, True)])
def test_a_recorder_that_is_stopped(ros: None, tmp_path: Path, sent: int, closed: bool) -> None:
    process = _process(f"bag_dir:={tmp_path / 'out'}", "min_free_bytes:=0")
    try:
        node = rclpy.create_node("stopper")
        client = node.create_client(StartEpisode, START_EPISODE.name)
        assert client.wait_for_service(30.0)
        events: list[EpisodeEvent] = []
        node.create_subscription(EpisodeEvent, EPISODE_EVENT.name, events.append, EPISODE_EVENT.qos.profile())
        future = client.call_async(StartEpisode.Request(episode_id="one"))
        rclpy.spin_until_future_complete(node, future, timeout_sec=30.0)
        assert future.result().success
        partial = tmp_path / "out" / "one.partial"
        _wait(lambda: sum(1 for _ in Bag(partial, salvage=True).messages()) >= 1)
        _wait(lambda: rclpy.spin_once(node, timeout_sec=0.1) or [e.kind for e in events] == [0])
        process.send_signal(sent)
        process.wait(90)
        if closed:
            _wait(lambda: rclpy.spin_once(node, timeout_sec=0.1) or [e.kind for e in events] == [0, 1])
        node.destroy_node()
    finally:
        process.kill()
    if closed:
        assert process.returncode == 0, process.stderr.read()
        assert Bag(tmp_path / "out" / "one").custom["outcome"] == "unlabelled"
        assert [m.kind for t, m in read(str(tmp_path / "out" / "one")) if t == EPISODE_EVENT.name] == [0, 1]
    else:
        with pytest.raises(BagReadError, match="did not finish"):
            Bag(partial)
        assert next(Bag(partial, salvage=True).messages()).topic == EPISODE_EVENT.name


@pytest.mark.parametrize(
    "parameter",
    [
        *("images:=jpg", "views:=3", "extra_topics:=['/a']", "extra_topics:=['/a b/msg/C']"),
        *("bag_dri:=x", "configuration:=/no/such"),
    ],
)
def test_a_bad_parameter_is_one_line_and_status_2(parameter: str) -> None:
    process = _process(parameter)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 2
    assert error.count("\n") == 1 and error.startswith("error: ")


def _process(*parameters: str) -> Any:
    command = [sys.executable, "-m", "e0_ros.nodes.episode_recorder", "--ros-args"]
    for parameter in parameters:
        command += ["-p", parameter]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=os.environ)


def _wait(done: Callable[[], bool], limit_s: float = 90.0) -> None:
    end = time.monotonic() + limit_s
    while not done():
        assert time.monotonic() < end, "nothing happened in time"
        time.sleep(0.05)
