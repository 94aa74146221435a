"""What surrounds a policy in a run: which observation gets a plan, on which plan in force, and what is answered else.

The policy node and the direct loop of the simulator share it. Nothing here reads a clock.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import replace

from e0_policy.embodiment import Embodiment
from e0_policy.policy import Policy
from e0_policy.types import ActionChunk, NoChunk, Observation, Stale
from e0_ros.core.plan_keeper import InForce, PlanKeeper

ERROR = "error"
"""First word of the answer if the policy raised: the plan is missing because of a fault, not by the policy's choice."""

Answer = ActionChunk | NoChunk | str
"""A plan, word that the last one goes on, or the reason why there is none."""


def is_error(reason: str) -> bool:
    """Whether an answer's reason tells of a fault of the policy."""
    return reason.startswith(f"{ERROR}: ")


class PolicySession:
    """One run of a policy, over any number of episodes.

    Args:
        policy: what plans.
        source: `policy` or `replay`.
        session: identifier of this run, `[a-z0-9_-]{1,64}`.
        arm: embodiment that the rows must be for.
        lockstep: answer every observation, whatever its age.
        max_age_ns: live, an observation older than this gets no plan.
        steady_ns: a steady clock, to measure inference with.
        doubt_nats: uncertainty of a row at which the next plan is due, if that is sooner than the policy's horizon.

    Raises:
        ValueError: the policy's rows are for another embodiment, or its execution horizon is below 1.

    """

    def __init__(
        self,
        policy: Policy,
        source: str,
        session: str,
        arm: Embodiment,
        lockstep: bool,
        max_age_ns: int,
        steady_ns: Callable[[], int],
        doubt_nats: float = math.inf,
    ) -> None:
        if policy.embodiment != arm.name:
            raise ValueError(f"the policy's rows are for {policy.embodiment!r}; this node drives {arm.name!r}")
        self.policy = policy
        self._arm, self._lockstep, self._max_age_ns, self._steady_ns = arm, lockstep, max_age_ns, steady_ns
        self._observe = getattr(policy, "observe", None)
        self._prepare = getattr(policy, "prepare", None)
        self._keeper = PlanKeeper(source, session, arm, policy.execution_horizon, policy.checkpoint, doubt_nats)
        self.counts: Counter[str] = Counter()
        self.latency_ns = self.age_ns = 0
        self.error = ""

    def reset(self) -> None:
        """Begin an episode: nothing of the one before is left but the numbering."""
        self.policy.reset()
        self._keeper.reset()

    def due(self, stamp_ns: int) -> bool:
        """Whether an observation of this stamp would be planned from."""
        return self._keeper.due(stamp_ns)

    def looks(self, stamp_ns: int) -> bool:
        """Whether an observation of this stamp is looked at: when a plan is due, by policies that look back always."""
        return self._observe is not None or self.due(stamp_ns)

    def answer(self, observation: Observation | Stale, now_ns: int, in_force: Callable[[], InForce | None]) -> Answer:
        """Plan, or say why not. `in_force` gives the executor's word, and is asked only if a plan is due.

        A policy may raise anything: that is a reason that starts with `ERROR`.
        """
        try:
            answer = self._answer(observation, now_ns, in_force)
        except Exception as error:
            return self.failed(error)
        if not isinstance(answer, str):
            self.counts["kept" if isinstance(answer, NoChunk) else "plans"] += 1
        return answer

    def prepare(self) -> None:
        """Let the policy do ahead what it can for its next plan; for when the answer has been sent.

        What it raises is told as an error until the next plan.
        """
        if self._prepare is None:
            return
        try:
            self._prepare()
        except Exception as error:
            self.failed(error)

    def failed(self, error: Exception) -> str:
        """Note what a policy raised; the answer that tells it."""
        self.error = f"{type(error).__name__}: {error}"
        self.counts["errors"] += 1
        return f"{ERROR}: {self.error}"

    def none(self, stamp_ns: int, reason: str) -> NoChunk:
        """Word that there is no new plan in answer to the observation of this stamp."""
        self.counts["none"] += 1
        return self._keeper.none(stamp_ns, reason)

    def _answer(self, observation: Observation | Stale, now_ns: int, in_force: Callable[[], InForce | None]) -> Answer:
        stamp_ns = observation.stamp_ns
        if isinstance(observation, Stale):
            self.counts["stale"] += 1
            return f"stale observation: {observation.stream}: {observation.reason}"
        if observation.embodiment != self._arm.name:
            raise ValueError(f"observation is of {observation.embodiment!r}; this policy is for {self._arm.name!r}")
        if self._observe:
            self._observe(observation)
        if not self.due(stamp_ns):
            return self._keeper.none(stamp_ns, "the plan in force goes on", keep=True)
        self.age_ns = now_ns - stamp_ns
        if not self._lockstep and self.age_ns > self._max_age_ns:
            self.counts["too old"] += 1
            return f"observation too old: {self.age_ns / 1e6:.0f} ms when inference would start"
        word = in_force()
        plan = self._keeper.plan(word)
        if word and plan and not self._lockstep:  # when the answer is there, the executor will be committed ahead of it
            ahead_ns = max(word.committed_until_ns - word.stamp_ns, 0)
            plan = replace(plan, committed_until_ns=now_ns + self.latency_ns + ahead_ns)
        started_ns = self._steady_ns()
        output = self.policy.infer(observation, plan)
        self.latency_ns = self._steady_ns() - started_ns
        if output is not None:
            self.counts["committed rows not kept"] += output.rows_not_kept
        chunk = None if output is None else self._keeper.chunk(output, observation, self.latency_ns)
        self.error = ""
        return chunk or "nothing to plan"
