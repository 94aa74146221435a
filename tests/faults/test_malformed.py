"""Bytes that are no message against every subscription of every node: nobody dies, and memory stays bounded."""

from __future__ import annotations

import signal
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from e0_policy.embodiment import load_embodiment
from e0_ros import interfaces
from tests.faults.scale import FULL, scaled

pytestmark = [pytest.mark.ros, pytest.mark.timeout(3000 if FULL else 300)]
GROWTH_LIMIT = 256 * 2**20
LENGTHS = (0xFFFFFFFF, 0x7FFFFFFF, 0x40000000, 0x10000000, 0x00FFFFFF, 0x80000000)
OWN = ("/rosout", "/parameter_events")


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    arm = load_embodiment("fr3")
    rows = np.column_stack([np.tile(arm.home, (20, 1)), np.ones(20)])
    np.savez(tmp_path / "plan.npz", rows=rows, period_ns=50_000_000, embodiment="fr3")
    return tmp_path / "plan.npz"


def victims(recording: Path) -> dict[str, list[str]]:
    """Parameters of each node."""
    bags = recording.parent / "bags"
    return {
        "chunk_executor": [],
        "observation_sync": ["views:=[base]"],
        "policy": ["policy:=replay", f"recording:={recording}"],
        "episode_recorder": ["views:=[base]", f"bag_dir:={bags}", "min_free_bytes:=0"],
        "bridge": ["views:=[base]", "width_px:=32", "height_px:=32", "joint_state_rate_hz:=100"],
    }


def hostile(valid: bytes, rng: np.random.Generator) -> bytes:
    """A message that is cut, changed, made of noise, or whose lengths promise gigabytes."""
    raw, kind = bytearray(valid), int(rng.integers(6))
    if kind == 0:
        return bytes(raw[: rng.integers(0, len(raw))])
    if kind == 1:
        return bytes(rng.integers(0, 256, int(rng.integers(0, 400)), dtype=np.uint8))
    if kind == 2:
        return b"\x00\x01\x00\x00" + struct.pack("<I", int(rng.choice(LENGTHS))) * int(rng.integers(1, 300))
    for _ in range(int(rng.integers(1, 4))):
        at = int(rng.integers(4, max(len(raw), 5)))
        if kind == 3 and len(raw) > 8:
            at = 4 * (at // 4) if at // 4 * 4 + 4 <= len(raw) else 4
            raw[at : at + 4] = struct.pack("<I", int(rng.choice(LENGTHS)))
        elif at < len(raw):
            raw[at] ^= 1 << int(rng.integers(8))
    return bytes(raw) + bytes(rng.integers(0, 256, int(rng.integers(0, 40)) * (kind == 5), dtype=np.uint8))


def memory_bytes(pid: int) -> int:
    fields = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":" in line)
    return int(fields["VmRSS"].split()[0]) * 1024


class Attack:
    """One node as a process, whose words go to the file `said`, and publishers to all that it listens to."""

    def __init__(self, name: str, parameters: list[str], said: Path) -> None:
        import rclpy

        module = "sim.bridge" if name == "bridge" else f"e0_ros.nodes.{name}"
        command = [sys.executable, "-m", module, "--ros-args"]
        for parameter in parameters:
            command += ["-p", parameter]
        self.name, self.said = name, said
        with said.open("wb") as file:  # a pipe that nobody reads would stop the node once it is full
            self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=file)
        self.node = rclpy.create_node("attacker")
        self.topics: dict[str, str] = {}

    def find(self) -> None:
        """Wait until the node answers, and look at what it listens to."""
        self.alive()
        self.topics = self._topics()

    def alive(self) -> None:
        """The node answers."""
        from rcl_interfaces.srv import ListParameters

        self.call(ListParameters, f"/{self.name}/list_parameters")

    def call(self, kind, name: str, **fields):
        """The answer of a service, by which everything sent before has been looked at."""
        import rclpy

        client = self.node.create_client(kind, name)
        end, future = time.monotonic() + 60.0, None
        while future is None or not future.done():
            assert self.process.poll() is None, self.said.read_text(errors="replace")[-2000:]
            assert time.monotonic() < end, f"{self.name} answers no more"
            if future is None and client.service_is_ready():
                future = client.call_async(kind.Request(**fields))
            rclpy.spin_once(self.node, timeout_sec=0.1)
        self.node.destroy_client(client)
        return future.result()

    def _topics(self) -> dict[str, str]:
        """What it subscribes to, once discovery has brought nothing new for a second."""
        from rclpy.node import NodeNameNonExistentError

        found, end, since = {}, time.monotonic() + 60.0, time.monotonic()
        while not found or time.monotonic() < since + 1.0:
            assert time.monotonic() < end, f"{self.name} is not discovered"
            with suppress(NodeNameNonExistentError):
                pairs = self.node.get_subscriber_names_and_types_by_node(self.name, "/")
                seen = {topic: types[0] for topic, types in pairs if topic not in OWN}
                found, since = (seen, time.monotonic()) if seen != found else (found, since)
            time.sleep(0.05)
        return found

    def publish(self, topic: str, kind: str, count: int, rng: np.random.Generator) -> None:
        """Hostile messages, then wait until they have been taken."""
        from rclpy._rclpy_pybind11 import RCLError
        from rclpy.qos import QoSProfile
        from rclpy.serialization import serialize_message

        cls = interfaces.message_class(kind)
        asked = next(
            i.qos_profile for i in self.node.get_subscriptions_info_by_topic(topic) if i.node_name == self.name
        )
        profile = QoSProfile(depth=100, reliability=asked.reliability, durability=asked.durability)
        publisher = self.node.create_publisher(cls, topic, profile)
        end = time.monotonic() + 30.0
        while not publisher.get_subscription_count() and time.monotonic() < end:
            time.sleep(0.01)
        valid = serialize_message(cls())
        for sent in range(count):
            with suppress(RCLError):  # longer than a type of fixed size can be: the middleware does not send it
                publisher.publish(hostile(valid, rng))
            if sent % 50 == 49:
                time.sleep(0.01)
        self.alive()
        self.node.destroy_publisher(publisher)

    def close(self) -> int:
        self.process.send_signal(signal.SIGINT)
        try:
            status = self.process.wait(90)
        finally:
            self.process.kill()
            self.node.destroy_node()
        return status


@pytest.fixture
def attack(ros: None) -> Iterator[list[Attack]]:
    made: list[Attack] = []
    yield made
    for each in made:
        if each.process.poll() is None:
            each.close()


@pytest.mark.parametrize("name", ["chunk_executor", "observation_sync", "policy", "episode_recorder", "bridge"])
def test_no_bytes_end_a_node_or_fill_its_memory(
    attack: list[Attack], recording: Path, name: str, record_property
) -> None:
    attack.append(Attack(name, victims(recording)[name], recording.parent / "said"))
    a, rng = attack[0], np.random.default_rng(4)
    a.find()
    before, each = memory_bytes(a.process.pid), scaled(150, 20_000)
    start, end = (interfaces.message_class(s.type) for s in (interfaces.START_EPISODE, interfaces.END_EPISODE))
    for record in (False, True)[: 1 + (name == "episode_recorder")]:
        if record:
            assert a.call(start, interfaces.START_EPISODE.name).success
        for topic, kind in sorted(a.topics.items()):
            a.publish(topic, kind, each, rng)
        if record:
            a.call(end, interfaces.END_EPISODE.name, outcome="unlabelled")
            assert a.call(start, interfaces.START_EPISODE.name).success, "it records on"
    growth = memory_bytes(a.process.pid) - before
    record_property("figure", f"{name}: {each * len(a.topics)} on {len(a.topics)} topics, {growth / 2**20:+.0f} MiB")
    assert growth < GROWTH_LIMIT
    assert a.close() == 0
