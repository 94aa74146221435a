"""A policy and a human take the arm from each other: every command stays inside every limit."""

from __future__ import annotations

import os

import numpy as np

from e0_policy.types import ActionChunk
from e0_ros.core.chunk_executor import Mode
from e0_ros.core.executor_types import ExecutorConfig
from e0_ros.graph import TELEOP_PACE
from tests.core.driven import MS, Driven

PAIRS = int(os.environ.get("E0_PAIRS", "15"))
"""Of hand-overs, there and back; `make scenarios` does 500."""
TICK_MS, PERIOD_MS = 8, 10


class Rivals:
    """A policy's chunks of 20 Hz rows every 200 ms, and a hand's of five rows every 10 ms, both where they like."""

    def __init__(self, seed: int) -> None:
        self.random = np.random.default_rng(seed)
        self.driven = Driven(embodiment="fr3", lead_ms=20.0, lease_ms=200.0, **TELEOP_PACE).arm_it()
        self.sequence = self.hand_overs = 0

    def policy(self) -> None:
        d, n = self.driven, self.driven.arm.joints
        target = d.home + self.random.uniform(-0.4, 0.4, n)
        self.hand_overs += 1
        for _ in range(int(self.random.integers(1, 3))):
            share = np.linspace(0.0, 1.0, 12)[:, None] ** 2
            here = d.status.reference.position
            self.send(d.chunk(np.clip(here + share * (target - here), here - 0.45, here + 0.45), self.next()))
            d.run(int(self.random.integers(10, 26)) * TICK_MS, TICK_MS)

    def human(self) -> None:
        """Takes the arm in full motion, with a speed of its own, and waves."""
        d, n = self.driven, self.driven.arm.joints
        here, self.hand_overs = d.status.reference.position + self.random.uniform(-0.1, 0.1, n), self.hand_overs + 1
        speed, hz = self.random.uniform(-1.5, 1.5, n), self.random.uniform(0.3, 2.0)
        for k in range(int(self.random.integers(2, 30))):
            t_s = k * TICK_MS / 1e3 + np.array([0.0, 15.0, 30.0, 45.0, 52.5]) / 1e3
            rows = here + speed * np.sin(2 * np.pi * hz * t_s)[:, None] / (2 * np.pi * hz)
            reference = d.status.reference.position
            rows = np.clip(rows, reference - 0.4, reference + 0.4)
            fields = {"source": "teleop", "session": "hand", "period_ns": 15 * MS}
            self.send(d.chunk(rows, self.next(), **fields))
            d.run(TICK_MS, TICK_MS)

    def hand_back(self) -> None:
        """The human lets go, and the arm is armed again as soon as it rests."""
        d = self.driven
        d.executor.give_up("teleop", "hand", "released on request")
        assert d.offer(d.chunk([d.home] * 20, self.next())) is not None, "the policy must not take the arm by itself"
        for _ in range(200):
            if d.executor.arm(d.now_ns) is None:
                return
            d.run(TICK_MS, TICK_MS)
        raise AssertionError(d.executor.arm(d.now_ns))

    def send(self, chunk: ActionChunk) -> None:
        refusal = self.driven.offer(chunk)
        assert refusal is None, refusal
        self.driven.tick()
        assert self.driven.executor.mode is Mode.RUNNING
        assert chunk.source in self.driven.status.reason

    def next(self) -> int:
        self.sequence += 1
        return self.sequence


def hand_over(pairs: int, seed: int = 0) -> Rivals:
    rivals = Rivals(seed)
    for _ in range(pairs):
        rivals.policy()
        rivals.human()
        rivals.hand_back()
        del rivals.driven.ticks[:]
        assert not rivals.driven.violations
    return rivals


def test_hand_overs_between_policy_and_human_break_no_limit() -> None:
    assert ExecutorConfig().max_jump_rad >= 0.45
    rivals = hand_over(PAIRS)
    assert rivals.hand_overs == 2 * PAIRS
    print(f"{rivals.hand_overs} hand-overs, {len(rivals.driven.positions)} set-points, 0 violations")
    moved = np.ptp(np.array(rivals.driven.positions), axis=0)
    assert moved.min() > 0.1
