"""Is a bag whole, and if not, what is lost?"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import yaml

from e0_ros.core.bag_reader import Bag, BagReadError, verify

WHOLE, PARTIAL, DAMAGED = "whole", "partial", "damaged"
"""A partial bag's recording did not finish, so nobody counted what it held; a damaged one has its counts."""


@dataclass(frozen=True)
class Lost:
    """Messages of a topic: how many can be read, and how many `metadata.yaml` counts (None: nobody counted)."""

    topic: str
    kept: int
    counted: int | None

    @property
    def missing(self) -> int | None:
        """How many cannot be read."""
        return None if self.counted is None else max(self.counted - self.kept, 0)


@dataclass(frozen=True)
class BagState:
    """What a check found. `damage` is empty for a whole bag; `topics` are in the order of their names."""

    path: Path
    state: str
    topics: tuple[Lost, ...]
    damage: tuple[str, ...] = ()

    @property
    def kept(self) -> int:
        """Messages that can be read."""
        return sum(topic.kept for topic in self.topics)

    @property
    def missing(self) -> int | None:
        """Messages that cannot; None if nobody counted them."""
        known = [topic.missing for topic in self.topics if topic.missing is not None]
        return sum(known) if known and len(known) == len(self.topics) else None


def check_bag(path: Path) -> BagState:
    """Read every byte of a bag, and count its messages against its own metadata.

    Raises:
        BagReadError: there is no bag, or nothing in it can be read.

    """
    try:
        verify(path)
        problem, bag = "", Bag(path)
    except BagReadError as error:
        problem, bag = str(error), Bag(path, salvage=True)
    kept = Counter(message.topic for message in bag.messages())
    counted = _counted(path)
    names = sorted(set(kept) | set(bag.topics) | set(counted or {}))
    topics = tuple(Lost(name, kept[name], None if counted is None else counted.get(name, 0)) for name in names)
    if not problem and any(topic.counted not in (None, topic.kept) for topic in topics):
        problem = "its messages are not those that metadata.yaml counts"
    if not problem:
        return BagState(path, WHOLE, topics)
    return BagState(path, PARTIAL if counted is None else DAMAGED, topics, tuple(bag.damage) or (problem,))


def _counted(path: Path) -> dict[str, int] | None:
    """Messages by topic, as `metadata.yaml` counts them; None without a readable one."""
    folder = path if path.is_dir() else path.parent
    try:
        text = (folder / "metadata.yaml").read_text(encoding="utf-8")
        topics = yaml.safe_load(text)["rosbag2_bagfile_information"]["topics_with_message_count"]
        return {str(topic["topic_metadata"]["name"]): int(topic["message_count"]) for topic in topics}
    except (OSError, UnicodeDecodeError, yaml.YAMLError, KeyError, TypeError, ValueError):
        return None
