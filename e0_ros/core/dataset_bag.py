"""What a bag says of its episode: label, task, arm, cameras, and how the live graph paired its streams."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from e0_policy.files import sha256
from e0_ros.core.bag_reader import Bag, BagReadError, mcap_files
from e0_ros.core.losses import read_losses
from e0_ros.core.pairing import SyncConfig
from e0_ros.core.step_rows import STEP_NAMES
from e0_ros.core.take import attached_graph, stream_config
from e0_ros.interfaces import CLOCK, camera_topic, compressed_camera_topic

MAX_TEXT = 512
_CAMERA = re.compile(r"/cameras/([a-zA-Z][a-zA-Z0-9_]{0,63})/color/image_raw(/compressed)?")


@dataclass(frozen=True)
class BagInfo:
    """An episode's label and how it was observed; `sync` holds the live graph's bounds and views, reference first.

    `lost` messages are known to be lost; more may be unless they are `lost_counted` (`losses.read_losses`).
    `step_names` are the columns of the rows that moved a stepped simulator; empty: set-points moved an arm.
    """

    episode_id: str
    task: str
    seed: int
    instruction: str
    outcome: str
    lost: int
    lost_counted: bool
    code_version: str
    embodiment: str
    lockstep: bool
    image_height: int
    image_width: int
    sync: SyncConfig
    step_names: tuple[str, ...] = ()
    recovered_from: str = ""

    @property
    def views(self) -> tuple[str, ...]:
        """Camera views, the reference view first."""
        return self.sync.views


def describe_bag(bag: Bag) -> BagInfo:
    """Read the label and the configuration that the recorder put into a bag.

    A bag of another recorder has neither: it counts as unlabelled, with the views that it holds, and as lock-step if
    it holds a clock.
    """
    sync, node = stream_config(bag), _node_settings(bag)
    if not node:
        sync = replace(sync, lockstep=CLOCK.name in bag.topics)
    custom = bag.custom
    lost, counted = read_losses(custom.get("lost", ""))
    return BagInfo(
        episode_id=custom.get("episode_id", bag.path.stem)[:MAX_TEXT],
        task=custom.get("task", "")[:MAX_TEXT],
        seed=_integer(custom.get("seed", "")),
        instruction=custom.get("instruction", "")[:MAX_TEXT],
        outcome=custom.get("outcome", "unlabelled"),
        lost=lost,
        lost_counted=counted,
        code_version=custom.get("code_version", "")[:MAX_TEXT],
        embodiment=str(node.get("embodiment", "")),
        lockstep=sync.lockstep,
        image_height=_size(node, "image_height"),
        image_width=_size(node, "image_width"),
        sync=sync,
        step_names=_step_names(bag),
        recovered_from=custom.get("recovered_from", "")[:MAX_TEXT],
    )


def bag_digest(path: Path) -> str:
    """SHA-256 of a bag's file; of a split bag's that of its files' digests. Empty if there is no file."""
    digests = [sha256(file) for file in ([path] if path.is_file() else mcap_files(path))]
    if len(digests) < 2:
        return "".join(digests)
    return hashlib.sha256("".join(digests).encode()).hexdigest()


def view_topics(bag: Bag, view: str) -> str:
    """The topic that holds a view's images, compressed or raw.

    Raises:
        BagReadError: the bag has no image of that view.

    """
    for topic in (compressed_camera_topic(view), camera_topic(view)):
        if bag.topics.get(topic.name) == topic.type:
            return topic.name
    held = ", ".join(_cameras(bag)) or "none"
    raise BagReadError(f"{bag.path}: no image of view {view!r}; it holds {held}")


def _node_settings(bag: Bag, name: str = "observation_sync") -> dict[str, Any]:
    """Settings of a node in the graph that was recorded."""
    settings = attached_graph(bag).get("settings")
    node = settings.get(name) if isinstance(settings, dict) else None
    return node if isinstance(node, dict) else {}


def _step_names(bag: Bag) -> tuple[str, ...]:
    """By the simulator of the graph that was recorded."""
    bridge = _node_settings(bag, "bridge")
    return STEP_NAMES.get(str(bridge.get("simulator")), ())


def _cameras(bag: Bag) -> tuple[str, ...]:
    found = (_CAMERA.fullmatch(topic) for topic in bag.topics)
    return tuple(sorted({match.group(1) for match in found if match}))


def _size(node: dict[str, Any], key: str) -> int:
    value = node.get(key, 224)
    return value if isinstance(value, int) and 1 <= value <= 4096 else 224


def _integer(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else 0
