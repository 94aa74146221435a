"""Row 26: a disk that takes less than cameras give. Memory stays bounded and every message is stored or counted."""

from __future__ import annotations

import io
import os
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from e0_ros.core.bag_reader import Bag, verify
from e0_ros.core.bag_writer import BagConfig
from e0_ros.core.definitions import installed
from e0_ros.core.recorder_config import StoreConfig
from e0_ros.core.recording import Received, Recording
from e0_ros.interfaces import JOINT_STATES, Qos, camera_topic
from tests.faults.scale import scaled

IMAGE_BYTES, OFFERED_HZ, JOINTS_EACH = 640 * 480 * 3, 90, 11
DISK_BYTES_S = 20e6
GROWTH_LIMIT = 200 * 2**20


class SlowFile(io.FileIO):
    """A file whose every write takes as long as on a disk of `DISK_BYTES_S`."""

    def write(self, data: Any) -> int:
        time.sleep(len(data) / DISK_BYTES_S)
        return super().write(data)


@pytest.fixture
def slow_disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    opened = Path.open

    def slowly(path: Path, mode: str = "r", *rest: Any, **named: Any) -> Any:
        if mode != "xb":
            return opened(path, mode, *rest, **named)
        return io.BufferedWriter(SlowFile(path, mode))

    monkeypatch.setattr(Path, "open", slowly)
    yield


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_a_slow_disk_bounds_memory_and_what_it_loses_is_counted(
    tmp_path: Path, slow_disk: None, record_property: Any
) -> None:
    recording = Recording(tmp_path, "slow", BagConfig(min_free_bytes=0), StoreConfig(images="raw"), installed())
    recording.start({}, {}, 1)
    before, growth, lost, kept = resident(), 0, Counter[str](), Counter[str]()
    noise = os.urandom(IMAGE_BYTES)
    began, seconds = time.monotonic(), scaled(4, 60)
    for number in range(seconds * OFFERED_HZ):
        time.sleep(max(0.0, began + number / OFFERED_HZ - time.monotonic()))
        for topic in (camera_topic("base"), *(JOINT_STATES,) * JOINTS_EACH):
            data = number.to_bytes(8) + noise[: 400 if topic is JOINT_STATES else None]
            stored = recording.put(Received(topic.name, topic.type, Qos(), data, 10**9 + number, 0))
            (kept if stored else lost)[topic.name] += 1
        growth = max(growth, resident() - before)
    summary = recording.close({})
    assert summary is not None
    verify(summary.path)
    found = Counter(message.topic for message in Bag(summary.path).messages())
    rate = sum(kept.values(), sum(lost.values())) / seconds
    figure = (
        f"{lost.total()} of {lost.total() + kept.total()} lost and counted, {growth / 2**20:+.0f} MiB, {rate:.0f} Hz"
    )
    record_property("figure", figure)
    assert found == kept, "what is not counted as lost is in the bag"
    assert lost.total() > 0 and growth < GROWTH_LIMIT, figure
