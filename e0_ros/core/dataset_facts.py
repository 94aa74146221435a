"""What is known of an episode once its bag is read: `episode.json` of its work folder."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from e0_policy.types import Representation


@dataclass
class Facts:
    """What is known of a bag. `left_out` is the reason why it is no episode; empty if it is one. `recovered_from` names
    the damaged bag that it is the whole part of; empty: none.

    `lost` messages are known to be lost, and are all if `lost_counted`. `flags` is the verdict of `grading`, None where
    nobody judges (bags of other recorders, imports); `gap_bounds_ms` are the longest times without a sample that it
    allows each stream. `step_names` are the columns of actions that are a benchmark's own rows; empty: actions are
    joint positions.
    """

    bag: str
    left_out: str = ""
    digest: str = ""
    episode_id: str = ""
    task: str = ""
    seed: int = 0
    instruction: str = ""
    instructions: list[str] = field(default_factory=list)
    outcome: str = ""
    embodiment: str = ""
    joint_names: list[str] = field(default_factory=list)
    views: list[str] = field(default_factory=list)
    height: int = 0
    width: int = 0
    fps: int = 0
    frames: int = 0
    start_ns: int = 0
    period_ns: int = 0
    at_observations: bool = False
    lockstep: bool = False
    sources: list[str] = field(default_factory=list)
    leading: int = 0
    held: int = 0
    intervened: int = 0
    lost: int = 0
    lost_counted: bool = True
    compared: int = 0
    different: int = 0
    salvaged: bool = False
    damage: list[str] = field(default_factory=list)
    recorded_by: str = ""
    recovered_from: str = ""
    flags: list[str] | None = None
    gap_bounds_ms: dict[str, float] = field(default_factory=dict)
    stats: dict[str, Any] = field(default_factory=dict)
    step_names: list[str] = field(default_factory=list)

    @property
    def representation(self) -> str:
        """Label of what action rows are."""
        return (Representation.EE_DELTA_STEP if self.step_names else Representation.JOINT_POSITION).label

    @property
    def action_names(self) -> list[str]:
        """Columns of action rows."""
        return self.step_names or [*self.joint_names, "gripper"]


def read_facts(work: Path) -> Facts | None:
    """The `episode.json` of a work folder; None if the folder is not whole."""
    try:
        return Facts(**json.loads((work / "episode.json").read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
