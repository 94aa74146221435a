"""Pairing against ros2/message_filters' own, on vectors that tests/vectors/approximate_time_pairs.py makes with it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from e0_policy.types import Observation
from e0_ros.core.observation_sync import ObservationSync
from e0_ros.core.pairing import SyncConfig

VECTORS = json.loads((Path(__file__).parents[1] / "vectors/approximate_time_pairs.json").read_text())
IMAGE = np.zeros((2, 2, 3), np.uint8)
MS = 1_000_000


@pytest.mark.parametrize("case", VECTORS, ids=range(len(VECTORS)))
def test_pairs_are_those_of_message_filters(case: dict) -> None:
    sync = ObservationSync(
        SyncConfig(views=("a", "b"), tolerance_ms=case["slop_ns"] / MS, gripper_rate_hz=1000.0, lockstep=True)
    )
    stamps = [stamp for _, _, stamp in case["arrivals"]]
    results = []
    for stamp in range(min(stamps) - 20 * MS, max(stamps) + 40 * MS, 10 * MS):
        results += sync.add_joints(stamp, [0.0], 0) + sync.add_gripper(stamp, 0.5, 0)
    for _, stream, stamp in case["arrivals"]:
        results += sync.add_image("ab"[stream], stamp, IMAGE, 0)
    results += sync.add_image("b", max(stamps) + 500 * MS, IMAGE, 0)
    found = [[r.stamp_ns, r.stamp_ns + r.view_skew_ns["b"]] for r in results if isinstance(r, Observation)]
    assert sorted(found) == case["pairs"]
    assert len(case["pairs"]) > 15
