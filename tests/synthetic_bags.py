"""Synthetic bags for tests."""

from pathlib import Path

import numpy as np

from e0_ros.core.bag_writer import BagWriter
from e0_ros.core.definitions import installed
from e0_ros.core.recorder_config import BagConfig
from e0_ros.interfaces import CLOCK, JOINT_STATES

MS = 1_000_000


def joint_state(stamp_ns: int, positions: list[float], names: tuple[str, ...] = ()) -> bytes:
    make = installed().new
    stamp = make("builtin_interfaces/msg/Time", sec=stamp_ns // 10**9, nanosec=stamp_ns % 10**9)
    header = make("std_msgs/msg/Header", stamp=stamp, frame_id="")
    values, none = np.array(positions), np.empty(0)
    message = make(
        "sensor_msgs/msg/JointState", header=header, name=list(names), position=values, velocity=none, effort=none
    )
    return installed().encode(message)


def clock(stamp_ns: int) -> bytes:
    make = installed().new
    stamp = make("builtin_interfaces/msg/Time", sec=stamp_ns // 10**9, nanosec=stamp_ns % 10**9)
    return installed().encode(make("rosgraph_msgs/msg/Clock", clock=stamp))


def open_bag(root: Path, name: str = "a", **settings: object) -> BagWriter:
    config = BagConfig(**{"chunk_bytes": 1024, "min_free_bytes": 0, "compression": "none", **settings})
    writer = BagWriter(root, name, config, installed())
    writer.metadata({"episode_id": name})
    return writer


def fill(writer: BagWriter, count: int = 300, start: int = 0) -> None:
    """Joint states 1 ms apart from 1 s on, with a clock at every tenth."""
    for i in range(start, start + count):
        log_ns = 10**9 + i * MS
        data = joint_state(log_ns, [float(i)] * 7)
        writer.write(JOINT_STATES.name, JOINT_STATES.type, JOINT_STATES.qos, data, log_ns, log_ns - 5, i)
        if i % 10 == 0:
            writer.write(CLOCK.name, CLOCK.type, CLOCK.qos, clock(log_ns), log_ns, log_ns, i)


def make_bag(root: Path, name: str = "a", count: int = 300, **settings: object) -> Path:
    writer = open_bag(root, name, **settings)
    fill(writer, count)
    return writer.close({"outcome": "success", "seed": "3"}).path
