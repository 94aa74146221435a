"""What a policy's run remembers between observations: when the next plan is due, and which plan is in force."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from e0_policy.embodiment import Embodiment
from e0_policy.policy import Plan, PolicyOutput
from e0_policy.types import ActionChunk, NoChunk, Observation, Representation

REMEMBERED_CHUNKS = 16


@dataclass(frozen=True)
class InForce:
    """The executor's word on the plan it follows, from e0_msgs/ExecutorState."""

    stamp_ns: int
    source: str
    session: str
    sequence: int
    committed_until_ns: int
    t0_ns: int


class PlanKeeper:
    """Numbers the answers of one session and keeps the chunks that the executor may still follow.

    Args:
        source: `policy` or `replay`.
        session: identifier of this run, `[a-z0-9_-]{1,64}`.
        embodiment: whose rows these are.
        execution_horizon: rows of a plan that run before the next plan is due.
        checkpoint: for the records.
        doubt_nats: the next plan is due sooner, at the first row whose uncertainty is above this.

    """

    def __init__(
        self,
        source: str,
        session: str,
        embodiment: Embodiment,
        execution_horizon: int,
        checkpoint: str = "",
        doubt_nats: float = math.inf,
    ) -> None:
        if execution_horizon < 1:
            raise ValueError(f"the policy's execution_horizon is {execution_horizon}; at least 1 is needed")
        self._source, self._session, self._embodiment = source, session, embodiment
        self._horizon, self._checkpoint, self._doubt_nats = execution_horizon, checkpoint, doubt_nats
        self._sequence = 0
        self._chunks: list[ActionChunk] = []

    def reset(self) -> None:
        """Forget the plans; numbering goes on, so that the executor sees no old number again."""
        self._chunks.clear()

    def due(self, stamp_ns: int) -> bool:
        """Whether an observation of this stamp asks for a new plan."""
        if not self._chunks:
            return True
        last = self._chunks[-1]
        return stamp_ns < last.t0_ns or stamp_ns >= last.t0_ns + self.rows_meant(last) * last.period_ns

    def rows_meant(self, chunk: ActionChunk) -> int:
        """Rows of a chunk that run before the next plan is due, at least one: up to the first that is in doubt."""
        horizon = min(self._horizon, len(chunk.rows))
        if chunk.uncertainty is None:
            return horizon
        doubted = np.flatnonzero(chunk.uncertainty[:horizon] > self._doubt_nats)
        return max(int(doubted[0]), 1) if len(doubted) else horizon

    def plan(self, in_force: InForce | None) -> Plan | None:
        """The plan that the executor follows, if it is of this session since the last reset, and at its own time."""
        if in_force is None or (in_force.source, in_force.session) != (self._source, self._session):
            return None
        for chunk in self._chunks:
            if (chunk.sequence, chunk.t0_ns) == (in_force.sequence, in_force.t0_ns):
                return Plan(chunk.rows, chunk.t0_ns, chunk.period_ns, in_force.committed_until_ns)
        return None

    def chunk(self, output: PolicyOutput, observation: Observation, latency_ns: int) -> ActionChunk:
        """The next chunk of the session.

        Raises:
            ValueError: the rows do not fit the embodiment or the array contract.

        """
        columns, joints = self._embodiment.columns, output.representation == Representation.JOINT_POSITION
        if joints and output.rows.ndim == 2 and output.rows.shape[1] != columns:
            raise ValueError(
                f"the policy's rows have {output.rows.shape[1]} columns; {self._embodiment.name} takes {columns}"
            )
        chunk = ActionChunk(
            rows=output.rows,
            t0_ns=observation.stamp_ns,
            period_ns=output.period_ns,
            source=self._source,
            session=self._session,
            sequence=self._sequence + 1,
            representation=output.representation,
            embodiment=self._embodiment.name,
            joint_names=self._embodiment.joint_names if joints else (),
            in_reply_to_ns=observation.stamp_ns,
            uncertainty=output.uncertainty,
            latency_ns=latency_ns,
            seed=output.seed,
            checkpoint=self._checkpoint,
        )
        self._sequence += 1
        self._chunks = [*self._chunks[1 - REMEMBERED_CHUNKS :], chunk]
        return chunk

    def none(self, stamp_ns: int, reason: str, keep: bool = False) -> NoChunk:
        """Word that there is no new plan in answer to the observation of this stamp; `keep`: the last one goes on."""
        self._sequence += 1
        return NoChunk(stamp_ns, reason, self._source, self._session, self._sequence, keep)
