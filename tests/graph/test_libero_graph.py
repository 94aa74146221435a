"""A robosuite task through the graph as users launch it: rows of OSC_POSE, one per control step, in lock-step."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from e0_policy.types import Representation
from e0_ros.conversions import chunk_from_msg, to_ns
from e0_ros.core.bag_reader import Bag
from e0_ros.interfaces import ACTION_CHUNK, IMPEDANCE_TARGET, SIM_STEP, TRAJECTORY
from sim.runs import over_graph, scripted_directly

pytestmark = [pytest.mark.ros, pytest.mark.sim, pytest.mark.slow]
DELAYS = Path(__file__).parent / "delays"

if find_spec("robosuite") is None:
    pytest.skip("robosuite is not installed (extra [libero])", allow_module_level=True)


def episodes(folder: Path, seeds: range, environ: dict[str, str] | None = None):
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (environ or {}).items():
            patch.setenv(name, value)
        arguments = {"simulator": "libero", "task": "Lift", "size": 64}
        return over_graph(arguments, seeds, folder, settings={"bridge": {"timeout_s": 60.0}})


@pytest.mark.timeout(600)
def test_lifts_a_cube_over_the_topics_row_by_row_with_the_same_bits_with_delays_and_without_topics(tmp_path) -> None:
    prompt = episodes(tmp_path / "prompt", range(2))
    assert [(e.success, e.error, e.violations, e.lost, e.refused, e.holds) for e in prompt] == [
        (True, "", -1, 0, 0, [])
    ] * 2
    assert prompt[0].digest != prompt[1].digest
    late = {"PYTHONPATH": f"{DELAYS}:{os.environ.get('PYTHONPATH', '')}"}
    delayed = episodes(tmp_path / "late", range(1), late)
    assert [(e.digest, e.steps) for e in delayed] == [(prompt[0].digest, prompt[0].steps)]
    from sim.libero import LiberoAdapter

    direct = scripted_directly("libero", LiberoAdapter(("base", "wrist"), 64, 64), "Lift", range(2))
    assert [(e.digest, e.steps) for e in direct] == [(e.digest, e.steps) for e in prompt]
    every_row_was_fed_once_and_as_it_was(Path(prompt[0].bag))


def every_row_was_fed_once_and_as_it_was(bag: Path) -> None:
    opened = Bag(bag)
    told = {t.name: [opened.decode(m) for m in opened.messages([t.name])] for t in (ACTION_CHUNK, SIM_STEP)}
    plans = [chunk_from_msg(msg) for msg in told[ACTION_CHUNK.name] if msg.status == 0]
    steps = [msg for msg in told[SIM_STEP.name] if msg.status == 0]
    assert {plan.representation for plan in plans} == {Representation.EE_DELTA_STEP}
    stamps = [to_ns(step.header.stamp) for step in steps]
    assert len(set(stamps)) == len(stamps) > 20, "one row per control step"
    for step, now_ns in zip(steps, stamps, strict=True):
        plan = next(p for p in plans if p.sequence == step.sequence)
        row = plan.rows[(now_ns - plan.t0_ns) // plan.period_ns]
        np.testing.assert_array_equal(np.array(step.data), row)
    assert not list(opened.messages([TRAJECTORY.name, IMPEDANCE_TARGET.name])), "nothing for an arm"
