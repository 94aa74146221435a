"""The privileged open-loop expert as a source of chunks: what the experts node and the direct loop share."""

from __future__ import annotations

from typing import Protocol

from e0_policy.embodiment import Embodiment
from e0_policy.types import ActionChunk, NoChunk, Representation
from sim.demonstration import PERIOD_NS, Demonstration
from sim.playback import Playback, PlaybackConfig

SOURCE = "scripted"


class Planner(Protocol):
    """Solves a scene that it knows everything about."""

    def plan(self, task: str, seed: int) -> Demonstration:
        """Solve the scene of a task and seed; the same seed gives the same rows.

        Raises:
            ValueError: unknown task, seed out of range, or no motion found.

        """

    def close(self) -> None:
        """Free what it holds."""


def make_planner(simulator: str, arm: Embodiment) -> Planner:
    """The planner of a simulator's tasks, imported only now."""
    if simulator == "fr3_plant":
        from sim.plant_planner import PlantPlanner

        return PlantPlanner(arm)
    if simulator in ("vlabench", "robotwin"):
        raise ValueError(f"there is no expert for {simulator} here; source:=policy or external")
    if simulator == "libero":
        from sim.libero_expert import LiberoPlanner

        return LiberoPlanner()
    from sim.planning import ManiSkillPlanner

    return ManiSkillPlanner()


class ScriptedSource:
    """Plans at a reset, then answers observations with windows of the plan. It sees no image and corrects nothing.

    Args:
        session: identifier of this run, `[a-z0-9_-]{1,64}`.

    """

    def __init__(self, planner: Planner, config: PlaybackConfig, arm: Embodiment, session: str) -> None:
        self._planner, self._config, self._arm, self._session = planner, config, arm, session
        self._playback: Playback | None = None
        self._representation = Representation.JOINT_POSITION
        self._sequence = self._seed = 0

    @property
    def planned(self) -> bool:
        """Whether there is a plan to answer from."""
        return self._playback is not None

    def reset(self, task: str, seed: int) -> Demonstration:
        """Plan an episode; what was planned before is void, whatever happens.

        Raises:
            ValueError: unknown task, seed out of range, or no motion found.

        """
        self._playback, self._seed = None, seed
        plan = self._planner.plan(task, seed)
        self._playback, self._representation = Playback(plan.rows, PERIOD_NS, self._config), plan.representation
        return plan

    def answer(self, stamp_ns: int, refusal: str = "") -> ActionChunk | NoChunk:
        """The answer to the observation of that stamp: a window, or why there is none (`refusal` says so first)."""
        self._sequence += 1
        window = None if refusal or self._playback is None else self._playback.answer(stamp_ns)
        if window is None:
            reason = refusal or ("the chunk sent last is still good" if self._playback else "no plan; reset first")
            keep = not refusal and self._playback is not None
            return NoChunk(stamp_ns, reason, SOURCE, self._session, self._sequence, keep)
        return ActionChunk(
            window.rows,
            window.t0_ns,
            PERIOD_NS,
            SOURCE,
            self._session,
            self._sequence,
            representation=self._representation,
            embodiment=self._arm.name,
            joint_names=self._arm.joint_names if self._representation is Representation.JOINT_POSITION else (),
            in_reply_to_ns=stamp_ns,
            seed=self._seed,
        )

    def close(self) -> None:
        """Free the planner's environment."""
        self._planner.close()
