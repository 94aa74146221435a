from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import torch
from hypothesis import given
from hypothesis import strategies as st
from lerobot_folder import write_folder

from e0_policy.checkpoint import read_checkpoint
from e0_policy.data_order import split_takes
from e0_policy.dataset import PackedSource, write_packed
from e0_policy.distributed import Workers
from e0_policy.image_cache import cached
from e0_policy.learned_seeds import HELD_OUT, LEARNED, learned_seeds, met_again, seed_ranges
from e0_policy.lerobot_source import OWN, LeRobotSource
from e0_policy.selection import mixed, without_idle
from e0_policy.train import prepare, train
from e0_policy.train_state import newest
from tests.e0_policy.test_train import make_config

SEEDS = {"PickCube-v1": "4:6", "PushCube-v1": "7:8"}


@given(st.sets(st.integers(0, 60)))
def test_seed_ranges_give_back_the_seeds(seeds: set[int]) -> None:
    parts = [part.split(":") for part in seed_ranges(seeds).split(",") if part]
    assert sorted(seeds) == [s for a, b in parts for s in range(int(a), int(b))]
    assert met_again({LEARNED: {"a": seed_ranges(seeds)}}, "a", range(-5, 70)) == sorted(seeds)


def test_what_is_not_known_is_not_met() -> None:
    assert met_again({}, "a", range(9)) == met_again({LEARNED: {"b": "0:9"}}, "a", range(9)) == []


def simulated(folder: Path) -> Path:
    """A dataset whose first two episodes are of one task, the third of another and the fourth of a robot."""
    write_folder(folder, (24, 20, 22, 18), side=48)
    own = json.loads((folder / OWN).read_text())
    scenes = [("PickCube-v1", 5), ("PickCube-v1", 4), ("PushCube-v1", 7), ("", 0)]
    for number, (entry, (task, seed)) in enumerate(zip(own["episodes"], scenes, strict=True)):
        entry |= {"episode_index": number, "task": task, "seed": seed}
    (folder / OWN).write_text(json.dumps(own))
    return folder


def test_seeds_of_a_dataset_reach_the_checkpoint_however_its_frames_are_read(tmp_path: Path) -> None:
    folder = simulated(tmp_path / "data")
    source = LeRobotSource(folder)
    assert learned_seeds(source.episodes) == SEEDS
    write_packed(source, tmp_path / "packed")
    packed = PackedSource(tmp_path / "packed")
    assert learned_seeds(packed.episodes) == SEEDS
    still = without_idle(source, [True] * 8, 10.0)
    assert {len(e) for e in still.episodes} == {1} and learned_seeds(still.episodes) == SEEDS
    other = PackedSource(tmp_path / "packed")
    other.episodes = [replace(e, scene=("PickCube-v1", 9)) for e in other.episodes]
    assert learned_seeds(mixed([packed, other], ["a", "b"]).episodes) == SEEDS | {"PickCube-v1": "4:6,9:10"}
    older = [replace(e, scene=None) for e in source.episodes]
    source.episodes, scenes = older, source.episodes
    cache = ("1", ("base",), 16, tmp_path / "cache", lambda done, total: None)
    cached(source, *cache)
    source.episodes = scenes
    assert learned_seeds(cached(source, *cache).episodes) == SEEDS
    config = make_config(tmp_path / "run", data=str(folder), steps=1, warmup_steps=0, validation_fraction=0.5)
    train(config)
    told, takes = read_checkpoint(tmp_path / "run" / "checkpoint").training, [e.take for e in source.episodes]
    assert told[LEARNED] == SEEDS
    assert told[HELD_OUT] == sorted(takes[e] for e in split_takes(takes, 0.5, config.seed)[1]) != []
    alone, saved = Workers(0, 1, torch.device("cpu")), newest(tmp_path / "run")
    assert saved.meta[LEARNED] == SEEDS
    again = replace(saved, meta={**saved.meta, LEARNED: {"PushCube-v1": "2:3"}})
    assert prepare(config, alone, again).learned == SEEDS | {"PushCube-v1": "2:3,7:8"}
    own = json.loads((folder / OWN).read_text())
    for entry in own["episodes"]:
        entry["seed"] += 20
    (folder / OWN).write_text(json.dumps(own))
    start = replace(config, initial_weights=str(tmp_path / "run" / "checkpoint"))
    assert prepare(start, alone, None).learned == {"PickCube-v1": "4:6,24:26", "PushCube-v1": "7:8,27:28"}
