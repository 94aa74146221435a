"""Nodes as processes, and on all that they listen to bytes that are no message, or one that nobody would send.

As a script, because an attack on who listens to franka_ros2's messages needs them, as `overlay_environment` has them.
"""

from __future__ import annotations

import json
import signal
import struct
import subprocess
import sys
import time
from array import array
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from rosidl_parser import definition as idl

from e0_policy.embodiment import load_embodiment
from e0_policy.types import SOURCES, Representation
from e0_ros import interfaces
from e0_ros.conversions import to_time

LENGTHS = (0xFFFFFFFF, 0x7FFFFFFF, 0x40000000, 0x10000000, 0x00FFFFFF, 0x80000000)
FLOATS = (0.0, 1.0, -1.0, 0.5, 1e308, -1e308, float("nan"), float("inf"))
WORDS = ("", "fr3_joint1", "policy", "a/../..", "\u2603" * 40)
OWN = ("/rosout", "/parameter_events")
MODULES = {"bridge": "sim.bridge", "experts": "sim.experts", "estop": "e0_ros.estop_command"}


def class_of(kind: str) -> Any:
    """The class of a topic's type, the feedback of actions included."""
    name, _, part = kind.partition("_Feedback")
    if not kind.endswith(("_Feedback", "_FeedbackMessage")):
        return interfaces.message_class(kind)
    action = interfaces.message_class(name)
    return action.Impl.FeedbackMessage if part else action.Feedback


def odd_value(kind: Any, rng: np.random.Generator) -> Any:
    """A value that a field of that type can have, if not one that anybody would give it."""
    if isinstance(kind, idl.BasicType):
        if kind.typename in idl.FLOATING_POINT_TYPES:
            largest = np.finfo(np.float32).max if kind.typename == "float" else np.inf
            value = float(rng.choice(FLOATS))
            return float(np.clip(value, -largest, largest)) if np.isfinite(value) else value
        if kind.typename == idl.BOOLEAN_TYPE:
            return bool(rng.integers(2))
        if kind.typename == idl.OCTET_TYPE:
            return bytes([rng.integers(256)])
        limits = np.iinfo(kind.typename)
        values = (0, 1, 2, 200, int(limits.max), int(limits.min))
        return min(max(values[rng.integers(len(values))], int(limits.min)), int(limits.max))
    if isinstance(kind, idl.AbstractString):
        return str(rng.choice(WORDS))
    if isinstance(kind, idl.Array):
        return [odd_value(kind.value_type, rng) for _ in range(kind.size)]
    if isinstance(kind, idl.AbstractSequence):
        return [odd_value(kind.value_type, rng) for _ in range(int(rng.choice([0, 1, 2, 7, 8])))]
    return odd_message(class_of("/".join(kind.namespaced_name())), rng)


def odd_message(cls: Any, rng: np.random.Generator) -> Any:
    """A message of a type with fields that do not go together."""
    names = cls.get_fields_and_field_types()
    return cls(**{name: odd_value(kind, rng) for name, kind in zip(names, cls.SLOT_TYPES, strict=True)})


def hostile(cls: Any, rng: np.random.Generator) -> bytes:
    """A message that is odd, cut, changed, made of noise, or whose lengths promise gigabytes."""
    from rclpy.serialization import serialize_message

    kind = int(rng.integers(7))
    raw = bytearray(serialize_message(odd_message(cls, rng) if kind == 6 else cls()))
    if kind == 0:
        return bytes(raw[: rng.integers(0, len(raw) if rng.integers(2) else 16)])
    if kind == 1:
        return bytes(rng.integers(0, 256, int(rng.integers(0, 400)), dtype=np.uint8))
    if kind == 2:
        return b"\x00\x01\x00\x00" + struct.pack("<I", int(rng.choice(LENGTHS))) * int(rng.integers(1, 300))
    for _ in range(int(rng.integers(1, 4)) * (kind != 6)):
        at = int(rng.integers(4, max(len(raw), 5)))
        if kind == 3 and len(raw) > 8:
            at = 4 * (at // 4) if at // 4 * 4 + 4 <= len(raw) else 4
            raw[at : at + 4] = struct.pack("<I", int(rng.choice(LENGTHS)))
        elif at < len(raw):
            raw[at] ^= 1 << int(rng.integers(8))
    return bytes(raw) + bytes(rng.integers(0, 256, int(rng.integers(0, 40)) * (kind == 5), dtype=np.uint8))


def odd_chunk(now_ns: int, number: int, rng: np.random.Generator) -> Any:
    """A chunk for an fr3 that is armed at home, with fields that each may be right or at an end of what is possible."""
    arm, msg = load_embodiment("fr3"), interfaces.message_class(interfaces.ACTION_CHUNK.type)()
    some = lambda *choices: choices[rng.integers(len(choices))]  # noqa: E731
    msg.status, msg.source, msg.session = int(rng.choice(4, p=(0.8, 0.1, 0.05, 0.05))), some(*SOURCES), some("a", "b")
    msg.sequence, msg.reason, msg.embodiment = some(number, number, 0), some(*WORDS), some("fr3", "fr3", "panda")
    msg.t0, msg.in_reply_to = (to_time(max(now_ns + int(s * 1e9), 0)) for s in rng.choice((-9, -0.1, 0, 0.1, 9), 2))
    msg.in_reply_to = some(msg.in_reply_to, to_time(0))
    msg.period_ns = some(1, 10**6, 5 * 10**7, 10**9, 3600 * 10**9, 2**63 - 1)
    msg.representation, msg.rows, msg.columns = int(rng.integers(3)), int(rng.integers(1, 9)), 8
    rows = np.tile(np.append(arm.home, rng.uniform()), (msg.rows, 1))
    if msg.representation == Representation.EE_POSE:
        rows[:, :7] = 0.4, 0.0, 0.4, 1.0, 0.0, 0.0, 0.0
    rows[:, : some(0, 3, 7)] += rng.choice((-1, 1), (msg.rows, 1)) * some(1e-3, 0.05, 0.3, 7.0, 1e9, 1e308, 1.7e308)
    joints = msg.representation == Representation.JOINT_POSITION
    msg.joint_names = some(arm.joint_names if joints else (), some(arm.joint_names, (), ("x" * 10**5,) * 7))
    msg.data = array("d", rows.tobytes())
    return msg


class Victim:
    """A node as a process, whose words go to the file `said`."""

    def __init__(self, name: str, parameters: list[str], said: Path) -> None:
        command = [sys.executable, "-m", MODULES.get(name, f"e0_ros.nodes.{name}")]
        if parameters or name not in MODULES:
            command += ["--ros-args", *(word for parameter in parameters for word in ("-p", parameter))]
        self.name, self.said, self.before = name, said, 0
        with said.open("wb") as file:  # a pipe that nobody reads would stop the node once it is full
            self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=file, stderr=file)

    def check(self) -> None:
        """It runs."""
        assert self.process.poll() is None, f"{self.name} ended: {self.said.read_text(errors='replace')[-2000:]}"

    def start_measuring(self) -> None:
        """Forget what it took to start."""
        Path(f"/proc/{self.process.pid}/clear_refs").write_text("5")
        self.before = self._memory("VmRSS")

    def growth(self) -> int:
        """How far its memory rose at most since then [bytes]."""
        return self._memory("VmHWM") - self.before

    def _memory(self, field: str) -> int:
        text = Path(f"/proc/{self.process.pid}/status").read_text()
        fields = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
        return int(fields[field].split()[0]) * 1024

    def close(self) -> int:
        """End it; its exit status."""
        self.process.send_signal(signal.SIGINT)
        try:
            return self.process.wait(90)
        finally:
            self.process.kill()


class Attack:
    """Nodes, and publishers to all that they listen to."""

    def __init__(self, nodes: Mapping[str, list[str]], folder: Path) -> None:
        import rclpy

        self.victims = [Victim(name, parameters, folder / f"said_{name}") for name, parameters in nodes.items()]
        self.node = rclpy.create_node("attacker")
        self.topics: dict[str, str] = {}
        self._hears: dict[str, dict[str, str]] = {}
        self._clients: dict[str, Any] = {}

    def find(self) -> None:
        """Wait until the nodes answer, look at what they listen to, and begin to measure."""
        self.alive(self.victims)
        self._hears = self._heard()
        self.topics = {topic: kind for heard in self._hears.values() for topic, kind in heard.items()}
        for victim in self.victims:
            victim.start_measuring()

    def alive(self, victims: Sequence[Victim]) -> None:
        """These nodes answer."""
        from rcl_interfaces.srv import ListParameters

        for victim in victims:
            self.call(ListParameters, f"/{victim.name}/list_parameters")

    def call(self, kind: Any, name: str, **fields: Any) -> Any:
        """The answer of a service, by which everything sent before has been looked at."""
        import rclpy

        if name not in self._clients:
            self._clients[name] = self.node.create_client(kind, name)
        client = self._clients[name]
        end, future = time.monotonic() + 60.0, None
        while future is None or not future.done():
            for victim in self.victims:
                victim.check()
            assert time.monotonic() < end, f"{name} answers no more"
            if future is None and client.service_is_ready():
                future = client.call_async(kind.Request(**fields))
            rclpy.spin_once(self.node, timeout_sec=0.1)
        return future.result()

    def _heard(self) -> dict[str, dict[str, str]]:
        """What each node subscribes to, once discovery has brought nothing new for a second."""
        from rclpy.node import NodeNameNonExistentError

        found: dict[str, dict[str, str]] = {}
        end, since = time.monotonic() + 60.0, time.monotonic()
        while len(found) < len(self.victims) or time.monotonic() < since + 1.0:
            assert time.monotonic() < end, f"of {[v.name for v in self.victims]} only {list(found)} are discovered"
            for victim in self.victims:
                with suppress(NodeNameNonExistentError):
                    pairs = self.node.get_subscriber_names_and_types_by_node(victim.name, "/")
                    seen = {topic: types[0] for topic, types in pairs if topic not in OWN}
                    if seen and seen != found.get(victim.name):
                        found[victim.name], since = seen, time.monotonic()
            time.sleep(0.05)
        return found

    def publish(self, topic: str, kind: str, count: int, rng: np.random.Generator) -> None:
        """Hostile messages to every node that listens, then wait until they have been taken."""
        from rclpy._rclpy_pybind11 import RCLError
        from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy

        names = [victim.name for victim in self.victims]
        asked = [i.qos_profile for i in self.node.get_subscriptions_info_by_topic(topic) if i.node_name in names]
        latched = any(profile.durability == DurabilityPolicy.TRANSIENT_LOCAL for profile in asked)
        durability = DurabilityPolicy.TRANSIENT_LOCAL if latched else DurabilityPolicy.VOLATILE
        profile = QoSProfile(depth=100, reliability=ReliabilityPolicy.RELIABLE, durability=durability)
        cls = class_of(kind)
        publisher = self.node.create_publisher(cls, topic, profile)
        lossy = any(profile.reliability == ReliabilityPolicy.BEST_EFFORT for profile in asked)
        together = 1 if lossy else 50  # who keeps the newest alone is not to miss the others
        end = time.monotonic() + 30.0
        while publisher.get_subscription_count() < len(asked) and time.monotonic() < end:
            time.sleep(0.01)
        for sent in range(count):
            with suppress(RCLError):  # longer than a type of fixed size can be: the middleware does not send it
                publisher.publish(hostile(cls, rng))
            if sent % together == together - 1:
                time.sleep(0.01)
        self.alive([victim for victim in self.victims if topic in self._hears[victim.name]])
        self.node.destroy_publisher(publisher)

    def publish_all(self, count: int, rng: np.random.Generator) -> None:
        """So many on each topic."""
        for topic, kind in sorted(self.topics.items()):
            self.publish(topic, kind, count, rng)

    def close(self) -> dict[str, int]:
        """End all; exit status by node."""
        try:
            return {v.name: v.close() for v in self.victims if v.process.poll() is None}
        finally:
            self.node.destroy_node()


def main() -> int:
    """`attack.py FOLDER COUNT NODES`, `NODES` being parameters by node as JSON. Prints topics and growth as JSON."""
    import rclpy

    folder, count, nodes = Path(sys.argv[1]), int(sys.argv[2]), json.loads(sys.argv[3])
    rclpy.init()
    attack = Attack(nodes, folder)
    try:
        attack.find()
        attack.publish_all(count, np.random.default_rng(4))
        growth = {victim.name: victim.growth() for victim in attack.victims}
    finally:
        ended = attack.close()
        rclpy.try_shutdown()
    print(json.dumps({"topics": attack.topics, "growth": growth, "ended": ended}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
