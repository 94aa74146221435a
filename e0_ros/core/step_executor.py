"""Feeds rows of a benchmark's own controller to a simulator in lock-step: one row, one control step, as it is.

executor = make_executor(ExecutorConfig(embodiment="panda", lockstep=True, output="step", step_columns=7))
executor.observe_joints(0, names, home, zeros)
executor.arm(0)
executor.offer(chunk, 50 * MS)      # EE_DELTA_STEP rows, 50 ms apart
executor.tick(50 * MS).row          # its first row
executor.tick(100 * MS).row         # its second one; after the last: None, the simulator stands, Mode.HOLD

No limit of the arm is kept here, no row is blended, scaled or repeated: what a row does is the simulator's affair. So
nothing here has an output that an arm listens to, and `ExecutorConfig` refuses `step` outside lock-step.
"""

from __future__ import annotations

from collections.abc import Sequence

from e0_policy.embodiment import load_embodiment
from e0_policy.types import ActionChunk, FloatArray
from e0_ros.core.admission import Admission, Refusal
from e0_ros.core.chunk_executor import ChunkExecutor
from e0_ros.core.executor_types import ExecutorConfig, Mode, Status, Tick
from e0_ros.core.measured import Measured

_MS = 1_000_000


class StepExecutor:
    """The state machine of `ChunkExecutor` without a reference: arming, arbitration, holding and stopping."""

    transport_ns = 0

    def __init__(self, config: ExecutorConfig) -> None:
        self.config, self.arm_model = config, load_embodiment(config.embodiment)
        self._admission = Admission(self.arm_model, config)
        self._measured = Measured(self.arm_model, config.joint_max_age_ms)
        self._mode, self._reason, self._latched = Mode.DISARMED, "not armed yet", False
        self._chunk: ActionChunk | None = None
        self._pending: list[tuple[int, ActionChunk]] = []
        self._now_ns = self._ticked_ns = 0
        self._gripper = float("nan")

    @property
    def mode(self) -> Mode:
        """The present mode."""
        return self._mode

    # -- inputs ----------------------------------------------------------------------------------------------------

    def observe_delay(self, delay_ns: int, now_ns: int) -> None:
        """Nothing here leads, so a delay changes nothing."""

    def observe_joints(
        self, stamp_ns: int, names: Sequence[str], positions: Sequence[float], velocities: Sequence[float]
    ) -> None:
        """Take a measured joint state; joints are found by name."""
        self._measured.observe(stamp_ns, names, positions, velocities, self._now_ns)

    def offer(self, chunk: ActionChunk, now_ns: int) -> Refusal | None:
        """Take a chunk: None if it was accepted, else why not. A wrong chunk of the owner leads to a hold."""
        if self._mode in (Mode.DISARMED, Mode.STOPPED) or self._latched:
            return self._admission.refuse(f"{self._mode.name.lower()}: {self._reason}; arm first")
        ends = [c.end_ns for _, c in self._pending] + ([self._chunk.end_ns] if self._chunk else [])
        verdict = self._admission.admit(chunk, now_ns, max([now_ns, *ends]))
        if isinstance(verdict, Refusal):
            return self._refused(verdict)
        if (now_ns - chunk.t0_ns) % chunk.period_ns:
            off_ms = (now_ns - chunk.t0_ns) % chunk.period_ns / _MS
            return self._refused(self._admission.refuse(f"no row is for this tick: off by {off_ms:g} ms", fault=True))
        if not self._admission.owns(chunk.source, chunk.session):
            self._pending = []
        delayed_ns = chunk.in_reply_to_ns + int(self.config.latency_ms * _MS) if chunk.in_reply_to_ns else 0
        self._pending.append((max(chunk.t0_ns, delayed_ns), verdict))
        self._admission.accept(chunk, now_ns)
        return None

    def keep(self, source: str, session: str, now_ns: int) -> None:
        """Take word from a source that its last plan is still good."""
        self._admission.keep(source, session, now_ns)

    def give_up(self, source: str, session: str, reason: str) -> None:
        """Take word from the owner that it leads no more: a hold until it sends a chunk again."""
        if self._mode is Mode.RUNNING and self._admission.owns(source, session):
            self._rest(Mode.HOLD, f"{source}: {reason}")

    def refuse(self, source: str, session: str, reason: str) -> Refusal:
        """Count a chunk that could not even be decoded; the owner's leads to a hold."""
        return self._refused(self._admission.refuse(reason, fault=self._admission.owns(source, session)))

    # -- requests --------------------------------------------------------------------------------------------------

    def arm(self, now_ns: int, not_before_ns: int = 0) -> Refusal | None:
        """Wait for a chunk; None if armed, else why not. A joint state before `not_before_ns` does not count."""
        if self._mode is Mode.STOPPED:
            return Refusal(f"stopped: {self._reason}; reset_stop first")
        if trouble := self._measured.trouble(now_ns):
            return Refusal(trouble)
        if self._measured.stamp_ns < not_before_ns:
            return Refusal(
                f"the newest joint state is {(not_before_ns - self._measured.stamp_ns) / _MS:.0f} ms too old"
            )
        self._admission.arm(now_ns)
        self._latched, self._ticked_ns, self._gripper = False, 0, float("nan")
        self._rest(Mode.ARMED, "armed on request")
        return None

    def disarm(self, reason: str = "disarmed on request") -> None:
        """Send nothing more."""
        if self._mode is not Mode.STOPPED:
            self._rest(Mode.DISARMED, reason)

    def hold(self, reason: str = "held on request") -> None:
        """Stand until armed again."""
        if self._mode in (Mode.ARMED, Mode.RUNNING, Mode.HOLD):
            self._rest(Mode.HOLD, reason)
            self._latched = True

    def stop(self, reason: str = "stopped on request") -> None:
        """Stand; latched until `reset_stop` and `arm`."""
        self._rest(Mode.STOPPED, reason)

    def abandon(self, reason: str) -> None:
        """As `disarm`."""
        self.disarm(reason)

    def withdraw(self) -> None:
        """Nothing to take back: in lock-step every row is sent."""

    def reset_stop(self) -> Refusal | None:
        """Release the latch of a stop; the simulator is then disarmed."""
        if self._mode is not Mode.STOPPED:
            return Refusal("not stopped")
        self._rest(Mode.DISARMED, "stop was reset")
        return None

    # -- the tick --------------------------------------------------------------------------------------------------

    def tick(self, now_ns: int) -> Tick:
        """The row of this control step. Call it once per tick of the bridge."""
        if now_ns < self._ticked_ns:
            self.disarm(f"the clock jumped back by {(self._ticked_ns - now_ns) / 1e9:.3f} s")
        self._now_ns = now_ns
        if self._mode in (Mode.ARMED, Mode.RUNNING) and (trouble := self._measured.trouble(now_ns)):
            self._rest(Mode.HOLD, trouble)
        row = self._row(now_ns)
        self._ticked_ns = now_ns
        if row is not None:
            self._gripper = float(row[-1])
        return Tick(None, None, self.status(now_ns), row)

    def status(self, now_ns: int) -> Status:
        """The state; what is commanded is the simulator's affair, so the joints in it are the measured ones."""
        counts, until_ns = self._admission, now_ns + int(self.config.latency_ms * _MS)
        return Status(
            self._mode, self._reason, self._chunk, until_ns, counts.accepted, counts.refused, counts.last_refusal, 0,
            now_ns, self._measured.state, self._gripper, counts.owner,
        )  # fmt: skip

    def _row(self, now_ns: int) -> FloatArray | None:
        due = [chunk for from_ns, chunk in self._pending if from_ns <= now_ns]
        if due:
            self._pending = [entry for entry in self._pending if entry[0] > now_ns]
            self._chunk = due[-1]
            self._mode, self._reason = Mode.RUNNING, f"follows {self._chunk.source} (session {self._chunk.session})"
        if self._mode is not Mode.RUNNING or self._chunk is None:
            return None
        chunk, step_ns = self._chunk, now_ns - self._ticked_ns if self._ticked_ns else self._chunk.period_ns
        if step_ns != chunk.period_ns:
            periods = f"rows are {chunk.period_ns / _MS:g} ms apart, control steps {step_ns / _MS:g} ms"
            self._rest(Mode.HOLD, f"{periods}: each row feeds exactly one step")
            return None
        index = (now_ns - chunk.t0_ns) // chunk.period_ns
        if index >= len(chunk.rows):
            self._rest(Mode.HOLD, f"plan exhausted: its last row was {(now_ns - chunk.end_ns) / _MS:.0f} ms ago")
            return None
        row: FloatArray = chunk.rows[index]
        return row

    def _refused(self, refusal: Refusal) -> Refusal:
        if refusal.fault and self._mode in (Mode.ARMED, Mode.RUNNING):
            self._rest(Mode.HOLD, f"refused chunk: {refusal.reason}")
        return refusal

    def _rest(self, mode: Mode, reason: str) -> None:
        self._mode, self._reason, self._latched = mode, reason, False
        self._chunk, self._pending = None, []


def make_executor(config: ExecutorConfig) -> ChunkExecutor | StepExecutor:
    """The executor of an output."""
    return StepExecutor(config) if config.output == "step" else ChunkExecutor(config)
