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

from e0_policy.types import ActionChunk, FloatArray
from e0_ros.core.admission import Refusal
from e0_ros.core.chunk_executor import ChunkExecutor
from e0_ros.core.executor import Executor
from e0_ros.core.executor_types import ExecutorConfig, Mode, Status, Tick

_MS = 1_000_000


class StepExecutor(Executor):
    """Without a reference: at rest the simulator stands."""

    transport_ns = 0

    def __init__(self, config: ExecutorConfig) -> None:
        super().__init__(config)
        self._ticked_ns, self._opening = 0, float("nan")

    def observe_delay(self, delay_ns: int, now_ns: int) -> None:
        """Nothing here leads, so a delay changes nothing."""

    def offer(self, chunk: ActionChunk, now_ns: int) -> Refusal | None:
        """Take a chunk: None if it was accepted, else why not. A wrong chunk of the owner leads to a hold."""
        verdict = self._admitted(chunk, now_ns)
        if isinstance(verdict, Refusal):
            return verdict
        if off_ns := (now_ns - chunk.t0_ns) % chunk.period_ns:
            return self._refuse(f"no row is for this tick: off by {off_ns / _MS:g} ms", fault=True)
        self._wait(verdict, self._counts_from_ns(verdict, chunk.t0_ns))
        self._admission.accept(chunk, now_ns)
        return None

    def due(self, now_ns: int) -> bool:
        """Every control step takes a row."""
        return True

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
            self._opening = float(row[-1])
        return Tick(None, None, self.status(now_ns), row)

    def withdraw(self) -> None:
        """Nothing to take back: in lock-step every row is sent."""

    def status(self, now_ns: int) -> Status:
        """The state; what is commanded is the simulator's affair, so the joints in it are the measured ones."""
        return self._status(now_ns, now_ns + self._latency_ns, self._measured.state, self._opening)

    def _unfit(self, joints: FloatArray, now_ns: int) -> str:
        return ""

    def _anchor(self, joints: FloatArray, now_ns: int) -> None:
        self._ticked_ns, self._opening = 0, float("nan")

    def _row(self, now_ns: int) -> FloatArray | None:
        if newest := self._next(now_ns):
            self._run(newest)
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


def make_executor(config: ExecutorConfig) -> Executor:
    """The executor of an output."""
    return StepExecutor(config) if config.output == "step" else ChunkExecutor(config)
