"""The gripper node: with a hand that stands in for the actions, and with the actions that the bridge serves."""

from __future__ import annotations

import importlib.util
import math
import re
import subprocess
import sys
import time

import pytest
from franka_msgs_overlay import overlay_environment

from e0_ros import interfaces
from e0_ros.core.gripper_goals import Kind

pytestmark = pytest.mark.ros


class Bench:
    """Publishes set-points and keeps what the node reports."""

    def __init__(self) -> None:
        import rclpy
        from rclpy.executors import SingleThreadedExecutor

        self.node = rclpy.create_node("bench")
        self.spinner = SingleThreadedExecutor()
        self.spinner.add_node(self.node)
        self.reports: list[dict] = []
        topic = interfaces.DIAGNOSTICS
        kind = interfaces.message_class(topic.type)
        self.node.create_subscription(kind, topic.name, self._on_report, topic.qos.profile())
        topic = interfaces.GRIPPER_COMMAND
        self._message = interfaces.message_class(topic.type)
        self._commands = self.node.create_publisher(self._message, topic.name, topic.qos.profile())
        self.process: subprocess.Popen | None = None

    def _on_report(self, msg) -> None:
        for status in msg.status:
            if status.name == "gripper":
                values = {item.key: item.value for item in status.values}
                self.reports.append({**values, "level": status.level, "message": status.message})

    def command(self, opening: float) -> None:
        self.until(lambda _: self._commands.get_subscription_count() > 0)
        self._commands.publish(self._message(opening=opening))

    def until(self, condition, timeout_s: float = 120.0) -> dict:
        """Spin until the newest report fulfils a condition."""
        end = time.monotonic() + timeout_s
        while not condition(newest := self.reports[-1] if self.reports else {}):
            assert time.monotonic() < end, self.reports[-3:]
            assert self.process is None or self.process.poll() is None, "the node ended"
            self.spinner.spin_once(timeout_sec=0.05)
        return newest

    def close(self) -> None:
        self.node.destroy_node()


class StandIn:
    """A hand whose goals end when the test says so."""

    def __init__(self) -> None:
        self.goals, self.ends, self.cancelled, self.ready = [], {}, [], False

    def is_ready(self) -> bool:
        return self.ready

    def send(self, goal, finished) -> None:
        self.goals.append(goal)
        self.ends[goal.number] = finished

    def cancel(self, number) -> None:
        self.cancelled.append(number)

    def end(self, success=True, error="") -> None:
        number = self.goals[-1].number
        self.ends.pop(number)(number, success, error)


@pytest.fixture
def bench(ros):
    bench = Bench()
    yield bench
    bench.close()


@pytest.fixture
def hand(bench):
    from e0_ros.nodes.gripper import GripperNode

    hand = StandIn()
    node = GripperNode(lambda *_: hand)
    bench.spinner.add_node(node)
    yield hand
    node.destroy_node()


def fingers(bench, width_m):
    topic = interfaces.GRIPPER_STATES
    kind = interfaces.message_class(topic.type)
    publisher = bench.node.create_publisher(kind, topic.name, topic.qos.profile())
    bench.until(lambda _: publisher.get_subscription_count() > 0)
    names = ["fr3_finger_joint1", "fr3_finger_joint2"]
    publisher.publish(kind(name=names, position=[width_m / 2, width_m / 2]))


def test_set_points_become_goals_and_widths_are_reported(bench, hand):
    bench.until(lambda r: r.get("phase") == "waiting for the hand" and "/franka_gripper" in r["message"])
    hand.ready = True
    bench.until(lambda _: [g.kind for g in hand.goals] == [Kind.HOMING])
    hand.end()
    bench.command(0.0)
    bench.until(lambda r: r.get("phase") == "grasp")
    fingers(bench, 0.03)
    bench.until(lambda r: r.get("achieved_width_m") == "0.03" and r["commanded"] == "0")
    hand.end()
    assert bench.until(lambda r: r["phase"] == "idle" and r["holding"] == "True")["commanded_width_m"] == "0"
    bench.command(1.0)
    bench.until(lambda _: len(hand.goals) == 3)
    hand.end(success=False, error="User Stop pressed!")
    report = bench.until(lambda r: r["failed"] == "1")
    assert "User Stop pressed!" in report["message"]
    assert report["level"] == b"\x02"


def test_a_newer_set_point_cancels_the_goal_in_flight(bench, hand):
    hand.ready = True
    bench.until(lambda _: len(hand.goals) == 1)
    hand.end()
    bench.command(0.0)
    bench.until(lambda _: len(hand.goals) == 2)
    bench.command(1.0)
    bench.until(lambda _: hand.cancelled == [2])
    assert len(hand.goals) == 2
    hand.end(success=False, error="preempted")
    bench.until(lambda r: r["phase"] == "move" and r["superseded"] == "1" and r["failed"] == "0")


def test_a_server_that_goes_with_a_goal_in_flight_does_not_stop_the_hand_for_good(bench, hand):
    hand.ready = True
    bench.until(lambda _: len(hand.goals) == 1)
    hand.end()
    bench.command(0.0)
    bench.until(lambda _: len(hand.goals) == 2)
    hand.ready = False
    bench.until(lambda r: "waits for the actions" in r.get("message", "") and "went away" in r["fault"])
    hand.ready = True
    bench.until(lambda r: "went away" in r["message"])
    bench.command(0.0)
    bench.until(lambda _: [g.kind for g in hand.goals] == [Kind.HOMING, Kind.GRASP, Kind.GRASP])
    hand.end()
    bench.until(lambda r: r["phase"] == "idle" and not r["fault"])


def test_nonsense_moves_nothing(bench, hand):
    hand.ready = True
    bench.until(lambda _: len(hand.goals) == 1)
    hand.end()
    bench.command(math.nan)
    assert "allowed are 0 to 1" in bench.until(lambda r: r.get("level") == b"\x02")["message"]
    assert len(hand.goals) == 1


def test_without_franka_msgs_it_says_what_to_do():
    if importlib.util.find_spec("franka_msgs"):
        pytest.skip("franka_msgs is installed")
    done = subprocess.run([sys.executable, "-m", "e0_ros.nodes.gripper"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert "build franka_ros2" in done.stderr
    assert "gripper:=false" in done.stderr


@pytest.fixture
def franka(bench):
    """The plant's hand with 30 mm between its fingers, and the node, both as processes that have franka_msgs."""
    environ = overlay_environment()
    plant = ("fci:=jazzy", "object_mm:=30.0", "width_px:=16", "height_px:=16", "joint_state_rate_hz:=50")
    slowly = ("speed_m_s:=0.02", "patience_s:=60.0")  # time enough to supersede a grasp
    started = []
    for module, settings in (("sim.bridge", plant), ("e0_ros.nodes.gripper", slowly)):
        more = [word for setting in settings for word in ("-p", setting)]
        command = [sys.executable, "-m", module, "--ros-args", *more]
        started.append(subprocess.Popen(command, env=environ, stderr=subprocess.PIPE, text=True))
    bench.process = started[1]
    yield started[0]
    for process in started:
        process.terminate()
    for process in started:
        process.wait(timeout=30)


@pytest.mark.slow
def test_with_franka_gripper_s_actions(bench, franka):
    """Homing, a grasp of an object, an opening, and a set-point that supersedes another: one goal at a time."""
    bench.until(lambda r: r.get("phase") == "idle" and r["sent"] == "1")
    bench.command(0.0)
    bench.until(lambda r: r["holding"] == "True" and r["achieved_width_m"] == "0.03")
    bench.command(1.0)
    bench.until(lambda r: r["sent"] == "3" and r["phase"] == "idle" and float(r["achieved_width_m"]) > 0.079)
    bench.command(0.0)
    bench.until(lambda r: r["phase"] == "grasp")
    bench.command(1.0)
    report = bench.until(lambda r: r["superseded"] == "1" and r["phase"] == "idle" and r["sent"] == "5")
    assert (report["failed"], report["fault"]) == ("0", "")
    franka.terminate()
    said = re.findall(r"hand: (.* running)", franka.communicate(timeout=90)[1])
    grasp, move = "grasp 0.000 m, within -0.005 +0.085 m, 40 N, 1 running", "move 0.080 m, 1 running"
    assert said == ["homing, 1 running", grasp, move, grasp, move]
