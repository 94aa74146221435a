"""The recorder killed at random times: at most one second of one take is lost, and half a bag is never a whole one.

`make kill-test` does it 100 times; E0_KILLS says how often.
"""

from __future__ import annotations

import array
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import rclpy
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from sensor_msgs.msg import Image, JointState

from e0_msgs.srv import EndEpisode, StartEpisode
from e0_ros.conversions import to_time
from e0_ros.core.bag_reader import Bag, BagReadError, verify
from e0_ros.core.bag_recovery import recover
from e0_ros.core.definitions import installed
from e0_ros.core.take import stamp_ns
from e0_ros.interfaces import END_EPISODE, JOINT_STATES, START_EPISODE, camera_topic
from tests.faults.scale import scaled

KILLS = int(os.environ.get("E0_KILLS", scaled(3, 20)))
pytestmark = [pytest.mark.ros, pytest.mark.timeout(60 * KILLS)]
LOSS_S, PERIOD_S, IMAGE_EVERY = 1.0, 0.005, 10


class Source:
    """Publishes joint states at 200 Hz and pictures at 20 Hz, and knows what it has published.

    It has a context of its own, for a participant knows one that was killed for another 20 s.
    """

    def __init__(self) -> None:
        self._context = Context()
        rclpy.init(context=self._context)
        self.node = rclpy.create_node("source", context=self._context)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self.node)
        self._joints = self.node.create_publisher(JointState, JOINT_STATES.name, JOINT_STATES.qos.profile())
        camera = camera_topic("base")
        self._images = self.node.create_publisher(Image, camera.name, camera.qos.profile())
        self._image = Image(height=48, width=64, encoding="rgb8", step=192, data=array.array("B", os.urandom(9216)))
        self.stamps: list[int] = []
        self._start = self.node.create_client(StartEpisode, START_EPISODE.name)
        self._end = self.node.create_client(EndEpisode, END_EPISODE.name)

    def meet(self) -> None:
        """Wait until the recorder is there; it may learn of our side of a service later than we of its."""
        clients, topics = (self._start, self._end), (self._joints, self._images)
        met = [client.service_is_ready for client in clients] + [topic.get_subscription_count for topic in topics]
        self.publish_until(lambda: all(side() for side in met))
        self.publish_for(1.0)

    def publish_for(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        self.publish_until(lambda: time.monotonic() > until)

    def publish_until(self, done: Callable[[], bool], limit_s: float = 60.0) -> None:
        deadline = time.monotonic() + limit_s
        while not done():
            assert time.monotonic() < deadline
            now = time.time_ns()
            message = JointState(name=["a"], position=[now / 1e9])
            message.header.stamp = self._image.header.stamp = to_time(now)
            self._joints.publish(message)
            if len(self.stamps) % IMAGE_EVERY == 0:
                self._images.publish(self._image)
            self.stamps.append(now)
            self._executor.spin_once(timeout_sec=PERIOD_S)

    def start(self, name: str) -> None:
        started = self._start.call_async(StartEpisode.Request(episode_id=name))
        self.publish_until(started.done)
        assert started.result().success, started.result().message
        self.stamps.clear()

    def close(self) -> None:
        self._executor.shutdown()
        self.node.destroy_node()
        self._context.try_shutdown()

    def end(self) -> None:
        self._end.call_async(EndEpisode.Request(outcome="success"))


def waited_s(pid: int) -> float:
    """How long the threads of a process have waited for a CPU, all together: that is the machine's loss, not ours."""
    return sum(int(stat.read_text().split()[1]) for stat in Path(f"/proc/{pid}/task").glob("*/schedstat")) / 1e9


def killed(bags: Path, name: str, rng: random.Random) -> tuple[list[int], float, float]:
    """Record a take, kill the recorder some time.

    Returns:
        What was published, when the take ended (kill, or request to end it) [s], how long it waited for a CPU.

    """
    source = Source()
    command = [sys.executable, "-m", "e0_ros.nodes.episode_recorder", "--ros-args"]
    command += ["-p", f"bag_dir:={bags}", "-p", "min_free_bytes:=0", "-p", "views:=['base']"]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        source.meet()
        source.start(name)
        waited = waited_s(process.pid)
        source.publish_for(rng.uniform(0.0, 2.5))
        over_s = 0.0
        if rng.random() < 0.4:
            over_s = time.time()
            source.end()
            source.publish_for(rng.uniform(0.0, 1.5))
        return source.stamps, over_s or time.time(), waited_s(process.pid) - waited
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
        source.close()


def whole(path: Path) -> bool:
    """Whether it reads as whole; then it is, to its label."""
    try:
        verify(path)
    except BagReadError:
        return False
    assert Bag(path).custom["outcome"] == "success"
    return True


def lost_s(bags: Path, name: str, published: list[int], over_s: float) -> float:
    """How much of the take's end is missing [s]; what is there has no hole."""
    partial = bags / f"{name}.partial"
    if not partial.exists():
        verify(bags / name)
        assert whole(bags / name)
        return 0.0
    with pytest.raises(BagReadError, match="salvaged"):
        Bag(partial)
    if any(map(whole, partial.glob("*.mcap"))):
        return 0.0  # it was killed between the file's end and the folder's name
    there = sorted(stamp_ns(m.data) for m in Bag(partial, salvage=True).messages([JOINT_STATES.name]))
    if not there:
        return over_s - published[0] / 1e9 if published else 0.0
    expected = [stamp for stamp in published if stamp <= there[-1]]
    assert there[-len(expected) :] == expected, "a hole"
    return over_s - there[-1] / 1e9


def test_at_most_a_second_of_the_take_is_lost(tmp_path: Path, record_property) -> None:
    seed = random.randrange(10**6)
    rng, bags = random.Random(seed), tmp_path / "bags"
    losses = []
    for i in range(KILLS):
        name = f"take-{i}"
        published, over_s, waited = killed(bags, name, rng)
        lost = lost_s(bags, name, published, over_s)
        losses.append((lost, waited))
        assert lost <= LOSS_S + waited, f"seed {seed}, take {i}: {lost:.2f} s, kept waiting for {waited:.2f} s"
        if (bags / f"{name}.partial").exists() and published:
            recovered = recover(bags / f"{name}.partial", installed()).path
            verify(recovered)
            assert Bag(recovered).custom["outcome"] == "unlabelled"
            shutil.rmtree(recovered)
    closed = sum(1 for path in bags.iterdir() if not path.name.endswith(".partial"))
    over = sum(lost > LOSS_S for lost, _ in losses)
    figure = (
        f"{KILLS} kills: {closed} bags whole, {KILLS - closed} partial; lost at most {max(losses)[0]:.2f} s, "
        f"{over} over {LOSS_S} s, longest wait for a CPU {max(wait for _, wait in losses):.2f} s"
    )
    print(figure)
    record_property("figure", figure)
    if over:
        record_property("beyond", f"{over} lost more than {LOSS_S:g} s, having waited for a CPU")
