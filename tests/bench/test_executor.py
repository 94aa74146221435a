from __future__ import annotations

from e0_ros.bench.executor import TARGETS, run


def test_a_short_run_measures_every_figure_that_has_a_target() -> None:
    """That it measures, not how fast: other work on the machine decides that."""
    figures = run(0.2)
    assert set(TARGETS) <= set(figures)
    assert figures["policy_commands"] > 20 and figures["teleop_commands"] > 50
    assert 0 < figures["policy_tick_p50_ms"] < figures["policy_command_p50_ms"]
