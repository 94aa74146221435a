"""A whole bag from what a crash left of one."""

from __future__ import annotations

from pathlib import Path

from e0_ros.core.bag_reader import Bag, BagReadError
from e0_ros.core.bag_writer import PARTIAL, BagError, BagSummary, BagWriter
from e0_ros.core.definitions import DefinitionError, Definitions
from e0_ros.core.recorder_config import BagConfig
from e0_ros.interfaces import TOPICS, Qos

QOS = {topic.name: topic.qos for topic in TOPICS}


def recover(path: Path, definitions: Definitions) -> BagSummary:
    """Copy what is whole of a partial or damaged bag to `<id>-recovered` beside it; the original stays.

    The copy is unlabelled, and its custom data names what was lost.

    Raises:
        BagReadError: nothing can be read, or the copy cannot be written.

    """
    bag = Bag(path, salvage=True)
    original = path.resolve().name
    name = original.removesuffix(".mcap").removesuffix(PARTIAL)
    try:
        writer = BagWriter(path.resolve().parent, f"{name[:54]}-recovered", BagConfig(), definitions)
    except BagError as error:
        raise BagReadError(f"{path}: cannot be recovered: {error}") from None
    try:
        writer.metadata(bag.custom)
        for m in bag.messages():
            qos = QOS.get(m.topic, Qos())
            writer.write(m.topic, m.type, qos, m.data, m.log_ns, m.publish_ns, m.sequence)
        damage = "; ".join(bag.damage) or "none"
        return writer.close({**bag.custom, "outcome": "unlabelled", "recovered_from": original, "damage": damage})
    except (OSError, BagError, DefinitionError) as error:
        writer.abandon()
        raise BagReadError(f"{path}: cannot be recovered: {error}") from None
