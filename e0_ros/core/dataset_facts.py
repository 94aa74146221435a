"""What is known of an episode once its bag is read: `episode.json` of its work folder."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass
class Facts:
    """What `episode.json` says. `left_out` is the reason why the bag is no episode; empty if it is one."""

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
    compared: int = 0
    different: int = 0
    salvaged: bool = False
    damage: list[str] = field(default_factory=list)
    recorded_by: str = ""
    stats: dict[str, Any] = field(default_factory=dict)


def read_facts(work: Path) -> Facts:
    """The `episode.json` of a work folder."""
    return Facts(**json.loads((work / "episode.json").read_text(encoding="utf-8")))
