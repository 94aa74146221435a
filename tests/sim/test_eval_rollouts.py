from __future__ import annotations

import pytest

from e0_ros.config import ConfigError
from sim.eval_rollouts import ERROR, POLICY, Job, Rollout, RolloutStore

HERE = {"mode": "direct", "checkpoint": "abc", "max_steps": 0}


def rollout(seed: int, outcome: str = "success", **values: object) -> Rollout:
    return Rollout(POLICY, "Reach-v0", seed, outcome, **values)  # type: ignore[arg-type]


def jobs(count: int) -> list[Job]:
    return [Job(POLICY, "Reach-v0", seed) for seed in range(count)]


def test_what_was_written_is_read_back_and_not_run_again(tmp_path):
    store = RolloutStore(tmp_path, HERE)
    given = [rollout(0, steps=7, time_to_success_s=0.35, digest="d"), rollout(1, "failure", holds=2)]
    for r in given:
        store.add(r)
    store.close()
    again = RolloutStore(tmp_path, HERE)
    assert list(again.rollouts) == jobs(2)
    assert [repr(r) for r in again.rollouts.values()] == [repr(r) for r in given]
    assert again.missing(jobs(4)) == jobs(4)[2:]


def test_a_row_that_a_kill_has_torn_is_cut_off_and_run_again(tmp_path):
    store = RolloutStore(tmp_path, HERE)
    store.add(rollout(0))
    store.add(rollout(1, "failure", error='a "quoted", text'))
    store.close()
    whole = store.path.read_bytes()
    for cut in range(len(whole) - 1, whole.rstrip().rfind(b"\n") + 1, -7):
        store.path.write_bytes(whole[:cut])
        again = RolloutStore(tmp_path, HERE)
        assert again.missing(jobs(2)) == jobs(2)[1:]
        again.add(rollout(1))
        again.close()
        assert RolloutStore(tmp_path, HERE).missing(jobs(2)) == []


def test_a_kill_before_the_first_row_leaves_nothing_wrong(tmp_path):
    RolloutStore(tmp_path, HERE).close()
    path = tmp_path / "rollouts.csv"
    path.write_bytes(path.read_bytes()[:20])
    store = RolloutStore(tmp_path, HERE)
    store.add(rollout(0))
    store.close()
    assert RolloutStore(tmp_path, HERE).missing(jobs(2)) == jobs(2)[1:]


def test_an_error_is_run_again_and_its_last_row_counts(tmp_path):
    store = RolloutStore(tmp_path, HERE)
    store.add(rollout(0, ERROR, error="the bridge died"))
    assert store.missing(jobs(1)) == jobs(1)
    store.add(rollout(0))
    store.close()
    assert RolloutStore(tmp_path, HERE).rollouts[jobs(1)[0]].outcome == "success"


def test_another_configuration_is_refused_with_the_difference(tmp_path):
    RolloutStore(tmp_path, HERE).close()
    with pytest.raises(ConfigError, match=r"max_steps was 0 and is 50; mode was 'direct' and is 'raw'; choose another"):
        RolloutStore(tmp_path, {**HERE, "mode": "raw", "max_steps": 50})


def test_rows_of_another_configuration_are_refused(tmp_path):
    store = RolloutStore(tmp_path / "a", HERE)
    store.add(rollout(0))
    store.close()
    RolloutStore(tmp_path / "b", {**HERE, "checkpoint": "other"}).close()
    with (tmp_path / "b" / "rollouts.csv").open("ab") as file:
        file.write(store.path.read_bytes().splitlines(keepends=True)[1])
    with pytest.raises(ConfigError, match="a row is of configuration"):
        RolloutStore(tmp_path / "b", {**HERE, "checkpoint": "other"})
