"""When a leader arm may lead, and what the follower shall do: alignment, engaging, smoothing, dropouts, jumps.

teleop = GelloTeleop(GelloConfig(), load_calibration(path), session="gello-1")
teleop.observe_executor(now_ns, Follower(Mode.ARMED, "", "", reference))
teleop.observe_leader(now_ns, raw_rad)       # a sample of the servos
teleop.tick(now_ns)                          # Idle("not aligned: fr3_joint4 is 0.31 rad above the arm, ...")
# held within 0.1 rad of the arm for 0.3 s
teleop.tick(now_ns)                          # Lead(rows, t0_ns, period_ns): a short chunk from the newest sample
# no sample for 50 ms
teleop.tick(now_ns)                          # Idle("the leader is silent for 51 ms ...", released=True), once

With `engage: request` it takes the arm over from a policy: `engage` brings the arm to a stand, where the leader can be
aligned to it; nothing but arming again hands it back.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import Enum

import numpy as np

from e0_policy.embodiment import load_embodiment
from e0_policy.types import FloatArray
from e0_ros.config import ConfigError, check, setting
from e0_ros.core.executor_types import Mode
from e0_ros.core.gello_geometry import Calibration, joints, nearest, opening
from e0_ros.core.smoothing import OneEuro

_MS = 1_000_000
_STEPS = np.array([0.0, 1.0, 2.0, 3.0, 3.5])
"""Times of a chunk's rows in periods of motion: three at the leader's speed, then a brake within one."""


@dataclass(frozen=True)
class GelloConfig:
    """How a leader leads."""

    embodiment: str = setting("fr3", "follower: a shipped name or the path of a YAML file")
    align_rad: float = setting(0.1, "furthest joint from the arm when it engages", unit="rad", low=0.01, high=0.4)
    align_ms: float = setting(300.0, "time that it must be that close", unit="ms", low=0, high=10000)
    engage: str = setting("auto", "lead as soon as it is aligned, or take the arm over on request",
                          choices=("auto", "request"))  # fmt: skip
    engage_ms: float = setting(1000.0, "the rest of the way is made up in", unit="ms", low=1, high=10000)
    leader_timeout_ms: float = setting(50.0, "longest silence of the leader", unit="ms", low=5, high=1000)
    executor_timeout_ms: float = setting(300.0, "longest silence of the executor", unit="ms", low=20, high=5000)
    follow_ms: float = setting(500.0, "the executor follows within", unit="ms", low=50, high=5000)
    ahead_rad: float = setting(0.4, "furthest ahead of the arm that it leads", unit="rad", low=0.05, high=3.0)
    max_speed_rad_s: float = setting(10.0, "fastest that a hand moves a joint", unit="rad/s", low=0.1, high=100)
    jump_rad: float = setting(0.05, "step that is no jump, beside that speed", unit="rad", low=0.0, high=1.0)
    lookahead_ms: float = setting(45.0, "a chunk goes on at the leader's speed for", unit="ms", low=15, high=200)
    min_cutoff_hz: float = setting(5.0, "smoothing at rest", unit="Hz", low=0.1, high=100)
    cutoff_per_speed: float = setting(20.0, "less smoothing in motion", unit="Hz s/rad", low=0.0, high=1000)
    velocity_cutoff_hz: float = setting(8.0, "smoothing of the speed", unit="Hz", low=0.1, high=100)
    gripper_catch: float = setting(0.1, "the trigger takes the gripper over when this close", low=0.0, high=1.0)
    deadman: bool = setting(False, "lead only while the deadman switch is pressed")

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True)
class Follower:
    """What the executor says: mode, why, whose chunk is in force, reference `(n,)` [rad], opening sent (or NaN).

    `refusal` is why it refused a chunk since it said so last, empty if it refused none.
    """

    mode: Mode
    reason: str
    session: str
    reference: FloatArray | None
    opening: float = math.nan
    refusal: str = ""


@dataclass(frozen=True)
class Lead:
    """A chunk: `rows` `(5, n + 1)`, joints [rad] and opening, in force from `t0_ns`, the sample's own time."""

    rows: FloatArray
    t0_ns: int
    period_ns: int


@dataclass(frozen=True)
class Idle:
    """Nothing to send, because of `reason`. `released`: this tick ended the leading."""

    reason: str
    released: bool = False


class Phase(Enum):
    """Leads, waits to, or may not lead before it is engaged on request."""

    WAITING = "waiting"
    ENGAGED = "engaged"
    RELEASED = "released"


@dataclass
class _Leader:
    """The newest sample: joints counted through whole turns, smoothed; `raw` as the servos read."""

    stamp_ns: int
    joints: FloatArray
    opening: float
    filter: OneEuro = field(repr=False)


class GelloTeleop:
    """The state machine. Times are of one clock, in ns; nothing here reads it.

    Raises:
        ConfigError: the leader has another number of joints than the follower.

    """

    def __init__(self, config: GelloConfig, calibration: Calibration, session: str) -> None:
        self.config, self._calibration, self._session = config, calibration, session
        self._arm = load_embodiment(config.embodiment)
        if len(calibration.joint_ids) != self._arm.joints:
            raise ConfigError(
                f"the leader has {len(calibration.joint_ids)} joints, {self._arm.name} {self._arm.joints}"
            )
        self.phase = Phase.WAITING if config.engage == "auto" else Phase.RELEASED
        self.engagements = self.jumps = 0
        self._leader: _Leader | None = None
        self._fault = ""
        self._follower: tuple[int, Follower] | None = None
        self._period_ns = int(config.lookahead_ms * _MS / 3)
        self._bounds = (np.append(self._arm.position_lower, 0.0), np.append(self._arm.position_upper, 1.0))
        self._pressed = False
        self._aligned_ns: int | None = None
        self._engaged_ns = 0
        self._gap = np.zeros(self._arm.joints)
        self._followed = self._caught = False
        self._refusal = ""
        self._stand: FloatArray | None = None
        self._jump = ""

    # -- inputs ----------------------------------------------------------------------------------------------------

    def observe_leader(self, stamp_ns: int, raw_rad: FloatArray) -> None:
        """Take a sample of the servos `(n,)` or `(n + 1,)` [rad]. One that is not newer than the last counts not."""
        q, asked = joints(self._calibration, raw_rad), opening(self._calibration, raw_rad)
        last, self._fault = self._leader, ""
        if last is None:
            self._leader = _Leader(stamp_ns, q, asked, self._new_filter(q))
            return
        if stamp_ns <= last.stamp_ns:
            return
        dt_s = (stamp_ns - last.stamp_ns) * 1e-9
        q = nearest(q, last.joints)
        step = np.abs(q - last.joints)
        worst = int(step.argmax())
        if step[worst] > self.config.jump_rad + self.config.max_speed_rad_s * dt_s:
            self._jump = f"the leader's {self._name(worst)} jumped by {step[worst]:.2f} rad in {dt_s * 1e3:.0f} ms"
            self.jumps += 1
            last.filter = self._new_filter(q)
        else:
            last.filter.update(q, dt_s)
        self._leader = _Leader(stamp_ns, q, asked, last.filter)

    def leader_fault(self, reason: str) -> None:
        """Note why there was no sample."""
        self._fault = reason

    def observe_executor(self, now_ns: int, follower: Follower) -> None:
        """Take the executor's word, as it arrives."""
        self._follower, self._refusal = (now_ns, follower), follower.refusal or self._refusal
        self._followed |= follower.mode is Mode.RUNNING and follower.session == self._session

    def deadman(self, pressed: bool) -> None:
        """Take the state of the deadman switch."""
        self._pressed = pressed

    def engage(self, now_ns: int) -> str:
        """Stop the arm if another source moves it, and lead as soon as the leader is aligned.

        Returns what is still in the way, empty if nothing is.
        """
        if self.phase is Phase.ENGAGED:
            return ""
        self.phase = Phase.WAITING
        return self._trouble(now_ns) or self.misalignment()

    def release(self) -> None:
        """Lead no more until `engage`."""
        self.phase, self._aligned_ns = Phase.RELEASED, None

    # -- the tick --------------------------------------------------------------------------------------------------

    def tick(self, now_ns: int) -> Lead | Idle:
        """Decide what is sent now. Call it after each sample, and as often where none comes."""
        trouble, engaged = self._trouble(now_ns), self.phase is Phase.ENGAGED
        self._jump = ""
        if trouble:
            self._aligned_ns = None
            self.phase = Phase.WAITING if engaged else self.phase
            if self._disarmed and self.config.engage == "request":  # a new take begins with the policy
                self.phase = Phase.RELEASED
            return Idle(trouble, released=True) if engaged else self._standing(now_ns, trouble)
        if self.phase is not Phase.ENGAGED and (reason := self._waiting(now_ns)):
            return self._standing(now_ns, reason)
        return self._lead(now_ns)

    def _standing(self, now_ns: int, reason: str) -> Lead | Idle:
        """What brings an arm that another source moves to a stand: its own place, until the executor has taken that."""
        follower = self._follower[1] if self._follower else None
        asked = self.config.engage == "request" and self.phase is Phase.WAITING and not self._follower_trouble(now_ns)
        if not asked or follower is None or follower.reference is None or follower.mode is not Mode.RUNNING:
            self._stand = None
            return Idle(reason)
        if follower.session == self._session:
            return Idle(f"has taken over; {reason}", released=True)
        self._stand = follower.reference if self._stand is None else self._stand
        opening = 1.0 if math.isnan(follower.opening) else follower.opening
        row = np.clip(np.append(self._stand, opening), *self._bounds)
        return Lead(np.tile(row, (len(_STEPS), 1)), now_ns, self._period_ns)

    def misalignment(self) -> str:
        """Which joints are further from the arm than allowed, and by how much; empty if none is."""
        if self._leader is None or self._follower is None or self._follower[1].reference is None:
            return "no leader or no arm to compare"
        leader = self._counted_from(self._follower[1].reference)
        off = leader.joints - self._follower[1].reference
        far = [
            f"{self._name(i)} is {abs(off[i]):.2f} rad {'above' if off[i] > 0 else 'below'} the arm"
            for i in np.argsort(-np.abs(off))
            if abs(off[i]) > self.config.align_rad
        ]
        return f"not aligned: {', '.join(far)} (allowed {self.config.align_rad} rad)" if far else ""

    def _waiting(self, now_ns: int) -> str:
        """Why it does not engage yet; empty: it now is."""
        if reason := self.misalignment():
            self._aligned_ns = None
            return reason
        self._aligned_ns = now_ns if self._aligned_ns is None else self._aligned_ns
        if self.phase is Phase.RELEASED:
            return "aligned; released until engaged on request"
        if now_ns - self._aligned_ns < self.config.align_ms * _MS:
            return "aligned; hold still"
        assert self._leader is not None and self._follower is not None
        reference = self._follower[1].reference
        assert reference is not None
        self._gap = reference - self._leader.filter.position
        self.phase, self._engaged_ns, self._followed, self._caught = Phase.ENGAGED, now_ns, False, False
        self._aligned_ns, self._refusal = None, ""
        self.engagements += 1
        return ""

    def _lead(self, now_ns: int) -> Lead:
        assert self._leader is not None and self._follower is not None
        motion, period_ns = self._leader.filter, self._period_ns
        velocity = np.clip(motion.velocity, -self._arm.velocity, self._arm.velocity)
        part = min((now_ns - self._engaged_ns) / (self.config.engage_ms * _MS), 1.0)
        left = 1.0 - part * part * (3.0 - 2.0 * part)
        rows = motion.position + left * self._gap + np.outer(_STEPS * period_ns * 1e-9, velocity)
        if (reference := self._follower[1].reference) is not None:  # a hand that is faster than the arm waits for it
            rows = np.clip(rows, reference - self.config.ahead_rad, reference + self.config.ahead_rad)
        gripper = np.full(len(rows), self._gripper(self._leader.opening, self._follower[1].opening))
        lower, upper = self._bounds
        return Lead(np.clip(np.column_stack((rows, gripper)), lower, upper), self._leader.stamp_ns, period_ns)

    def _gripper(self, asked: float, sent: float) -> float:
        """What the trigger asks for, once it has been where the gripper is: engaging must not drop what is held."""
        self._caught |= math.isnan(sent) or abs(asked - sent) <= self.config.gripper_catch
        return asked if self._caught else sent

    # -- causes ----------------------------------------------------------------------------------------------------

    def _trouble(self, now_ns: int) -> str:
        return self._leader_trouble(now_ns) or self._follower_trouble(now_ns) or self._deadman_trouble()

    def _leader_trouble(self, now_ns: int) -> str:
        if self._leader is None:
            return f"the leader has sent nothing{self._fault and ': ' + self._fault}"
        silent_ms = (now_ns - self._leader.stamp_ns) / _MS
        if silent_ms > self.config.leader_timeout_ms:
            why = self._fault and f": {self._fault}"
            return f"the leader is silent for {silent_ms:.0f} ms (allowed {self.config.leader_timeout_ms:g}){why}"
        return self._jump

    def _follower_trouble(self, now_ns: int) -> str:
        if self._follower is None or now_ns - self._follower[0] > self.config.executor_timeout_ms * _MS:
            return "the executor is silent; is it running?"
        follower = self._follower[1]
        if self._disarmed or follower.reference is None:
            return f"the executor is {follower.mode.name.lower()}: {follower.reason}"
        if self.phase is not Phase.ENGAGED:
            return ""
        if self._followed and (follower.mode is not Mode.RUNNING or follower.session != self._session):
            return f"the executor follows no more: {follower.reason or follower.session}"
        if not self._followed and now_ns - self._engaged_ns > self.config.follow_ms * _MS:
            why = self._refusal and f"it refuses what it is sent: {self._refusal}"
            return f"the executor does not follow: {why or follower.reason or follower.mode.name.lower()}"
        return ""

    @property
    def _disarmed(self) -> bool:
        return self._follower is not None and self._follower[1].mode in (Mode.DISARMED, Mode.STOPPED)

    def _deadman_trouble(self) -> str:
        return "the deadman switch is not pressed" if self.config.deadman and not self._pressed else ""

    # -- parts -----------------------------------------------------------------------------------------------------

    def _counted_from(self, reference: FloatArray) -> _Leader:
        """The leader with its turns counted so that it is nearest to the arm; only before it leads."""
        assert self._leader is not None
        q = nearest(self._leader.joints, reference)
        self._leader.filter.shift(q - self._leader.joints)
        self._leader.joints = q
        return self._leader

    def _new_filter(self, start: FloatArray) -> OneEuro:
        c = self.config
        return OneEuro(c.min_cutoff_hz, c.cutoff_per_speed, c.velocity_cutoff_hz, start)

    def _name(self, joint: int) -> str:
        return self._arm.joint_names[joint]
