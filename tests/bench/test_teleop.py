from __future__ import annotations

import pytest

pytest.importorskip("dynamixel_sdk", reason="dynamixel-sdk is not installed")


@pytest.mark.ros
def test_a_short_run_measures_every_figure_that_has_a_target() -> None:
    """That it measures, not how fast: other work on the machine decides that."""
    from e0_ros.bench.teleop import TARGETS, run

    figures = run(2.0)
    assert set(TARGETS) <= set(figures)
    assert figures["readings"] > 0
    assert 6.0 < figures["chunk_p50_ms"] < figures["latency_p50_ms"] <= figures["latency_max_ms"]
