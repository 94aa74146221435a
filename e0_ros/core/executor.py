"""Who may move, and when: modes, the reason of every change, latches, and the plans that wait for their time.

                          a plan's time has come            any cause
    DISARMED --arm--> ARMED ------------------> RUNNING ----------------> HOLD --a plan--> RUNNING
    hold on request: HOLD that takes no plan until `arm`; a fault of the owner while ARMED or RUNNING: HOLD
    stop, from every mode: STOPPED --reset_stop--> DISARMED; disarm, from every mode but STOPPED: DISARMED

`arm` leads from every mode but STOPPED to ARMED. What a mode at rest means (braking, or a simulator that stands) and
what running is, is the subclass's: `ChunkExecutor` has a reference and an arm, `StepExecutor` a simulator's own rows.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence

from e0_policy.embodiment import load_embodiment
from e0_policy.types import ActionChunk, FloatArray
from e0_ros.core.admission import Admission, Refusal, clipped
from e0_ros.core.command import Command, State
from e0_ros.core.executor_types import ExecutorConfig, Mode, Status, Tick
from e0_ros.core.measured import Measured

_MS = 1_000_000
_MAX_PENDING = 64


class Executor(ABC):
    """The state machine that every output has. All times are ROS time in ns; nothing here reads a clock."""

    def __init__(self, config: ExecutorConfig) -> None:
        self.config, self.arm_model = config, load_embodiment(config.embodiment)
        self._admission = Admission(self.arm_model, config)
        self._measured = Measured(self.arm_model, config.joint_max_age_ms)
        self._mode, self._reason, self._latched = Mode.DISARMED, "not armed yet", False
        self._pending: list[tuple[int, ActionChunk]] = []
        self._chunk: ActionChunk | None = None
        self._now_ns = 0

    @property
    def mode(self) -> Mode:
        """The present mode."""
        return self._mode

    # -- what a subclass is ----------------------------------------------------------------------------------------

    @property
    @abstractmethod
    def transport_ns(self) -> int:
        """How long a message may take to the controller, by what is known of delays."""

    @abstractmethod
    def observe_delay(self, delay_ns: int, now_ns: int) -> None:
        """Take the time that a message took through the transport."""

    @abstractmethod
    def offer(self, chunk: ActionChunk, now_ns: int) -> Refusal | None:
        """Take a chunk: None if it was accepted, else why not. A wrong chunk of the owner leads to a hold."""

    @abstractmethod
    def due(self, now_ns: int) -> bool:
        """Whether a tick would send something now, were there motion to send."""

    @abstractmethod
    def tick(self, now_ns: int) -> Tick:
        """Decide what is sent now. Call it regularly; in lock-step once per tick of the bridge."""

    @abstractmethod
    def withdraw(self) -> None:
        """Take back what the last tick decided, which was not sent."""

    @abstractmethod
    def status(self, now_ns: int) -> Status:
        """The state at `now_ns`."""

    @abstractmethod
    def _unfit(self, joints: FloatArray, now_ns: int) -> str:
        """Why motion must not begin at these measured joints, in words; empty if it may."""

    @abstractmethod
    def _anchor(self, joints: FloatArray, now_ns: int) -> None:
        """Begin anew at these measured joints; the mode is still the one before arming."""

    # -- inputs ----------------------------------------------------------------------------------------------------

    def observe_joints(
        self, stamp_ns: int, names: Sequence[str], positions: Sequence[float], velocities: Sequence[float]
    ) -> None:
        """Take a measured joint state; joints are found by name. A malformed one is as good as none."""
        self._measured.observe(stamp_ns, names, positions, velocities, self._now_ns)

    def keep(self, source: str, session: str, now_ns: int, seen_ns: int) -> None:
        """Take word from a source that its last plan is still good, by what it saw at `seen_ns`."""
        self._admission.keep(source, session, now_ns, seen_ns)

    def give_up(self, source: str, session: str, reason: str) -> None:
        """Take word from the owner that it leads no more: a hold with its reason until it sends a chunk again.

        A plan of its own that still waits for its time is forgotten.
        """
        if not self._admission.owns(source, session):
            return
        self._pending = []
        if self._mode is Mode.RUNNING:
            self._rest(Mode.HOLD, f"{source}: {reason}")

    def give_up_for(self, sources: Collection[str], reason: str) -> None:
        """As `give_up`, in the name of the owner if it is one of these sources."""
        if (leader := self._admission.leader) and leader[0] in sources:
            self.give_up(*leader, reason)

    def refuse(self, source: str, session: str, reason: str) -> Refusal:
        """Count a chunk that could not even be decoded; the owner's leads to a hold."""
        return self._refuse(reason, fault=self._admission.owns(source, session))

    # -- requests --------------------------------------------------------------------------------------------------

    def arm(self, now_ns: int, not_before_ns: int = 0) -> Refusal | None:
        """Begin at the measured joints and wait for a chunk; None if armed, else why not.

        A joint state measured before `not_before_ns` does not count.
        """
        if self._mode is Mode.STOPPED:
            return Refusal(f"stopped: {self._reason}; reset_stop first")
        if trouble := self._measured.trouble(now_ns, not_before_ns):
            return Refusal(trouble)
        joints = self._measured.position
        assert joints is not None
        if unfit := self._unfit(joints, now_ns):
            return Refusal(unfit)
        self._anchor(joints, now_ns)
        self._rest(Mode.ARMED, "armed on request")
        self._admission.arm(now_ns)
        return None

    def disarm(self, reason: str = "disarmed on request") -> None:
        """Come to rest, then send nothing more."""
        if self._mode is not Mode.STOPPED:
            self._rest(Mode.DISARMED, reason)

    def hold(self, reason: str = "held on request") -> None:
        """Come to rest and stay there until armed again."""
        if self._mode in (Mode.ARMED, Mode.RUNNING, Mode.HOLD):
            self._rest(Mode.HOLD, reason)
            self._latched = True

    def stop(self, reason: str = "stopped on request") -> None:
        """Come to rest; latched until `reset_stop` and `arm`."""
        self._rest(Mode.STOPPED, reason)

    def abandon(self, reason: str) -> None:
        """The arm stopped by itself: send nothing more until it is armed where it then is."""
        self.disarm(reason)

    def reset_stop(self) -> Refusal | None:
        """Release the latch of a stop; then it is disarmed."""
        if self._mode is not Mode.STOPPED:
            return Refusal("not stopped")
        self._mode, self._reason = Mode.DISARMED, "stop was reset"
        return None

    # -- changes of mode -------------------------------------------------------------------------------------------

    def _rest(self, mode: Mode, reason: str) -> None:
        """Change to a mode at rest; every plan is forgotten."""
        self._mode, self._reason, self._latched = mode, clipped(reason), False
        self._forget()

    def _run(self, chunk: ActionChunk) -> None:
        """Follow this chunk from now on."""
        self._chunk = chunk
        self._mode, self._reason = Mode.RUNNING, f"follows {chunk.source} (session {chunk.session})"

    def _refuse(self, reason: str, *, fault: bool = False) -> Refusal:
        """Count a refusal; a fault of the owner ends its motion."""
        return self._refused(self._admission.refuse(reason, fault))

    def _refused(self, refusal: Refusal) -> Refusal:
        if refusal.fault and self._mode in (Mode.ARMED, Mode.RUNNING):
            self._rest(Mode.HOLD, f"refused chunk: {refusal.reason}")
        return refusal

    # -- plans that wait -------------------------------------------------------------------------------------------

    def _admitted(self, chunk: ActionChunk, now_ns: int) -> ActionChunk | Refusal:
        """The chunk as it may be executed, or why not."""
        if self._mode in (Mode.DISARMED, Mode.STOPPED) or self._latched:
            return self._refuse(f"{self._mode.name.lower()}: {self._reason}; arm first")
        plans = [*(waiting for _, waiting in self._pending), *([self._chunk] if self._chunk else [])]
        verdict = self._admission.admit(chunk, now_ns, max([now_ns, *(plan.end_ns for plan in plans)]))
        return self._refused(verdict) if isinstance(verdict, Refusal) else verdict

    def _counts_from_ns(self, chunk: ActionChunk, from_ns: int) -> int:
        """From when a chunk of `from_ns` is in force: not before its simulated latency is over."""
        return max(from_ns, chunk.in_reply_to_ns + self._latency_ns if chunk.in_reply_to_ns else 0)

    def _wait(self, chunk: ActionChunk, from_ns: int) -> None:
        """Have a chunk wait until it counts; a new owner's clears what waits."""
        if not self._admission.owns(chunk.source, chunk.session):
            self._pending = []
        self._pending = [*self._pending[-_MAX_PENDING:], (from_ns, chunk)]

    def _next(self, at_ns: int) -> ActionChunk | None:
        """The newest chunk that has waited until `at_ns`; what came before it is dropped, due or not."""
        for index in reversed(range(len(self._pending))):
            from_ns, chunk = self._pending[index]
            if from_ns <= at_ns:
                self._pending = self._pending[index + 1 :]
                return chunk
        return None

    def _forget(self) -> None:
        """No plan waits and none is in force."""
        self._pending, self._chunk = [], None

    @property
    def _latency_ns(self) -> int:
        return int(self.config.latency_ms * _MS)

    def _status(
        self, now_ns: int, committed_until_ns: int, motion: Command | State | None, opening: float, limited: int = 0
    ) -> Status:
        counts = self._admission
        return Status(
            self._mode, self._reason, self._chunk, committed_until_ns, counts.accepted, counts.refused,
            counts.last_refusal, limited, now_ns, motion, opening, counts.owner,
        )  # fmt: skip
