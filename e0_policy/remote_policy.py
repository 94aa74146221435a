"""A policy in another process, behind the `Policy` protocol: an openpi server, or LeRobot in its own interpreter."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from e0_policy.embodiment import Embodiment
from e0_policy.foreign_features import Features
from e0_policy.policy import Plan, PolicyOutput
from e0_policy.policy_connection import PolicyConnection
from e0_policy.types import Observation

SEED = "e0/seed"
REMEMBERED = 64
"""Observations kept for policies that look back."""


class RemotePolicy:
    """Asks a policy server for every plan.

    Args:
        connection: to the server.
        features: how its observations and rows are named and meant.
        arm: the arm to drive.
        checkpoint: what it runs, for the records.
        seed: of the noise, for servers that take one: an episode's noise depends on it and on the number of plans
            since the reset. None: it is not told.
        close: ends the server, if it is ours.

    Attributes:
        observe: remembers an observation for the plans to come; None if the policy looks at the present one alone.

    """

    observe: Callable[[Observation], None] | None

    def __init__(
        self,
        connection: PolicyConnection,
        features: Features,
        arm: Embodiment,
        checkpoint: str,
        seed: int | None = None,
        close: Callable[[], None] | None = None,
    ) -> None:
        self._connection, self._features, self._arm = connection, features, arm
        self._checkpoint, self._seed, self._close = checkpoint, seed, close
        self._plans = 0
        self._seen: deque[Observation] = deque(maxlen=REMEMBERED)
        self.observe = self._seen.append if features.observations > 1 else None

    @property
    def embodiment(self) -> str:
        """Embodiment that its rows are meant for."""
        return self._features.embodiment or self._arm.name

    @property
    def checkpoint(self) -> str:
        """What it runs."""
        return self._checkpoint

    @property
    def execution_horizon(self) -> int:
        """Rows meant to run before the next plan."""
        return self._features.execution_horizon

    def reset(self) -> None:
        """Begin an episode."""
        self._plans = 0
        self._seen.clear()

    def infer(self, observation: Observation, plan: Plan | None) -> PolicyOutput:
        """Plan from an observation; the plan in force is not told.

        Raises:
            ValueError: the observation or the answer does not fit.
            PolicyServerError: no answer.

        """
        request: dict[str, Any] = self._features.request(self._history(observation))
        seed = 0
        if self._seed is not None:
            request[SEED] = seed = self._seed + self._plans
        self._plans += 1
        output = self._features.output(self._connection.ask(request), observation, self._arm)
        return PolicyOutput(output.rows, output.period_ns, output.representation, seed=seed)

    def close(self) -> None:
        """End the connection, and the server if it is ours."""
        self._connection.close()
        if self._close:
            self._close()

    def _history(self, present: Observation) -> list[Observation]:
        """The observations nearest to the grid of periods before the present one, which comes last; the first of an
        episode stands for those before it.
        """
        seen = [o for o in self._seen if o.stamp_ns < present.stamp_ns] + [present]
        period_ns, count = self._features.period_ns, self._features.observations
        times = [present.stamp_ns - back * period_ns for back in range(count - 1, -1, -1)]
        return [min(seen, key=lambda o: abs(o.stamp_ns - time_ns)) for time_ns in times]
