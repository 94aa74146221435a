"""What plans in an evaluation without topics: the scripted expert, or a policy with what its node does around it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from e0_policy.embodiment import Embodiment
from e0_policy.policy import Policy
from e0_policy.types import ActionChunk, FloatArray, NoChunk, Observation, Stale
from e0_ros.core.plan_keeper import InForce
from e0_ros.core.policy_session import PolicySession
from sim.playback import PlaybackConfig
from sim.scripted import ScriptedSource, Seen, make_planner, rows_of

_SESSION = "direct"


class Source(Protocol):
    """Answers every observation of an episode, as a node does over topics."""

    def reset(self, task: str, seed: int) -> None:
        """Begin an episode.

        Raises:
            ValueError: unknown task, or nothing can be planned for it.

        """

    def looks(self, stamp_ns: int) -> bool:
        """Whether it will look at the pictures of an observation of this stamp; if not, none need be made."""

    def answer(self, observation: Observation | Stale, in_force: InForce | None) -> ActionChunk | NoChunk:
        """The answer to an observation, and `in_force` is the executor's word of the tick before."""

    def close(self) -> None:
        """Free what it holds."""


class ExpertSource:
    """The privileged expert of a simulator's tasks.

    Args:
        simulator: whose tasks.
        arm: that does them.
        poses: tells the privileged poses of the present scene.
        control: what its rows are, by name of `CONTROLS`.

    """

    def __init__(
        self,
        simulator: str,
        arm: Embodiment,
        poses: Callable[[], Mapping[str, FloatArray]] = dict,
        control: str = "joint_position",
    ) -> None:
        self._poses = poses
        planner, rows = make_planner(simulator, arm), rows_of(simulator, control)
        self._scripted = ScriptedSource(planner, PlaybackConfig(), arm, _SESSION, rows)

    def reset(self, task: str, seed: int) -> None:
        """Begin an episode."""
        self._scripted.reset(task, seed)

    def looks(self, stamp_ns: int) -> bool:
        """It sees nothing."""
        return False

    def answer(self, observation: Observation | Stale, in_force: InForce | None) -> ActionChunk | NoChunk:
        """A window of the plan, which goes on from what is seen when a motion is over."""
        stamp_ns = observation.stamp_ns
        if isinstance(observation, Stale):
            return self._scripted.answer(stamp_ns, None, "the observation is stale")
        due = self._scripted.due(stamp_ns)
        seen = Seen(observation.joint_positions, observation.gripper_opening, self._poses()) if due else None
        return self._scripted.answer(stamp_ns, seen)

    def close(self) -> None:
        """Nothing to free."""


@dataclass(frozen=True)
class Disguise:
    """What a control changes of every observation: black pictures, another instruction (empty: the task's own)."""

    blank: bool = False
    instruction: str = ""

    def __call__(self, observation: Observation) -> Observation:
        """The observation as the policy gets it."""
        if self.blank:
            black = {name: np.zeros_like(image) for name, image in observation.views.items()}
            observation = replace(observation, views=black)
        return replace(observation, instruction=self.instruction) if self.instruction else observation


class PolicySource:
    """A policy in lock-step, with the same `PolicySession` as its node.

    Args:
        policy: what plans.
        arm: that it moves.
        doubt_nats: the next plan is due at the first row whose entropy is above this.

    Attributes:
        disguise: what to change of the observations.
        latencies_ms: time that inference took, per plan since the reset.
        fault: the first exception of the policy since the reset; empty: none.

    """

    def __init__(self, policy: Policy, arm: Embodiment, doubt_nats: float = math.inf) -> None:
        self._session = PolicySession(policy, "policy", _SESSION, arm, True, 0, time.perf_counter_ns, doubt_nats)
        self.disguise = Disguise()
        self.latencies_ms: list[float] = []
        self.fault = ""

    def reset(self, task: str, seed: int) -> None:
        """Begin an episode; a policy knows neither task nor seed."""
        self._session.reset()
        self.latencies_ms, self.fault = [], ""

    def looks(self, stamp_ns: int) -> bool:
        """Whether a plan is due, or the policy looks back."""
        return self._session.looks(stamp_ns)

    def answer(self, observation: Observation | Stale, in_force: InForce | None) -> ActionChunk | NoChunk:
        """A plan, or word why there is none."""
        stamp_ns = observation.stamp_ns
        seen = self.disguise(observation) if isinstance(observation, Observation) else observation
        answer = self._session.answer(seen, stamp_ns, lambda: in_force)
        if isinstance(answer, ActionChunk):
            self.latencies_ms.append(answer.latency_ns / 1e6)
            return answer
        self.fault = self.fault or self._session.error
        return answer if isinstance(answer, NoChunk) else self._session.none(stamp_ns, answer)

    def close(self) -> None:
        """Nothing to free."""
