from __future__ import annotations

import pytest

from e0_ros.bench.transport import TARGETS, run


@pytest.mark.ros
def test_a_short_run_measures_every_figure_that_has_a_target() -> None:
    """That it measures, not how fast: other work on the machine decides that."""
    figures = run(4.0)
    assert set(TARGETS) <= set(figures)
    assert figures["observations"] + figures["stale"] > 10
    assert figures["joints_sent"] > 1000 and figures["ticks_running_percent"] > 0
    assert 0 < figures["image_p50_ms"] <= figures["image_p99_ms"] <= figures["image_max_ms"]
