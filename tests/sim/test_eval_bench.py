from __future__ import annotations

import pytest

from e0_policy.embodiment import load_embodiment
from sim.eval_bench import DIRECT, GRAPH, OWN, RAW, figures, main, run_local, table
from sim.evaluation import EvalConfig, completed

CHECKPOINT = "config/checkpoint/pick_push"


def test_ratios_are_of_steps_per_second_and_a_graph_is_one_however_many_processes_the_others_have() -> None:
    found = {OWN: [(10, 1.0), (20, 2.0)], RAW: [(10, 0.5), (20, 1.0)], GRAPH: [(10, 0.5), (10, 1.0)]}
    told = figures(found, 2)
    assert told[OWN]["steps_per_s"] == 20.0 and told[OWN]["rollouts_per_hour"] == 4800.0
    assert told[OWN]["ratio"] == told[OWN]["ratio_low"] == told[OWN]["ratio_high"] == 1.0
    assert told[RAW]["ratio"] == told[RAW]["ratio_median"] == 2.0
    assert told[GRAPH]["steps_per_s"] == pytest.approx(20 / 1.5) and told[GRAPH]["ratio"] == pytest.approx(2 / 3)
    assert (told[GRAPH]["ratio_low"], told[GRAPH]["ratio_high"]) == (0.5, 1.0)
    assert "| lockstep | 2 | 13.3 | 4800 | 0.67 | 0.50 to 1.00, median 0.75 |" in table(told)


def test_more_processes_than_seeds_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--checkpoint", CHECKPOINT, "--seeds", "0:1", "--workers", "2"]) == 2
    assert "2 workers for 1 seeds" in capsys.readouterr().err


@pytest.mark.sim
@pytest.mark.usefixtures("maniskill")
def test_every_way_runs_the_policy_on_the_seeds() -> None:
    config = completed(EvalConfig(checkpoint=CHECKPOINT, max_steps=8))
    found = run_local(config, "PushCube-v1", [300_000])
    steps = {way: [count for count, _ in rollouts] for way, rollouts in found.items()}
    assert steps == {OWN: [8], RAW: [8], DIRECT: [8]}
    assert all(wall_s > 0 for rollouts in found.values() for _, wall_s in rollouts)


@pytest.mark.sim
def test_the_own_loop_of_robosuite_is_what_raw_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lift by its expert: the same number of rows to success from the same scene."""
    pytest.importorskip("robosuite", reason="robosuite is not installed")
    from sim.libero import LiberoAdapter
    from sim.libero_own import OwnLoop
    from sim.raw import RawLoop
    from sim.sources import ExpertSource

    adapter = LiberoAdapter(("base",), 32, 32)
    source = ExpertSource("libero", load_embodiment("panda"), lambda: adapter.privileged().poses)
    source.reset("Lift", 3)
    raw = RawLoop(adapter).run("Lift", 3, source)
    own = OwnLoop("Lift", ("base",), 32)
    made = own.open
    monkeypatch.setattr(
        own, "open", lambda: setattr(adapter, "_env", made())
    )  # the expert looks at the scene that runs
    adapter.close()
    adapter._task = "Lift"
    source.reset("Lift", 3)
    steps, _ = own.run(3, source, 200)
    own.close()
    assert raw.success and steps == raw.steps < 200
