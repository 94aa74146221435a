"""The life of an episode: when it starts, when it ends, what it is called."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timezone
from enum import IntEnum

from e0_ros.config import closest

OUTCOMES = ("success", "failure", "discard", "unlabelled")
_ID = re.compile(r"[a-z0-9_-]{1,64}")


class Mode(IntEnum):
    """What the recorder is doing; the values are those of `e0_msgs/RecorderState`."""

    IDLE = 0
    RECORDING = 1
    FAULT = 2


@dataclass(frozen=True)
class Episode:
    """A running episode. `start_ns` is ROS time."""

    id: str
    start_ns: int
    task: str = ""
    seed: int = 0
    instruction: str = ""


@dataclass(frozen=True)
class Ended:
    """An episode that is over, with its label."""

    episode: Episode
    end_ns: int
    outcome: str
    note: str = ""

    @property
    def duration_s(self) -> float:
        """Time from start to end."""
        return (self.end_ns - self.episode.start_ns) / 1e9


@dataclass(frozen=True)
class Refused:
    """A request that was not followed, and why."""

    reason: str


class EpisodeLife:
    """State machine: IDLE -> RECORDING -> IDLE, or FAULT until the next start.

    A fault ends the recording, not the episode: the arm goes on and `end` is still due.
    """

    def __init__(self) -> None:
        self.episode: Episode | None = None
        self.mode = Mode.IDLE
        self.reason = ""

    def check_start(self, episode_id: str, wall_ns: int, taken: Callable[[str], bool]) -> str | Refused:
        """Identifier for a new episode; an empty one is made from the wall clock. `taken` knows those in use."""
        if self.episode is not None:
            return Refused(f"episode {self.episode.id} is running; end it first")
        if not episode_id:
            return _free_id(wall_ns, taken)
        if not _ID.fullmatch(episode_id):
            return Refused(f"episode id is {episode_id[:80]!r}; allowed are 1 to 64 of a-z, 0-9, _ and -")
        if taken(episode_id):
            return Refused(f"there is an episode {episode_id} already; choose another id or leave it empty")
        return episode_id

    def start(self, episode: Episode) -> None:
        """The episode runs."""
        self.episode, self.mode, self.reason = episode, Mode.RECORDING, ""

    def fault(self, reason: str) -> None:
        """Recording stopped early because of `reason`."""
        self.mode, self.reason = Mode.FAULT, reason

    def check_end(self, outcome: str) -> Refused | None:
        """Why the episode cannot end with this outcome, or None if it can."""
        if self.episode is None:
            return Refused("no episode is running; start one first")
        if outcome not in OUTCOMES:
            return Refused(f"outcome is {outcome[:80]!r}{closest(outcome, OUTCOMES)}")
        return None

    def end(self, outcome: str, note: str, now_ns: int) -> Ended | Refused:
        """End the running episode with one of `OUTCOMES`."""
        if (refused := self.check_end(outcome)) is not None or self.episode is None:
            return refused or Refused("no episode is running")
        ended = Ended(self.episode, max(now_ns, self.episode.start_ns), outcome, note)
        self.episode = None
        if self.mode is Mode.RECORDING:
            self.mode = Mode.IDLE
        return ended


def is_episode_id(text: str) -> bool:
    """Whether `text` may become the name of a bag."""
    return _ID.fullmatch(text) is not None


def _free_id(wall_ns: int, taken: Callable[[str], bool]) -> str:
    stem = datetime.fromtimestamp(wall_ns // 10**9, tz=timezone.utc).strftime("%Y%m%d-%H%M%S")
    number, name = 1, stem
    while taken(name):
        number += 1
        name = f"{stem}-{number}"
    return name
