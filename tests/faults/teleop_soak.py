"""`make soak TELEOP=1`: hours of teleoperation with time driven by hand, and whether anything grows or breaks a limit.

python -m tests.faults.teleop_soak --seconds 28800      # simulated seconds, as fast as they run

One shift after the other, as on a bench: a policy moves the arm, a hand on the leader takes it over, leads it and lets
go, the scene is put back, and the arm is armed again. Meanwhile the seed pulls the trigger, silences the servos, makes
one of them jump, counts whole turns otherwise, ends the leader's node and begins it anew, and moves faster than the arm
can. The cores of leader and executor, the arm's controller and the judge are in one process; chunks, joint states and
the executor's state are ROS messages that are serialised, recorded to a bag of the shift and read back. Exit status 1:
an illegal set-point, a hand that did not get the arm, a bag that lacks a message, or growth as `make soak` finds it.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rclpy.serialization import serialize_message
from sensor_msgs.msg import JointState

from e0_msgs.msg import ActionChunk as ChunkMsg
from e0_policy.types import ActionChunk, FloatArray
from e0_ros import interfaces
from e0_ros.conversions import chunk_from_msg, chunk_to_msg, deserialize, to_time
from e0_ros.core.bag_reader import Bag, verify
from e0_ros.core.definitions import installed
from e0_ros.core.executor_types import Mode
from e0_ros.core.gello import GelloConfig, GelloTeleop, Phase
from e0_ros.core.recorder_config import BagConfig, StoreConfig
from e0_ros.core.recording import Received, Recording
from e0_ros.executor_messages import floats, status_to_msg
from e0_ros.progress import Progress
from sim.judge import Judge, Violation
from tests.core.driven import MS, START
from tests.core.led import LEADER, SAMPLE_MS, Led, wave
from tests.faults.gauges import Gauges
from tests.faults.soak import growing, held

TROUBLES = ("trigger", "silence", "jump", "node", "fast", "turn")
BATCH = 50


class InBatches:
    """A judge that looks at many set-points at once, which costs a tenth."""

    def __init__(self, judge: Judge) -> None:
        self.judge = judge
        self._waiting: list[tuple[NDArray[np.int64], FloatArray]] = []

    def check(self, times_ns: NDArray[np.int64], positions: FloatArray) -> list[Violation]:
        """Take set-points, and judge them with others as soon as there are enough."""
        self._waiting.append((times_ns, positions))
        return self.rest() if len(self._waiting) >= BATCH else []

    def rest(self) -> list[Violation]:
        """Judge what waits."""
        waiting, self._waiting = self._waiting, []
        return self.judge.check(*map(np.concatenate, zip(*waiting, strict=True))) if waiting else []


class Shifts(Led):
    """Shifts of a hand on one bench, each recorded to a bag under `folder`, which is read and removed.

    `led` counts the leader's samples while it led, `holds` why the arm held, by the first words, and `refused` the
    chunks that the executor did not take.
    """

    def __init__(self, seed: int, folder: Path) -> None:
        super().__init__(lambda _: self.driven.home, engage="request", lease_ms=200.0)
        self.random, self.folder = np.random.default_rng(seed), folder
        self.driven.judge = self._judge = InBatches(self.driven.judge)  # type: ignore[assignment]
        self.shifts = self.led = self.engagements = self.jumps = self.chunks = self.refused = self.messages = 0
        self.holds: Counter[str] = Counter()
        self._plans, self._put, self._mode = 0, 0, Mode.ARMED

    @property
    def seconds(self) -> float:
        """How long it has been."""
        return (self.driven.now_ns - START) / 1e9

    @property
    def setpoints(self) -> int:
        """How many the judge has seen."""
        return self._judge.judge.samples

    def shift(self, troubles: int = 3) -> None:
        """From a policy's motion to the next arming."""
        self.begin()
        self._policy()
        self.core.engage(self.driven.now_ns)
        self.align()
        for trouble in self.random.permutation(TROUBLES)[:troubles]:
            self._lead_for(float(self.random.uniform(3.0, 8.0)))
            getattr(self, f"_{trouble}")()
            self.run(400)
            self.align()
        self._let_go()
        self.run(int(self.random.integers(250, 750)) * 20)  # the scene is put back
        self.end()

    def begin(self) -> None:
        """The bag of a shift."""
        self._recording = Recording(self.folder, f"shift_{self.shifts}", BagConfig(), StoreConfig(), installed())
        self._recording.start({"task": "soak"}, {}, self.driven.now_ns)
        self._put = 0

    def end(self) -> None:
        """The judge's word on all of it, and the bag's messages counted."""
        d = self.driven
        violations = d.violations + self._judge.rest()
        assert not violations, f"{len(violations)} illegal set-points, first {violations[0]}"
        summary = self._recording.close({"outcome": "success"})
        assert summary is not None, self._recording.fault
        verify(summary.path)
        read = sum(1 for _ in Bag(summary.path).messages())
        assert read == self._put, f"{summary.path.name} has {read} of {self._put} messages"
        shutil.rmtree(summary.path)
        self.messages, self.shifts = self.messages + read, self.shifts + 1
        del d.positions[:-3], d.ticks[:]
        self.lags_ms.clear()

    def align(self) -> None:
        """Bring the leader to where the arm rests, until it leads."""
        d = self.driven
        for _ in range(200):
            if d.mode == "RUNNING" and d.status.chunk.source == "teleop":
                return
            if self.core.phase is Phase.RELEASED:
                self.core.engage(d.now_ns)
            here = d.status.reference.position
            self.hand = lambda _, here=here: here
            self.run(50)
        raise AssertionError(f"the hand did not get the arm: {self.outcome}; {d.status.reason}")

    # -- over the wire and into the bag --------------------------------------------------------------------------

    def offer(self, chunk: ActionChunk) -> None:
        """As a message; refused is what leaves the workspace, or what comes while the arm brakes."""
        raw = self._record(interfaces.ACTION_CHUNK, chunk_to_msg(chunk, self.driven.now_ns))
        received = chunk_from_msg(deserialize(raw, ChunkMsg))
        assert isinstance(received, ActionChunk)
        self.chunks += 1
        self.refused += self.driven.offer(received) is not None

    def _lead(self, now_ns: int) -> None:
        super()._lead(now_ns)
        arm, status = self.driven.arm, self.driven.status
        if status.mode is not self._mode and status.mode is Mode.HOLD:
            self.holds[" ".join(status.reason.split()[:5])] += 1
        self._mode = status.mode
        self.led += status.mode is Mode.RUNNING and bool(status.chunk) and status.chunk.source == "teleop"
        state = JointState(name=list(arm.joint_names), position=floats(self.driven.positions[-1]))
        state.header.stamp = to_time(now_ns)
        self._record(interfaces.JOINT_STATES, state)
        if (now_ns - START) // MS % 50 < SAMPLE_MS:
            self._record(interfaces.EXECUTOR_STATE, status_to_msg(status, now_ns, 0, arm.joint_names))

    def _record(self, topic: interfaces.Topic, message: object) -> bytes:
        raw, now_ns = serialize_message(message), self.driven.now_ns
        self._put += 1
        assert self._recording.put(Received(topic.name, topic.type, topic.qos, raw, now_ns, now_ns, self._put))
        return raw

    # -- what happens ------------------------------------------------------------------------------------------------

    def _policy(self) -> None:
        d = self.driven
        for _ in range(int(self.random.integers(10, 40))):
            here = d.status.reference.position
            target = d.home + self.random.uniform(-0.4, 0.4, d.arm.joints)
            rows = here + np.linspace(0.0, 1.0, 12)[:, None] ** 2 * np.clip(target - here, -0.45, 0.45)
            self._plans += 1
            self.offer(d.chunk(rows, self._plans))
            self.run(int(self.random.integers(5, 13)) * 20)

    def _lead_for(self, seconds: float, amplitude_rad: float = 0.25, hz: float = 0.5) -> None:
        here, n = self.driven.status.reference.position, self.driven.arm.joints
        self.hand = wave(here, self.random.uniform(-amplitude_rad, amplitude_rad, n), hz, self.seconds)
        self.run(round(seconds * 50) * 20)

    def _trigger(self) -> None:
        self.squeeze = float(self.random.uniform(0.0, 1.0))

    def _silence(self) -> None:
        self.silent = True
        self.run(int(self.random.integers(1, 16)) * 20)
        self.silent = False

    def _jump(self) -> None:
        hand, by = self.hand, np.eye(self.driven.arm.joints)[self.random.integers(7)] * self.random.uniform(0.2, 3.0)
        self.hand = lambda t: hand(t) + by
        self.run(100)
        self.hand = hand

    def _node(self) -> None:
        self.dead = True
        self.run(300)
        self.count()
        self.core, self.dead = GelloTeleop(GelloConfig(engage="request"), LEADER, "gello-1"), False

    def _fast(self) -> None:
        self._lead_for(2.0, 1.2, 1.2)

    def _turn(self) -> None:
        self.turns = self.random.integers(-3, 4, self.driven.arm.joints)

    def _let_go(self) -> None:
        d = self.driven
        self.core.release()
        d.executor.give_up("teleop", "gello-1", "released on request")
        for _ in range(100):
            self.run(20)
            if d.executor.arm(d.now_ns) is None:
                return
        raise AssertionError(d.executor.arm(d.now_ns))

    def count(self) -> None:
        """Add what this life of the leader's node has counted."""
        self.engagements, self.jumps = self.engagements + self.core.engagements, self.jumps + self.core.jumps


def soak(seconds: float, seed: int, settle_s: float) -> int:
    """Shifts for so many simulated seconds; prints what came of them and what the process held."""
    gauges, trouble, began = Gauges(), "", time.monotonic()
    progress = Progress(round(seconds / 60), "simulated minutes")
    with tempfile.TemporaryDirectory(prefix="e0_soak_") as name:
        bench = Shifts(seed, Path(name))
        try:
            while bench.seconds < seconds:
                bench.shift()
                gauges.read({"teleoperation": os.getpid()}, bench.seconds)
                for _ in range(int(min(bench.seconds, seconds) // 60) - progress.done):
                    progress.advance(f"{bench.shifts} shifts")
        except (AssertionError, KeyboardInterrupt) as error:
            trouble = f"{type(error).__name__} in shift {bench.shifts}: {error}"
    bench.count()
    pace = bench.seconds / (time.monotonic() - began)
    print(f"\n{bench.seconds / 3600:.2f} h of teleoperation, {pace:.1f} times real time, seed {seed}:")
    print(f"{bench.shifts} shifts, led in {bench.led * SAMPLE_MS / 1e3 / bench.seconds:.0%} of the time")
    print(f"the leader engaged {bench.engagements} times, {bench.jumps} jumps of it")
    print(f"{bench.chunks} chunks, {bench.refused} of them refused; {bench.messages} messages read from the bags")
    print("\n".join(f"  {count:>6} holds: {why}" for why, count in bench.holds.most_common()))
    trends = gauges.trends(settle_s)
    print(f"\n{held(trends)}\n{trouble or f'judge: 0 illegal of {bench.setpoints} set-points'}")
    return int(bool(trouble or growing(trends)))


def main(argv: Sequence[str] | None = None) -> int:
    """Soak."""
    parser = argparse.ArgumentParser(prog="make soak TELEOP=1", description=__doc__.split("\n", 1)[0])
    parser.add_argument("--seconds", type=float, default=28800.0, help="simulated")
    parser.add_argument("--seed", type=int, default=0, help="of all that happens")
    parser.add_argument("--settle", type=float, default=3600.0, metavar="S", help="not looked at for growth, simulated")
    options = parser.parse_args(argv)
    return soak(options.seconds, options.seed, options.settle)


if __name__ == "__main__":
    sys.exit(main())
