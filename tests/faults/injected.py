"""Faults of a running graph: drawn by a seed, done to it, and what came of each."""

from __future__ import annotations

import os
import shutil
import signal
import time
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from sensor_msgs.msg import Image
from std_msgs.msg import String

from e0_msgs.msg import ExecutorState, RecorderState
from e0_policy.types import ActionChunk, FloatArray
from e0_ros import interfaces
from e0_ros.conversions import chunk_to_msg, to_time
from e0_ros.core.bag_reader import Bag, verify
from e0_ros.graph_client import GraphCallError
from e0_ros.launcher import Launcher
from tests.faults.attack import hostile
from tests.faults.relay import Link
from tests.faults.watched import ARM, Watched

MS = 1_000_000
PERIOD_S, CAMERA_EVERY, ARM_EVERY = 0.01, 2, 10
RECOVERY_S, STEADY_S, PATIENCE_S = 90.0, 1.0, 2.0
KILLED = ("policy", "observation_sync", "episode_recorder", "chunk_executor")
FROZEN = (*KILLED, "bridge")
STILL_S = 0.5
"""Longest freeze of the plant, which plays afterwards what was sent: of more, the middleware loses some."""
ATTACKED = (
    interfaces.ACTION_CHUNK, interfaces.OBSERVATION, interfaces.EXECUTOR_STATE, interfaces.JOINT_STATES,
    interfaces.GRIPPER_STATES, interfaces.camera_topic("base"), interfaces.camera_topic("wrist"),
)  # fmt: skip
KINDS = ("kill", "freeze", "loss", "doubled", "late", "camera frozen", "camera gone", "bytes", "wrong chunk", "reflex",
         "stop", "hand")  # fmt: skip


@dataclass(frozen=True)
class Fault:
    """Of a kind, on a node if it has one, for so long [s]; `seed` draws the rest."""

    kind: str
    node: str
    seconds: float
    seed: int


@dataclass(frozen=True)
class Outcome:
    """Why the arm stopped (empty: it did not), whether it was led again, and after how long [s]."""

    fault: Fault
    reason: str
    recovered: bool
    back_s: float

    def __str__(self) -> str:
        back = f"back after {self.back_s:.1f} s" if self.recovered else "NOT BACK"
        return f"{self.fault.kind} {self.fault.node}: {self.reason or 'went on'}; {back}"


def schedule(seed: int, count: int, kinds: Sequence[str] = KINDS) -> list[Fault]:
    """Faults in random order, every kind once before any comes again."""
    rng, faults = np.random.default_rng(seed), list[Fault]()
    while len(faults) < count:
        for kind in rng.permutation(kinds):
            node = str(rng.choice({"kill": KILLED, "freeze": FROZEN}.get(kind, ("",))))
            seconds = float(rng.choice((0.05, 0.2, 1.0, 5.0) if kind == "freeze" else (1.0, 3.0)))
            seconds = min(seconds, STILL_S) if node == "bridge" else seconds
            faults.append(Fault(str(kind), node, seconds, int(rng.integers(2**31))))
    return faults[:count]


class Injector:
    """Carries plans from the policy to the executor, plays a camera and the arm's watch, records, does what is wrong.

    `sample` is called every `sample_s` with the time [s].
    """

    def __init__(self, nodes: Launcher, bags: Path, sample: Callable[[float], None], sample_s: float) -> None:
        self.nodes, self.bags_dir, self._sample, self._sample_s = nodes, bags, sample, sample_s
        self.seen = Watched(20.0)
        self.bags = self.partial = self.messages = 0
        self._link, self._camera, self._arm, self._rng = Link(0), "", "", np.random.default_rng(0)
        self._beat, self._sampled_s, self._stamp_ns = 0, time.monotonic(), 0
        self._picture = Image(height=64, width=64, encoding="rgb8", step=192, data=bytes(64 * 192))
        self._publishers: dict[str, Any] = {}
        self.seen._listen(interfaces.SHADOW_CHUNK, lambda msg: self._link.send(msg, time.monotonic_ns()))
        self.seen.create_timer(PERIOD_S, self._live)

    def close(self) -> None:
        """Leave the graph."""
        self.seen.close()

    def publisher(self, topic: interfaces.Topic) -> Any:
        """Of a topic, made once."""
        if topic.name not in self._publishers:
            made = self.seen.create_publisher(interfaces.message_class(topic.type), topic.name, topic.qos.profile())
            self._publishers[topic.name] = made
        return self._publishers[topic.name]

    def settle(self) -> None:
        """Until the policy leads; the first episode begins."""
        self.seen.until(lambda: self.seen.states, "the executor")
        assert self._back(), self.seen.states[-1].reason
        self._record()

    def suffer(self, fault: Fault, every_s: float) -> Outcome:
        """Do it, wait until it is over and the policy leads again, and let the rest of the time pass."""
        began, seen = time.monotonic(), self.seen
        seen.states.clear()
        self._rng = np.random.default_rng(fault.seed)
        getattr(self, "_" + fault.kind.replace(" ", "_"))(fault)
        over = time.monotonic()
        recovered = self._back()
        back_s = time.monotonic() - over
        stopped = [s for s in seen.states if s.mode != ExecutorState.RUNNING]
        self._account()
        self._record()
        while (left := every_s - (time.monotonic() - began)) > 0:
            seen.spin(min(left, 1.0))
        return Outcome(fault, stopped[0].reason if stopped else "", recovered, back_s)

    # -- the world -------------------------------------------------------------------------------------------------

    def _live(self) -> None:
        for msg in self._link.due(time.monotonic_ns()):
            self.publisher(interfaces.ACTION_CHUNK).publish(msg)
        self._beat += 1
        if self._beat % CAMERA_EVERY == 0 and self._camera != "gone":
            self._stamp_ns = self._stamp_ns if self._camera == "frozen" else time.time_ns()
            self._picture.header.stamp = to_time(self._stamp_ns)
            self.publisher(interfaces.camera_topic("wrist")).publish(self._picture)
        if self._beat % ARM_EVERY == 0:
            self.publisher(interfaces.ARM_FAULT).publish(String(data=self._arm))
        if (now_s := time.monotonic()) - self._sampled_s >= self._sample_s:
            self._sampled_s = now_s
            self._sample(now_s)

    def _back(self) -> bool:
        """Whether the policy leads for a while, armed again by the soak where the executor asks for it."""
        seen, end, led_s = self.seen, time.monotonic() + RECOVERY_S, 0.0
        asked = time.monotonic()
        while time.monotonic() < end:
            before, commands = time.monotonic(), seen.states[-1].commands if seen.states else 0
            seen.spin(0.1)
            moving = seen.runs() and seen.states[-1].commands != commands
            led_s = led_s + time.monotonic() - before if moving else 0.0
            if led_s >= STEADY_S:
                return True
            if not seen.runs() and time.monotonic() - asked > PATIENCE_S:
                asked = time.monotonic()
                self._ask()
        return False

    def _ask(self) -> None:
        """Arm, after a reset where it was stopped; what is not ready says so and is asked again."""
        try:
            if self.seen.mode() == ExecutorState.STOPPED:
                self.seen.request(interfaces.RESET_STOP)
            self.seen.request(interfaces.ARM)
        except GraphCallError:
            return

    def _record(self) -> None:
        """An episode, if none is open."""
        try:
            if self.seen.recorder.mode == RecorderState.IDLE:
                self.seen.request(interfaces.START_EPISODE)
        except GraphCallError:
            return

    def _account(self) -> None:
        """End the episode; read every bag there is, cut or whole, and remove it."""
        try:
            self.seen.request(interfaces.END_EPISODE, outcome="unlabelled")
        except GraphCallError:
            return
        for folder in sorted(path.parent for path in self.bags_dir.glob("**/*.mcap")):
            whole = not folder.name.endswith(".partial")
            if whole:
                verify(folder)
            self.messages += sum(1 for _ in Bag(folder, salvage=not whole).messages())
            self.bags, self.partial = self.bags + whole, self.partial + (not whole)
            shutil.rmtree(folder)

    # -- faults ----------------------------------------------------------------------------------------------------

    def _kill(self, fault: Fault) -> None:
        pid = self.nodes.pid(fault.node)
        os.kill(pid, signal.SIGKILL)
        self.seen.until(lambda: self.nodes.pid(fault.node) != pid, f"another {fault.node}")

    def _freeze(self, fault: Fault) -> None:
        pid = self.nodes.pid(fault.node)
        os.kill(pid, signal.SIGSTOP)
        self.seen.spin(fault.seconds)
        os.kill(pid, signal.SIGCONT)

    def _linked(self, fault: Fault, **wrong: float) -> None:
        self._link = Link(fault.seed, **wrong)
        self.seen.spin(fault.seconds)
        self._link = Link(0)

    def _loss(self, fault: Fault) -> None:
        self._linked(fault, drop=float(self._rng.uniform(0.1, 1.0)))

    def _doubled(self, fault: Fault) -> None:
        self._linked(fault, double=1.0, worst_ms=50.0)

    def _late(self, fault: Fault) -> None:
        self._linked(fault, worst_ms=float(self._rng.uniform(100.0, 3000.0)))

    def _camera_frozen(self, fault: Fault) -> None:
        self._camera = "frozen"
        self.seen.spin(fault.seconds)
        self._camera = ""

    def _camera_gone(self, fault: Fault) -> None:
        self._camera = "gone"
        self.seen.spin(fault.seconds)
        self._camera = ""

    def _bytes(self, fault: Fault) -> None:
        for topic in self._rng.permutation(np.arange(len(ATTACKED)))[:3]:
            chosen = ATTACKED[int(topic)]
            kind = interfaces.message_class(chosen.type)
            for _ in range(50):
                self.publisher(chosen).publish(hostile(kind, self._rng))
                self.seen.spin(0.002)

    def _offer(self, rows: FloatArray, spoilt: Sequence[float] = (), **fields: Any) -> None:
        """A chunk of now; `spoilt` numbers come in the place of its first."""
        now_ns = time.time_ns()
        given = {"source": "policy", "session": "wrong", "embodiment": "fr3", "joint_names": ARM.joint_names} | fields
        msg = chunk_to_msg(ActionChunk(rows, now_ns, 50 * MS, sequence=now_ns, **given), now_ns)
        msg.data[: len(spoilt)] = array("d", spoilt)
        self.publisher(interfaces.ACTION_CHUNK).publish(msg)

    def _wrong_chunk(self, fault: Fault) -> None:
        rows = np.column_stack([np.tile(ARM.home, (10, 1)), np.ones(10)])
        for fields in ({}, {"embodiment": "panda"}, {"joint_names": ARM.joint_names[::-1]}):
            self._offer(rows, **fields)
            self._offer(rows, self._rng.choice((np.nan, np.inf, 1e308, 0.0), 20).tolist(), **fields)
            self._offer(rows + self._rng.uniform(-7.0, 7.0, rows.shape), **fields)
            self.seen.spin(0.2)

    def _reflex(self, fault: Fault) -> None:
        self._arm = "reflex: joint_reflex"
        self.seen.spin(fault.seconds)
        self._arm = ""

    def _stop(self, fault: Fault) -> None:
        self.seen.request(interfaces.STOP)
        self.seen.spin(fault.seconds)

    def _hand(self, fault: Fault) -> None:
        """A human takes the arm, and lets go."""
        end = time.monotonic() + fault.seconds
        while time.monotonic() < end and self.seen.states:
            here = np.array(self.seen.states[-1].positions)
            self._offer(np.append(here, 1.0)[None].repeat(4, 0), source="teleop", session="hand")
            self.seen.spin(0.05)
