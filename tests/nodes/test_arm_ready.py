"""arm_session beside a driver that has just come up: it makes the arm ready, and says what keeps it from arming."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from typing import Any

import pytest
from franka_msgs_overlay import overlay_environment

pytestmark = [pytest.mark.ros, pytest.mark.timeout(300)]

from std_msgs.msg import String  # noqa: E402

from e0_msgs.msg import ExecutorState  # noqa: E402
from e0_ros import interfaces  # noqa: E402
from e0_ros.graph_client import GraphCallError, GraphClient  # noqa: E402

SETTINGS = ("load_mass_kg:=0.2", "load_center_m:=[0.0, 0.05, 0.03]", "clock_offset_ms:=15.0", "step_s:=30.0",
            "state_timeout_ms:=2000.0")  # fmt: skip


class Bench(GraphClient):
    def __init__(self, processes: list[subprocess.Popen[bytes]]) -> None:
        super().__init__(health=self.alive)
        self.processes, self.words = processes, self.create_publisher(String, "/stub", 10)
        self.values: dict[str, str] = {}
        self.told: list[str] = []
        topic = interfaces.DIAGNOSTICS
        self.create_subscription(interfaces.message_class(topic.type), topic.name, self.hear, topic.qos.profile())

    def alive(self) -> None:
        assert all(process.poll() is None for process in self.processes)

    def hear(self, msg: Any) -> None:
        for status in msg.status:
            if status.name == "arm_session":
                self.values = {v.key: v.value for v in status.values} | {"message": status.message}

    def _on_arm_fault(self, msg: Any) -> None:
        super()._on_arm_fault(msg)
        self.told.append(msg.data)

    def until(self, condition: Callable[[], Any], what: str, timeout_s: float = 60.0) -> None:
        deadline = time.monotonic() + timeout_s
        while not condition():
            self.alive()
            assert time.monotonic() < deadline, f"{what}: {list(dict.fromkeys(self.told))}, {self.values}"
            self.spin(0.05)

    def fit(self) -> None:
        """The executor was told that the arm is fit, and the report, which comes once a second, agrees."""
        known = {"ready": "True", "controller": "active", "message": "fit to move"}
        self.until(lambda: self.arm_fault == "" and known.items() <= self.values.items(), "an arm that may be armed")

    def say(self, word: str, *faults: str) -> None:
        """Tell the driver, and wait until the executor has been told each of these, in this order ("": the arm is fit).

        Everything that it is told counts, however soon it is told something else: some faults last for 20 ms.
        """
        self.until(self.words.get_subscription_count, "the driver")
        self.told.clear()
        self.words.publish(String(data=word))
        self.until(lambda: in_order(faults, self.told), f"{word}, then {faults}")


def in_order(faults: Sequence[str], told: Sequence[str]) -> bool:
    """Whether each fault was told, after the one before it."""
    words = iter(told)
    return all(any(fault in word if fault else not word for word in words) for fault in faults)


@pytest.fixture
def bench() -> Iterator[Bench]:
    environ = overlay_environment()
    settings = [word for setting in SETTINGS for word in ("-p", setting)]
    commands = (["stubs.stub_franka_driver"], ["e0_ros.nodes.arm_session", "--ros-args", *settings])
    processes = [subprocess.Popen([sys.executable, "-m", *command], env=environ) for command in commands]
    try:
        with closing(Bench(processes)) as client:
            client.wait_for(interfaces.RECOVER)
            yield client
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait(90)


def test_an_arm_is_made_ready_and_every_fault_keeps_it_from_being_armed_until_it_is_mended(bench: Bench) -> None:
    bench.fit()
    assert float(bench.values["payload_kg"]) == pytest.approx(0.2)
    assert abs(float(bench.values["clock_offset_ms"])) < 15.0

    bench.say("offset 80", "ms behind this one; allowed is 15 ms: chrony")
    bench.say("offset -80", "ms ahead of this one")
    bench.say("offset 0", "")
    bench.fit()

    bench.say("payload 0.5", "reckons with a payload of 0.500 kg")
    bench.bring(interfaces.RECOVER)
    bench.fit()

    bench.say("inactive", "joint_trajectory_controller is inactive")
    with pytest.raises(GraphCallError, match="joint_trajectory_controller is inactive"):
        bench.bring(interfaces.HOME)
    bench.bring(interfaces.RECOVER)
    bench.fit()
    with pytest.raises(GraphCallError, match="nothing to recover"):
        bench.bring(interfaces.RECOVER)

    bench.say("dies", "the driver stopped")
    bench.say("comes", "the arm is not ready", "")
    bench.fit()
    assert float(bench.values["payload_kg"]) == pytest.approx(0.2), "told again: a control that restarts forgets it"

    bench.say("refuse", "")
    bench.say("payload 0.5", "reckons with")
    with pytest.raises(GraphCallError, match=r"could not set payload and thresholds.*this is no payload"):
        bench.bring(interfaces.RECOVER)


def test_an_arm_whose_driver_falls_silent_with_an_error_is_recovered_and_the_error_named(bench: Bench) -> None:
    refuse_to_arm(bench)
    logged: list[str] = []
    kind = interfaces.message_class("rcl_interfaces/msg/Log")
    bench.create_subscription(kind, "/rosout", lambda msg: logged.append(msg.msg), 100)
    bench.fit()
    bench.say("states_end 0.3")
    bench.say("cartesian_reflex", "no robot state for 2000 ms")
    recovered_but_for_arming(bench)
    bench.until(lambda: bench.values["last_motion_errors"] == "cartesian_reflex", "the error's name")
    bench.until(lambda: any("was ended by: cartesian_reflex (contact" in text for text in logged), "word of it")

    bench.say("user_stopped", "no robot state for 2000 ms")
    with pytest.raises(GraphCallError, match="could not clear the errors"):
        bench.bring(interfaces.RECOVER)
    bench.say("released")
    recovered_but_for_arming(bench)


def refuse_to_arm(bench: Bench) -> None:
    """An executor that is stopped, at which a recovery ends."""

    def disarm(_: Any, response: Any) -> Any:
        response.success = True
        return response

    def refuse(_: Any, response: Any) -> Any:
        states.publish(interfaces.message_class(topic.type)(mode=ExecutorState.STOPPED))
        response.message = "stopped"
        return response

    topic = interfaces.EXECUTOR_STATE
    states = bench.create_publisher(interfaces.message_class(topic.type), topic.name, topic.qos.profile())
    for service, answer in ((interfaces.ARM, refuse), (interfaces.DISARM, disarm)):
        bench.create_service(interfaces.message_class(service.type), service.name, answer)


def recovered_but_for_arming(bench: Bench) -> None:
    """What the driver has to do with is done, and the arm is fit."""
    with pytest.raises(GraphCallError, match="could not arm: stopped"):
        bench.bring(interfaces.RECOVER)
    known = {"ready": "True", "controller": "active", "mode": "MOVE"}
    bench.until(lambda: bench.arm_fault == "" and known.items() <= bench.values.items(), "a fit arm")
