from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from e0_policy.localisation import Localiser
from e0_policy.pretrain import ENCODER, REPORT, Pretraining, main, prepare, pretrain
from e0_policy.train_config import TrainConfig, from_mapping
from e0_policy.train_control import Interrupted
from e0_policy.train_state import TrainStateError
from e0_policy.weights import load_pretrained
from tests.e0_policy.drawn_scenes import draw_scenes
from tests.e0_policy.tiny import tiny_config, tiny_model

SETTINGS = {
    "validation_fraction": 0.1,
    "augment": False,
    "batch_size": 16,
    "steps": 8,
    "warmup_steps": 2,
    "learning_rate": 3e-3,
    "ema": 0.9,
    "log_every": 4,
    "validate_every": 4,
    "save_every": 4,
}


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_scenes(tmp_path_factory.mktemp("scenes") / "drawn", 400)


def config(scenes: Path, output: Path, **changes: object) -> TrainConfig:
    return from_mapping(
        {"model": tiny_config().to_dict(), "data": str(scenes), "output": str(output), **SETTINGS, **changes}, "test"
    )


def distance(errors: dict, looked: str) -> float:
    return errors[looked]["One-v1"]["object"]["distance"]


def figures(output: Path) -> list[dict]:
    """What a run reported, but for its speed."""
    lines = (output / "metrics.jsonl").read_text().splitlines()
    return [{name: value for name, value in json.loads(line).items() if name != "samples_per_s"} for line in lines]


def test_tokens_learn_to_tell_positions(scenes, tmp_path):
    before = prepare(config(scenes, tmp_path), None).errors()
    after = pretrain(config(scenes, tmp_path, steps=150, validate_every=150, save_every=150))
    assert set(after) == {"1 view", "2 views", "base", "wrist"} == set(before)
    for looked in after:
        assert distance(after, looked) < 0.5 * distance(before, looked), looked
    assert json.loads((tmp_path / REPORT).read_text())["errors_mm"] == after


def test_without_its_labels_nothing_is_learnt(scenes, tmp_path):
    run = prepare(config(scenes, tmp_path), None)
    before = distance(run.errors(), "2 views")
    run.scenes.targets = run.scenes.targets[torch.randperm(len(run.scenes), generator=torch.Generator().manual_seed(0))]
    for step in range(60):
        run.update(step, range(16 * step % 300, 16 * step % 300 + 16))
    assert distance(run.errors(), "2 views") > 0.7 * before


def test_a_resumed_run_has_the_bits_of_a_straight_one(scenes, tmp_path):
    changes = {"augment": True, "view_dropout": 0.3, "keep": 9}
    pretrain(config(scenes, tmp_path / "straight", **changes))
    pretrain(config(scenes, tmp_path / "halves", **changes))
    for file in (tmp_path / "halves/state/step_00000008").iterdir():
        file.unlink()
    (tmp_path / "halves/state/step_00000008").rmdir()
    pretrain(config(scenes, tmp_path / "halves", **changes), resume=True)
    one, other = (load_file(tmp_path / run / ENCODER) for run in ("straight", "halves"))
    assert set(one) == set(other) and all(torch.equal(one[name], other[name]) for name in one)
    assert figures(tmp_path / "halves") == figures(tmp_path / "straight")
    assert [(f["step"], f["kind"]) for f in figures(tmp_path / "halves")] == [
        (4, "train"), (4, "validation"), (8, "train"), (8, "validation"),
    ]  # fmt: skip


def test_a_signal_saves_and_another_data_set_is_refused(scenes, tmp_path, monkeypatch):
    run = config(scenes, tmp_path / "run")
    monkeypatch.setattr("e0_policy.learner.learning_rate", lambda c, s: os.kill(os.getpid(), signal.SIGTERM) or 1e-3)
    with pytest.raises(Interrupted, match="after step 1"):
        pretrain(run)
    monkeypatch.undo()
    index = scenes / "index.json"
    whole = index.read_text()
    index.write_text(whole + " ")
    try:
        with pytest.raises(TrainStateError, match="not what the run"):
            pretrain(run, resume=True)
    finally:
        index.write_text(whole)


def test_the_report_tells_the_step_of_its_errors(scenes, tmp_path, monkeypatch):
    saved, real = [], Pretraining.save

    def save(self, step, *rest):
        real(self, step, *rest)
        told = tmp_path / REPORT
        saved.append((step, json.loads(told.read_text())["step"] if told.is_file() else None))

    monkeypatch.setattr(Pretraining, "save", save)
    pretrain(config(scenes, tmp_path, validate_every=4, save_every=3))
    assert saved == [(3, None), (6, 4), (8, 8)]


def test_an_encoder_gets_to_the_views_it_was_trained_on(scenes, tmp_path):
    pretrain(config(scenes, tmp_path))
    trained = load_file(tmp_path / ENCODER)
    assert not [name for name in trained if "heads" in name]
    model = tiny_model(views=["side", "wrist", "base"])
    side = model.vision.stems[0].grid.weight.detach().clone()
    report = load_pretrained(model, tmp_path / ENCODER)
    assert not report.refused and not report.unused
    assert set(report.loaded) == set(trained)
    assert {"vision.position_embedding.side", "action_in.weight"} <= set(report.random)
    for place, view in enumerate(("side", "wrist", "base")):
        if view != "side":
            assert torch.equal(model.vision.stems[place].grid.weight, trained[f"vision.stems.{view}.grid.weight"])
            assert torch.equal(model.vision.position_embedding[place], trained[f"vision.position_embedding.{view}"])
    assert torch.equal(model.vision.stems[0].grid.weight, side)
    assert torch.equal(model.projector.weight, trained["projector.weight"])


def test_pretraining_goes_on_from_an_encoder(scenes, tmp_path):
    pretrain(config(scenes, tmp_path / "first", steps=100, validate_every=100, save_every=100))
    second = config(scenes, tmp_path / "second", initial_weights=str(tmp_path / "first" / ENCODER))
    run, trained = prepare(second, None), load_file(tmp_path / "first" / ENCODER)
    assert torch.equal(run.model.vision.stems[0].grid.weight, trained["vision.stems.base.grid.weight"])
    assert torch.equal(run.learner.ema["projector.weight"], trained["projector.weight"])


def test_the_joint_head_is_blind_to_views_that_are_not_seen():
    model = tiny_model()
    localiser = Localiser(model, 5)
    images = torch.rand(3, 2, 3, 32, 32)
    changed = images.clone()
    changed[:, 1] = torch.rand(3, 3, 32, 32)
    seen = torch.tensor([[True, False]]).expand(3, -1)
    one, other = localiser(images, seen), localiser(changed, seen)
    assert torch.equal(one.joint, other.joint)
    assert not torch.equal(one.views[:, 1], other.views[:, 1])
    assert one.views.shape == (3, 2, 3, 5)
    with pytest.raises(ValueError, match="only conv"):
        Localiser(tiny_model(vision="siglip", patch_size=8), 5)


def test_the_command_explains_what_is_wrong(scenes, tmp_path, capsys):
    path, out = tmp_path / "pretrain.yaml", tmp_path / "figures.json"
    values = {"model": tiny_config().to_dict(), "data": str(scenes), "output": str(tmp_path / "run"), **SETTINGS}
    path.write_text(yaml.safe_dump(values))
    assert main(["--config", str(path), "--set", "data=/nowhere"]) == 2
    assert "e0 scenes" in capsys.readouterr().err
    assert main(["--config", str(path), "--resume"]) == 2
    assert main(["--config", str(path), "--set", "steps=2", "warmup_steps=1", "--json", str(out)]) == 0
    assert distance(json.loads(out.read_text()), "2 views") > 0
    assert "held out" in capsys.readouterr().out
    done = ["--config", str(path), "--continue", "--set", "warmup_steps=1"]
    assert main([*done, "steps=2"]) == 0 and "is done: 2 of 2 steps" in capsys.readouterr().err
    assert main([*done, "steps=3"]) == 2 and "steps is 3; the run to resume has 2" in capsys.readouterr().err
