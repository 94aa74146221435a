"""What a bag says of its episode: label, task, arm, cameras, and how the live graph paired its streams."""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from typing import Any

import yaml

from e0_ros.config import ConfigError, from_mapping
from e0_ros.core.bag_reader import Bag, BagReadError
from e0_ros.core.pairing import SyncConfig
from e0_ros.interfaces import CLOCK, camera_topic, compressed_camera_topic

MAX_TEXT = 512
_CAMERA = re.compile(r"/cameras/([a-zA-Z][a-zA-Z0-9_]{0,63})/color/image_raw(/compressed)?")


@dataclass(frozen=True)
class BagInfo:
    """An episode's label and how it was observed; `sync` holds the live graph's bounds and views, reference first."""

    episode_id: str
    task: str
    seed: int
    instruction: str
    outcome: str
    lost: int
    code_version: str
    embodiment: str
    lockstep: bool
    image_height: int
    image_width: int
    sync: SyncConfig

    @property
    def views(self) -> tuple[str, ...]:
        """Camera views, the reference view first."""
        return self.sync.views


def describe_bag(bag: Bag) -> BagInfo:
    """Read the label and the configuration that the recorder put into a bag.

    A bag of another recorder has neither: it counts as unlabelled, with the views that it holds, in real time.

    Raises:
        BagReadError: no camera, or a configuration that contradicts itself.

    """
    node = _node_settings(bag)
    lockstep = bool(node.get("lockstep", CLOCK.name in bag.topics))
    views = _views(bag, node)
    known = {f.name for f in fields(SyncConfig)}
    values = {k: v for k, v in node.items() if k in known} | {"views": list(views), "lockstep": lockstep}
    try:
        sync = from_mapping(SyncConfig, values, f"{bag.path}: observation_sync")
    except ConfigError as error:
        raise BagReadError(str(error)) from None
    custom = bag.custom
    return BagInfo(
        episode_id=custom.get("episode_id", bag.path.stem)[:MAX_TEXT],
        task=custom.get("task", "")[:MAX_TEXT],
        seed=_integer(custom.get("seed", "")),
        instruction=custom.get("instruction", "")[:MAX_TEXT],
        outcome=custom.get("outcome", "unlabelled"),
        lost=_integer(custom.get("lost", "")),
        code_version=custom.get("code_version", "")[:MAX_TEXT],
        embodiment=str(node.get("embodiment", "")),
        lockstep=lockstep,
        image_height=_size(node, "image_height"),
        image_width=_size(node, "image_width"),
        sync=sync,
    )


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


def _node_settings(bag: Bag) -> dict[str, Any]:
    """Settings of observation_sync in the graph that was recorded."""
    try:
        graph = yaml.safe_load(bag.attachments.get("configuration.yaml", "")) or {}
        node = graph.get("settings", {}).get("observation_sync", {})
    except (yaml.YAMLError, AttributeError) as error:
        raise BagReadError(f"{bag.path}: its configuration.yaml cannot be read: {error}") from None
    return node if isinstance(node, dict) else {}


def _views(bag: Bag, node: dict[str, Any]) -> tuple[str, ...]:
    held = _cameras(bag)
    wanted = [v for v in node.get("views", []) if v in held] if isinstance(node.get("views", []), list) else []
    if not held:
        raise BagReadError(f"{bag.path}: no camera image; topics /cameras/<view>/color/image_raw are needed")
    return tuple(wanted) or held


def _cameras(bag: Bag) -> tuple[str, ...]:
    found = (_CAMERA.fullmatch(topic) for topic in bag.topics)
    return tuple(sorted({match.group(1) for match in found if match}))


def _size(node: dict[str, Any], key: str) -> int:
    value = node.get(key, 224)
    return value if isinstance(value, int) and 1 <= value <= 4096 else 224


def _integer(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else 0
