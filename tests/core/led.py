"""A hand, a leader arm, an executor and the arm's controller, driven by hand: what tests of leading share."""

from __future__ import annotations

import math

import numpy as np

from e0_policy.resources import config_dir
from e0_policy.types import ActionChunk
from e0_ros.core.gello import Follower, GelloConfig, GelloTeleop, Idle, Lead
from e0_ros.core.gello_geometry import load_calibration, ticks_to_rad
from e0_ros.graph import TELEOP_PACE
from tests.core.driven import MS, START, Driven

LEADER = load_calibration(config_dir() / "gello.yaml")
SAMPLE_MS, READ_MS = 10, 6


class Led:
    """A leader whose servos count in ticks, read at 100 Hz; a chunk reaches the executor `READ_MS` after the sample.

    `silent`: its servos answer no more; `dead`: its node is gone; `turns`: whole turns by which each servo is off;
    `squeeze`: how far the trigger is pulled, 0 to 1.
    """

    def __init__(self, hand, engage="auto", **executor) -> None:
        self.driven = Driven(embodiment="fr3", **{"lead_ms": 20.0, **TELEOP_PACE, **executor}).arm_it()
        self.core = GelloTeleop(GelloConfig(engage=engage), LEADER, "gello-1")
        self.hand, self.silent, self.dead = hand, False, False
        self.turns, self.squeeze = np.zeros(7), 0.0
        self.sequence, self.lags_ms = 0, {}
        self.outcome: Lead | Idle | None = None

    def run(self, duration_ms: int) -> Led:
        d, end_ns = self.driven, self.driven.now_ns + duration_ms // 2 * 2 * MS
        while d.now_ns < end_ns:
            elapsed_ms = (d.now_ns - START) // MS
            if elapsed_ms % SAMPLE_MS == READ_MS and not self.dead:
                self._lead(d.now_ns)
            if elapsed_ms % 4 == 0 or (elapsed_ms % SAMPLE_MS == READ_MS and d.executor.due(d.now_ns)):
                tick = d.tick()
                chunk = tick.status.chunk
                if tick.command is not None and chunk is not None:
                    self.lags_ms.setdefault(chunk.sequence, (d.now_ns - chunk.t0_ns) / MS)
            between = elapsed_ms % 4 == 2 or elapsed_ms % SAMPLE_MS == READ_MS - 2
            d.play(min(2 if between else 4, (end_ns - d.now_ns) // MS))
        return self

    def _lead(self, now_ns: int) -> None:
        d, status = self.driven, self.driven.status
        session = status.chunk.session if status.chunk else ""
        follower = Follower(status.mode, status.reason, session, status.reference.position, status.gripper_opening)
        self.core.observe_executor(now_ns, follower)
        if not self.silent:
            q = self.hand((now_ns - START) / 1e9 - READ_MS / 1e3)
            ticks = (
                np.round((np.array(LEADER.signs) * q + LEADER.offsets_rad) * 4096 / (2 * math.pi)) + 4096 * self.turns
            )
            trigger = LEADER.gripper_open_rad + self.squeeze * (LEADER.gripper_closed_rad - LEADER.gripper_open_rad)
            raw = np.append(ticks_to_rad(ticks), trigger)
            self.core.observe_leader(now_ns - READ_MS * MS, raw)
        self.outcome = self.core.tick(now_ns)
        self.sequence += 1
        if isinstance(self.outcome, Idle):
            if self.outcome.released:
                d.executor.give_up("teleop", "gello-1", self.outcome.reason)
            return
        chunk = ActionChunk(
            self.outcome.rows, self.outcome.t0_ns, self.outcome.period_ns, "teleop", "gello-1", self.sequence,
            embodiment=d.arm.name, joint_names=d.arm.joint_names,
        )  # fmt: skip
        self.offer(chunk)

    def offer(self, chunk: ActionChunk) -> None:
        """To the executor, which takes it."""
        refusal = self.driven.offer(chunk)
        assert refusal is None, refusal


def wave(home, amplitude_rad=0.3, hz=0.5, from_s=2.0):
    def hand(t_s):
        t = max(t_s - from_s, 0.0)
        return home + amplitude_rad * (1 - math.cos(2 * math.pi * hz * t)) / 2

    return hand
