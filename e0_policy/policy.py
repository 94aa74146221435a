"""The policy protocol: what the policy node, the evaluator and the tests know of a policy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from e0_policy.types import FloatArray, Observation, Representation


@dataclass(frozen=True)
class Plan:
    """The plan in force, as far as it will be executed whatever the policy answers.

    `rows[i]` is in force from `t0_ns + i * period_ns`; those up to `committed_until_ns` cannot be changed any more.
    """

    rows: FloatArray
    t0_ns: int
    period_ns: int
    committed_until_ns: int


@dataclass(frozen=True)
class PolicyOutput:
    """A policy's answer. `rows` `(rows, columns)` are absolute, unless they are a benchmark's own; row 0 is in force
    from the observation's stamp.

    `uncertainty` is `(rows,)`, entropy in nats averaged over columns. `rows_not_kept`: committed rows of the plan in
    force that the answer may differ from, because the policy was not trained to keep so many.
    """

    rows: FloatArray
    period_ns: int
    representation: Representation = Representation.JOINT_POSITION
    uncertainty: NDArray[np.float32] | None = None
    seed: int = 0
    rows_not_kept: int = 0


class Policy(Protocol):
    """Turns observations into plans. Used from one thread.

    A policy that looks back has `observe`, which takes every observation, before `infer` if a plan is due. One that can
    do something for its next plan ahead has `prepare`, which is called when an answer has been sent, and changes none.
    """

    @property
    def embodiment(self) -> str:
        """Embodiment that its rows are meant for."""

    @property
    def checkpoint(self) -> str:
        """Identifier of what it runs, for the records; empty if it has none."""

    @property
    def execution_horizon(self) -> int:
        """Rows meant to run before the next plan; the node asks for a new one that often."""

    def reset(self) -> None:
        """Forget everything of the episode before."""

    def infer(self, observation: Observation, plan: Plan | None) -> PolicyOutput | None:
        """Plan from an observation; None if there is nothing to plan (a replay at its end).

        Raises:
            ValueError: the observation does not fit (missing view, wrong size, other embodiment).

        """
