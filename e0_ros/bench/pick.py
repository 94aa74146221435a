"""The scripted expert on PickCube-v1 with two 224 x 224 views: in real time, in lock-step, and without topics."""

from __future__ import annotations

import tempfile
from pathlib import Path

EPISODES = 20
TARGETS = {
    "realtime_successes": ">= 19",
    "lockstep_successes": ">= 19",
    "realtime_factor": ">= 1.0",
    "realtime_violations": "<= 0",
    "lockstep_violations": "<= 0",
    "realtime_lost": "<= 0",
    "lockstep_over_direct": "<= 1.5",
}


def run(seconds: float) -> dict[str, float]:
    """Run the same 20 episodes three times; `seconds` does not matter, an episode lasts as long as its task."""
    from sim.demo import mean_cores
    from sim.evaluator import real_time_factor, violations
    from sim.maniskill import ManiSkillAdapter
    from sim.runs import over_graph, scripted_directly
    from sim.statistics import percentile, total

    seeds, settings = range(EPISODES), {"bridge": {"judge": True}}
    common = {"simulator": "maniskill", "task": "PickCube-v1"}
    with tempfile.TemporaryDirectory() as folder:
        live = over_graph({**common, "mode": "realtime"}, seeds, Path(folder) / "realtime", settings=settings)
        locked = {**common, "mode": "lockstep", "record": False}
        stepped = over_graph(locked, seeds, Path(folder) / "lockstep", settings=settings)
    direct = scripted_directly("maniskill", ManiSkillAdapter(), "PickCube-v1", seeds)
    seen = sum(len(e.observation_age_ms) for e in live)
    late_ms = [ms for e in live for ms in e.late_ms]
    both = [(s, d) for s, d in zip(stepped, direct, strict=True) if s.steps > 1]
    return {
        "realtime_successes": sum(e.success for e in live),
        "lockstep_successes": sum(e.success for e in stepped),
        "realtime_factor": real_time_factor(live),
        "realtime_skipped_ms": 1e3 * sum(e.overrun_s for e in live),
        "realtime_late_ms_p50": percentile(late_ms, 0.5),
        "realtime_late_ms_p99": percentile(late_ms, 0.99),
        "realtime_observations_percent": 100 * seen / sum(e.steps for e in live),
        "realtime_cores": sum(mean_cores(live).values()),
        "realtime_violations": violations(live),
        "lockstep_violations": violations(stepped),
        "realtime_lost": total(e.lost for e in live),
        "lockstep_over_direct": sum(s.wall_s for s, _ in both) / sum(d.wall_s for _, d in both),
        "lockstep_same_as_direct": sum(s.digest == d.digest for s, d in zip(stepped, direct, strict=True)),
    }
