"""Evaluation and conversion on a Ray cluster of this machine; `pip install 'e0_ros[ray]'`."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from e0_ros.config import ConfigError
from e0_ros.convert import convert
from e0_ros.core.dataset_config import ConvertConfig, Selection
from e0_ros.synthetic_episode import SyntheticEpisode
from sim.eval_rollouts import ERROR, POLICY, Job, Rollout, read_run
from sim.eval_run import Plan, evaluate
from sim.evaluation import EvalConfig

PLANT = EvalConfig("fr3_plant", "direct", views=("base",), size=32, max_steps=20)


def test_without_ray_the_way_to_it_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigError, match=r"ray is not installed here; install the extra: pip install 'e0_ros\[ray\]'"):
        evaluate(PLANT, Plan(("Reach-v0",), range(1), ray="local"), tmp_path)


def test_a_graph_is_not_sent_to_a_cluster(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="a graph is this machine's"):
        evaluate(EvalConfig("fr3_plant", "lockstep"), Plan(("Reach-v0",), range(1), ray="local"), tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_cluster_gives_the_same_bits_as_processes_and_goes_on_where_it_stopped(tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="ray is not installed (extra [ray])")
    told = evaluate(PLANT, Plan(("Reach-v0",), range(4), workers=2), tmp_path / "pool")
    assert told["errors"] == 0
    evaluate(PLANT, Plan(("Reach-v0",), range(2), ray="local", workers=2), tmp_path / "ray")
    evaluate(PLANT, Plan(("Reach-v0",), range(4), ray="local", workers=2, videos=1), tmp_path / "ray")
    runs = [read_run(tmp_path / name)[1] for name in ("pool", "ray")]
    assert [{job: (r.outcome, r.steps, r.digest) for job, r in sorted(run.items())} for run in runs] == [
        {job: (r.outcome, r.steps, r.digest) for job, r in sorted(runs[0].items())}
    ] * 2
    assert len(list((tmp_path / "ray" / "first_frames").glob("*.jpg"))) == 4
    assert list((tmp_path / "ray" / "videos").glob("*.mp4"))


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_an_actor_that_dies_costs_its_rollout_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ray", reason="ray is not installed (extra [ray])")
    from sim import eval_ray
    from sim.eval_pool import Assignment, RolloutWorker
    from sim.evaluation import completed

    class Mortal(RolloutWorker):
        def run(self, given: Assignment) -> Rollout | str:
            if given.job.seed == 1:
                os._exit(9)
            return super().run(given)

    monkeypatch.setattr(eval_ray, "RolloutWorker", Mortal)
    done: dict[int, Rollout] = {}
    given = [Assignment(Job(POLICY, "Reach-v0", seed)) for seed in range(4)]
    eval_ray.run_on_ray(completed(PLANT), given, tmp_path, "local", 2, 300.0, lambda a, r: done.update({a.job.seed: r}))
    assert done[1].error == "the process of the rollout died"
    assert sorted(done) == [0, 1, 2, 3] and all(done[seed].outcome != ERROR for seed in (0, 2, 3))


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_conversion_on_a_cluster_gives_the_same_dataset(tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="ray is not installed (extra [ray])")
    for seconds in (0.5, 1.0, 1.5):
        SyntheticEpisode(seconds=seconds, joint_hz=200.0).write(tmp_path / "bags" / f"{seconds}")
    every = Selection(outcomes=("all",))
    for name, ray in (("here", ""), ("there", "local")):
        report = convert([tmp_path / "bags"], tmp_path / name, ConvertConfig(), every, 1, ray)
        assert report.episodes == 3
    data = [(tmp_path / name / "data" / "chunk-000" / "file-000.parquet").read_bytes() for name in ("here", "there")]
    assert data[0] == data[1]
