from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from e0_policy.auxiliary import Auxiliary
from e0_policy.checkpoint import load_model, read_checkpoint
from e0_policy.dataset import DatasetError
from e0_policy.model import E0Model
from e0_policy.scene_data import SceneData
from e0_policy.train import train
from e0_policy.train_config import TrainConfig, TrainConfigError
from e0_policy.train_state import load_part, newest
from tests.e0_policy.drawn_scenes import draw_scenes
from tests.e0_policy.test_train import losses, make_config


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_scenes(tmp_path_factory.mktemp("scenes") / "drawn", 40)


def config(scenes: Path, output: Path, **changes: object) -> TrainConfig:
    own = {"auxiliary_scenes": str(scenes), "auxiliary_batch": 8, "auxiliary_every": 2, "keep": 9}
    return make_config(output, **{**own, **changes})


def test_the_second_loss_falls_and_stays_out_of_the_checkpoint(scenes, tmp_path):
    train(config(scenes, tmp_path, steps=40, auxiliary_every=1, auxiliary_weight=1.0, warmup_steps=5))
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    location = [line["location"] for line in lines if "location" in line]
    assert len(location) == 40 and np.mean(location[-5:]) < 0.85 * np.mean(location[:5])
    checkpoint = read_checkpoint(tmp_path / "checkpoint")
    assert set(dict(load_model(checkpoint, torch.device("cpu")).named_parameters())) == set(
        dict(E0Model(checkpoint.model).named_parameters())
    )


def test_it_teaches_the_encoder_and_leaves_the_policys_randomness_alone(scenes, tmp_path):
    """With no weight the run is bit for bit one without scenes; with some the encoder ends up elsewhere."""
    runs = {"without": {"auxiliary_scenes": ""}, "weightless": {"auxiliary_weight": 0.0}, "with": {}}
    for name, changes in runs.items():
        train(config(scenes, tmp_path / name, **changes))
    without, weightless, with_ = (load_part(newest(tmp_path / name), "model") for name in runs)
    assert all(torch.equal(without[name], weightless[name]) for name in without)
    assert not torch.equal(without["vision.stems.0.grid.weight"], with_["vision.stems.0.grid.weight"])
    assert losses(tmp_path / "without") == losses(tmp_path / "weightless")


def test_a_resumed_run_has_the_bits_of_a_straight_one(scenes, tmp_path):
    train(config(scenes, tmp_path / "run"))
    straight = {part: load_part(newest(tmp_path / "run"), part) for part in ("model", "ema", "optimizer")}
    shutil.rmtree(tmp_path / "run/state/step_00000006")
    train(config(scenes, tmp_path / "run"), resume=True)
    for part, tensors in straight.items():
        again = load_part(newest(tmp_path / "run"), part)
        assert set(again) == set(tensors)
        assert all(torch.equal(tensors[name], again[name]) for name in tensors), part
    assert any(name.startswith("auxiliary/exp_avg/") for name in straight["optimizer"])


def test_only_every_second_step_has_it(scenes, tmp_path):
    train(config(scenes, tmp_path))
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "location" in line] == [1, 3, 5]


def test_every_scene_is_seen_before_any_is_seen_again(scenes, tmp_path, monkeypatch):
    seen: list[int] = []
    images = SceneData.images
    monkeypatch.setattr(SceneData, "images", lambda data, rows: seen.extend(rows.tolist()) or images(data, rows))
    second = Auxiliary(config(scenes, tmp_path), E0Model(make_config(tmp_path).model), 1)
    for step in range(10):
        second.backward(step, 1e-3)
    assert sorted(seen) == list(range(40))


def test_what_does_not_go_is_told(scenes, tmp_path):
    model = E0Model(make_config(tmp_path).model)
    with pytest.raises(TrainConfigError, match="for one process; this run has 2"):
        Auxiliary(config(scenes, tmp_path), model, 2)
    with pytest.raises(DatasetError, match="e0 scenes"):
        Auxiliary(config(tmp_path, tmp_path), model, 1)
