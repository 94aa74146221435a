"""Settings of the recorder. Apart from what writes bags, so that a graph is checked where only its nodes have that."""

from __future__ import annotations

from dataclasses import dataclass

from e0_ros.config import ConfigError, check, setting
from e0_ros.interfaces import (
    CLOCK,
    EPISODE_EVENT,
    RECORDER_STATE,
    TOPICS,
    Qos,
    Topic,
    camera_info_topic,
    camera_topic,
)

COMPRESSIONS = ("none", "lz4", "zstd")


@dataclass(frozen=True)
class RecorderConfig:
    """What is recorded, and where."""

    record: bool = setting(True, "write bags; if off, episodes still start and end here")
    bag_dir: str = setting("bags", "folder of the bags")
    views: tuple[str, ...] = setting(("base", "wrist"), "camera views to record")
    extra_topics: tuple[str, ...] = setting((), "more topics, each as 'name package/msg/Type'")
    configuration: str = setting("", "file with the graph's resolved configuration, attached to every bag")
    quiet_s: float = setting(0.1, "an episode ends once nothing has arrived for so long", unit="s", low=0.0, high=5.0)
    settle_s: float = setting(0.5, "longest wait for that, and for publishers at a start", unit="s", low=0.0, high=30.0)
    discovery_s: float = setting(
        10.0, "simulated time: longest wait for clock and instruction at a start", unit="s", low=0.0, high=60.0
    )
    silent_s: float = setting(
        0.5,
        "real time: a topic that stops for longer during an episode is reported; 0: never",
        unit="s",
        low=0,
        high=60,
    )

    def __post_init__(self) -> None:
        check(self)
        for text in self.extra_topics:
            if len(text.split()) != 2 or text.split()[1].count("/") != 2:
                raise ConfigError(f"extra_topics has {text!r}; '/name package/msg/Type' is needed")

    def topics(self) -> tuple[Topic, ...]:
        """Every topic to subscribe to, the clock last; the recorder's own it writes itself.

        A participant learns of another's endpoints in the order in which they were made: a simulator whose clock is
        heard has found the other subscriptions too.
        """
        graph = [topic for topic in TOPICS if topic not in (EPISODE_EVENT, RECORDER_STATE, CLOCK)]
        extra = (Topic(name, kind, Qos(), "", "") for name, kind in map(str.split, self.extra_topics))
        return (*graph, *map(camera_topic, self.views), *map(camera_info_topic, self.views), *extra, CLOCK)


@dataclass(frozen=True)
class StoreConfig:
    """What is changed before it is stored, and how much may wait."""

    images: str = setting("jpeg", "how camera images are stored", choices=("jpeg", "png", "raw"))
    jpeg_quality: int = setting(95, "quality of jpeg images", low=1, high=100)
    observation_images: bool = setting(False, "keep the pixels of /e0/observation; the cameras' are kept anyway")
    queue_bytes: int = setting(2**27, "memory for messages that wait to be written", unit="bytes", low=2**20)
    encoders: int = setting(2, "threads that compress images", low=1, high=16)

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True)
class BagConfig:
    """How bags are stored."""

    compression: str = setting("zstd", "compression of chunks", choices=COMPRESSIONS)
    chunk_bytes: int = setting(65536, "uncompressed size of a chunk, the most a crash costs", low=1024, high=2**26)
    min_free_bytes: int = setting(2**30, "recording stops below this free space", unit="bytes", low=0)
    fsync_s: float = setting(2.0, "recorded time between forced writes to disk; 0: only at the end", unit="s", low=0.0)

    def __post_init__(self) -> None:
        check(self)
