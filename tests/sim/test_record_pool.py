from __future__ import annotations

import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from sim.record_jobs import Job
from sim.record_pool import BAD_IN_A_ROW, Pool

STUB = (sys.executable, str(Path(__file__).parents[1] / "stubs" / "stub_record_worker.py"))


def record(folder: Path, seeds: range, workers: int = 2, **spec: Any) -> tuple[Pool, list[dict[str, Any]]]:
    results: list[dict[str, Any]] = []
    pool = Pool({"script": {}, **spec}, range(61, 61 + workers), folder, results.append, STUB)
    pool.run([Job("Reach-v0", seed) for seed in seeds])
    return pool, results


def test_every_episode_is_recorded_once_and_workers_have_domains_of_their_own(tmp_path):
    _, results = record(tmp_path, range(20), script={str(seed): ["slow"] for seed in range(4)})
    assert sorted(r["seed"] for r in results) == list(range(20))
    assert {r["domain"] for r in results} == {"61", "62"} and len({r["pid"] for r in results}) == 2
    assert len(list(tmp_path.glob("ended-*"))) == 2, "workers end by the end of their input"


def test_one_worker_keeps_its_graph_over_all_episodes(tmp_path):
    _, results = record(tmp_path, range(8), workers=1)
    assert len({r["pid"] for r in results}) == 1


def test_no_more_workers_than_episodes(tmp_path):
    _, results = record(tmp_path, range(1), workers=3)
    assert len(results) == 1 and len(list(tmp_path.glob("worker-*"))) == 1


def test_a_worker_that_dies_is_started_again_and_its_episode_recorded(tmp_path):
    _, results = record(tmp_path, range(6), script={"2": ["die", "fine"]})
    assert sorted(r["seed"] for r in results) == list(range(6)) and not any(r["error"] for r in results)
    assert len({r["pid"] for r in results}) >= 2 and len(list(tmp_path.glob("worker-*"))) == 3


def test_what_a_dead_worker_left_running_is_ended_and_the_other_worker_is_not(tmp_path, monkeypatch):
    monkeypatch.setattr("sim.record_pool.ORPHAN_S", 0.3)
    script = {"0": ["leave", "fine"], **{str(seed): ["slow"] for seed in range(1, 8)}}
    _, results = record(tmp_path, range(8), script=script)
    assert not any(r["error"] for r in results) and len({r["pid"] for r in results}) == 2
    assert not Path(f"/proc/{(tmp_path / 'left').read_text()}").exists()


def test_an_episode_that_fails_again_is_an_error_and_the_rest_goes_on(tmp_path):
    _, results = record(tmp_path, range(6), workers=1, script={"2": ["error"], "4": ["die"], "3": ["error", "fine"]})
    errors = {r["seed"]: r["error"] for r in results if r["error"]}
    assert errors.keys() == {2, 4} and "refused" in errors[2] and "domain 61: it died" in errors[4]
    assert sorted(r["seed"] for r in results) == list(range(6))
    assert [len((tmp_path / f"seed-{seed}").read_text()) for seed in range(6)] == [1, 1, 2, 2, 2, 1]


def test_if_nothing_works_it_ends_soon_and_says_why(tmp_path):
    pool, results = record(tmp_path, range(100), fatal=True)
    assert "no simulator" in pool.reason and "one after another" in pool.reason
    assert BAD_IN_A_ROW <= len(results) <= BAD_IN_A_ROW + 1 and all("no simulator" in r["error"] for r in results)


@pytest.mark.timeout(60)
def test_a_stop_lets_the_running_episodes_end_and_starts_no_other(tmp_path):
    results: list[dict[str, Any]] = []
    first = threading.Event()

    def on_result(said: dict[str, Any]) -> None:
        results.append(said)
        first.set()

    script = {str(seed): ["slow"] for seed in range(50)}
    pool = Pool({"script": script}, range(61, 63), tmp_path, on_result, STUB)
    threading.Thread(target=lambda: (first.wait(30.0), pool.stop("interrupted"))).start()
    pool.run([Job("Reach-v0", seed) for seed in range(50)])
    assert pool.reason == "interrupted" and 1 <= len(results) < 10 and not any(r["error"] for r in results)
    assert len(list(tmp_path.glob("ended-*"))) == 2


def test_an_error_of_the_one_who_listens_ends_the_recording_and_is_not_swallowed(tmp_path):
    def on_result(said: dict[str, Any]) -> None:
        raise KeyError("flags")

    pool = Pool({"script": {}}, range(61, 63), tmp_path, on_result, STUB)
    with pytest.raises(KeyError, match="flags"):
        pool.run([Job("Reach-v0", seed) for seed in range(50)])
    assert len(list(tmp_path.glob("seed-*"))) <= 2
