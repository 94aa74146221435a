"""Which chunks may move the arm: is it whole, is it meant for this arm, is it new, and is its source the owner?"""

from __future__ import annotations

from dataclasses import dataclass, replace

from e0_policy.embodiment import Embodiment
from e0_policy.types import MAX_COLUMNS, ActionChunk, Representation
from e0_ros.config import setting
from e0_ros.core.inverse_kinematics import POSE_COLUMNS

_MS = 1_000_000
_SESSIONS = 64
_LONGEST_REASON = 500
_NAMELESS = {Representation.EE_POSE: "poses", Representation.EE_DELTA_STEP: "a benchmark's own rows"}
RANK = {"home": 3, "teleop": 2, "policy": 1, "replay": 0, "scripted": 0}
"""Who takes the arm from whom: a higher rank from a lower one, at once. `home`: to a pose that a human asked for."""


@dataclass(frozen=True)
class Refusal:
    """Why not, in words. `fault`: the owner of the arm sent something wrong, which is no ground to move on."""

    reason: str
    fault: bool = False


@dataclass(frozen=True)
class AdmissionConfig:
    """What decides on admission, apart from the arm."""

    max_chunk_age_ms: float = setting(500.0, "oldest t0 of a chunk on arrival", unit="ms", low=0, high=60000)
    max_ahead_ms: float = setting(1000.0, "furthest t0 in the future on arrival", unit="ms", low=0, high=60000)
    max_open_loop_ms: float = setting(
        3000.0, "rows of source policy later than this after t0 are not executed", unit="ms", low=0, high=60000
    )
    source_silence_ms: float = setting(
        500.0, "real time: longest silence of a plan's source before a hold", unit="ms", low=20, high=60000
    )
    lease_ms: float = setting(1000.0, "silence after which an owner without plan loses the arm", unit="ms", low=0)
    step_columns: int = setting(
        0, "columns of a simulator's own rows (EE_DELTA_STEP), which alone are executed then", low=0, high=MAX_COLUMNS
    )


def clipped(reason: str) -> str:
    """A reason as it is told: others' words in it may be of any length."""
    return reason if len(reason) <= _LONGEST_REASON else f"{reason[: _LONGEST_REASON - 4]} ..."


class Admission:
    """Checks and arbitration, with counts.

    The first accepted source owns the arm after arming. A source of higher `RANK` takes it at once, a human from
    every machine; any other gets it when the owner's plan has ended and nothing came from the owner for `lease_ms`. But
    no silence takes the arm from a human and gives it to a machine: arming again does. An owner is one session: a
    restarted policy is another one. A sequence number is accepted once per session, and only upwards.
    """

    def __init__(self, arm: Embodiment, config: AdmissionConfig) -> None:
        self._arm, self._config = arm, config
        self.accepted = 0
        self.refused = 0
        self.last_refusal = ""
        self._owner: tuple[str, str] | None = None
        self._heard_ns = 0
        self._armed_ns = 0
        self._sequences: dict[tuple[str, str], int] = {}
        kinds = (
            (Representation.JOINT_POSITION, arm.joint_names, arm.columns, "the joints"),
            (Representation.EE_POSE, (), POSE_COLUMNS, "x y z, quaternion xyzw"),
            (Representation.EE_DELTA_STEP, (), config.step_columns, "the benchmark's own"),
        )
        executed = kinds[2:] if config.step_columns else kinds[: 1 + arm.has_kinematics]
        self._executed = {kind: (names, columns, what) for kind, names, columns, what in executed}

    def arm(self, now_ns: int) -> None:
        """Nobody owns the arm; what was seen before counts no more."""
        self._owner, self._armed_ns = None, now_ns

    def admit(self, chunk: ActionChunk, now_ns: int, plan_end_ns: int) -> ActionChunk | Refusal:
        """The chunk as it may be executed, or why not. `plan_end_ns` is when the owner's plan ends."""
        if reason := self._dated(chunk, now_ns) or self._not_its_turn(chunk, now_ns, plan_end_ns):
            return self.refuse(reason)
        if reason := self._wrong(chunk):
            return self.refuse(reason, fault=True)
        if chunk.source == "policy":
            rows = 1 + int(self._config.max_open_loop_ms * _MS) // chunk.period_ns
            if rows < len(chunk.rows):
                return replace(chunk, rows=chunk.rows[:rows], uncertainty=None)
        return chunk

    def accept(self, chunk: ActionChunk, now_ns: int) -> None:
        """Note that the chunk is accepted: its source owns the arm, its sequence number is used."""
        self._owner, self._heard_ns = (chunk.source, chunk.session), now_ns
        self._sequences.pop(self._owner, None)
        self._sequences[self._owner] = chunk.sequence
        if len(self._sequences) > _SESSIONS:
            del self._sequences[next(iter(self._sequences))]
        self.accepted += 1

    def keep(self, source: str, session: str, now_ns: int, seen_ns: int) -> None:
        """Note that a source's plan goes on, by what it saw at `seen_ns`; word that comes late says less."""
        if self._owner == (source, session):
            latest_ns = seen_ns + int(self._config.max_chunk_age_ms * _MS)
            self._heard_ns = max(self._heard_ns, min(now_ns, latest_ns))

    def silence(self, now_ns: int) -> str:
        """That the owner has neither replaced nor kept its plan for too long, in words; empty if it has."""
        silent_ms = (now_ns - self._heard_ns) / _MS
        if self._owner is None or silent_ms <= self._config.source_silence_ms:
            return ""
        return f"{self._owner[0]} is silent for {silent_ms:.0f} ms; allowed is {self._config.source_silence_ms:g} ms"

    def refuse(self, reason: str, fault: bool = False) -> Refusal:
        """Count a refusal."""
        self.refused += 1
        self.last_refusal = reason = clipped(reason)
        return Refusal(reason, fault)

    @property
    def leader(self) -> tuple[str, str] | None:
        """Source and session of the owner; None while nobody owns the arm."""
        return self._owner

    @property
    def owner(self) -> str:
        """The owner in words; empty while nobody owns the arm."""
        return f"{self._owner[0]} (session {self._owner[1]})" if self._owner else ""

    def owns(self, source: str, session: str) -> bool:
        """Whether that session owns the arm, or nobody does."""
        return self._owner in (None, (source, session))

    def _dated(self, chunk: ActionChunk, now_ns: int) -> str:
        last = self._sequences.get((chunk.source, chunk.session), -1)
        age_ns = now_ns - chunk.t0_ns
        if chunk.sequence <= last:
            return f"sequence {chunk.sequence} is not above the last accepted one, {last}"
        seen_ns = chunk.in_reply_to_ns or chunk.t0_ns
        if seen_ns < self._armed_ns:
            return f"planned from {(self._armed_ns - seen_ns) / 1e6:.0f} ms before arming"
        if age_ns > self._config.max_chunk_age_ms * _MS:
            return f"t0 is {age_ns / 1e6:.0f} ms old; allowed is {self._config.max_chunk_age_ms:g} ms"
        if -age_ns > self._config.max_ahead_ms * _MS:
            return f"t0 is {-age_ns / 1e6:.0f} ms in the future; allowed is {self._config.max_ahead_ms:g} ms"
        if chunk.end_ns + chunk.period_ns <= now_ns:
            return f"late: its last row is {(now_ns - chunk.end_ns) / 1e6:.0f} ms old"
        return ""

    def _not_its_turn(self, chunk: ActionChunk, now_ns: int, plan_end_ns: int) -> str:
        if self._owner is None or self._owner == (chunk.source, chunk.session):
            return ""
        if RANK[chunk.source] > RANK[self._owner[0]]:
            return ""
        if RANK[chunk.source] < RANK["teleop"] <= RANK[self._owner[0]]:
            return f"{self.owner} has taken the arm; arm again to hand it back"
        if plan_end_ns <= now_ns and now_ns - self._heard_ns > self._config.lease_ms * _MS:
            return ""
        return f"{self.owner} owns the arm"

    def _wrong(self, chunk: ActionChunk) -> str:
        arm, executed = self._arm, self._executed
        if chunk.representation not in executed:
            return f"representation {chunk.representation.name}; executed here: {', '.join(e.name for e in executed)}"
        if chunk.embodiment != arm.name:
            return f"chunk is for embodiment {chunk.embodiment!r}; this executor drives {arm.name!r}"
        names, columns, what = executed[chunk.representation]
        if chunk.joint_names != names:
            needed = ", ".join(names) or f"none with {_NAMELESS[chunk.representation]}"
            return f"joint names are {', '.join(chunk.joint_names)}; needed are {needed}"
        if chunk.rows.shape[1] != columns:
            return f"rows have {chunk.rows.shape[1]} columns; needed are {columns}: {what}, then the gripper"
        gripper = chunk.rows[:, -1]
        if gripper.min() < 0 or gripper.max() > 1:
            return f"gripper openings reach from {gripper.min():.3g} to {gripper.max():.3g}; allowed is 0 to 1"
        return ""
