"""Row 27 of the fault matrix: 90 MB/s into the real recorder for a minute, by the bench that BENCHMARKS.md quotes."""

from __future__ import annotations

import shutil
import tempfile

import pytest

from e0_ros.bench import recorder
from tests.faults.scale import FULL

SECONDS, RATE_MB_S = 60.0, 90.0
ROOM = int(2 * SECONDS * RATE_MB_S * 1e6)
FREE = shutil.disk_usage(tempfile.gettempdir()).free


@pytest.mark.ros
@pytest.mark.skipif(not FULL, reason="a minute of 90 MB/s: make faults ROWS=27")
@pytest.mark.skipif(FREE < ROOM, reason=f"{ROOM / 1e9:.0f} GB free are needed in {tempfile.gettempdir()}")
def test_at_90_mb_per_s_nothing_is_lost(record_property) -> None:
    found = recorder.run(SECONDS)
    came, lost = found["received_mb_per_s"], round(found["lost"])
    figure = f"{lost} lost of {found['messages_hz']:.0f} messages/s, {came:.1f} MB/s for {SECONDS:.0f} s"
    record_property("figure", f"{figure}, {found['cpu_percent']:.0f} % of a core")
    assert (found["lost"], found["lost_by_own_count"]) == (0, 0), figure
    if came < RATE_MB_S:  # what publishes was not given the processor that it needs
        record_property("beyond", f"only {came:.1f} MB/s came")
