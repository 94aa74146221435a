from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from e0_policy import checkpoint as module
from e0_policy.checkpoint import (
    CONFIG,
    WEIGHTS,
    Checkpoint,
    CheckpointError,
    load_model,
    read_checkpoint,
    save_checkpoint,
)
from e0_policy.resources import config_dir
from e0_policy.types import Representation
from e0_ros.policies import first_views
from tests.e0_policy.tiny import tiny_model


@pytest.fixture
def saved(tmp_path: Path) -> Checkpoint:
    model = tiny_model()
    made = Checkpoint(model.config, {"views": ["base"], "actions": [1.5]}, "panda", 50_000_000, 4, {"steps": 7})
    return save_checkpoint(tmp_path / "nano", model.state_dict(), made)


def test_round_trip(saved: Checkpoint) -> None:
    assert saved.folder is not None
    again = read_checkpoint(saved.folder)
    assert again == saved
    assert (again.embodiment, again.period_ns, again.execution_horizon) == ("panda", 50_000_000, 4)
    assert again.transform == {"views": ["base"], "actions": [1.5]} and again.training == {"steps": 7}
    want = tiny_model().state_dict()
    got = load_model(again).state_dict()
    assert want.keys() == got.keys() and all(torch.equal(got[k], want[k]) for k in want)
    assert load_model(again, dtype=torch.bfloat16).action_in.weight.dtype == torch.bfloat16


def test_what_its_rows_are_comes_with_it_and_format_1_has_joint_positions(saved: Checkpoint) -> None:
    assert saved.representation is Representation.JOINT_POSITION
    made, state = replace(saved, representation=Representation.EE_DELTA_STEP), tiny_model().state_dict()
    again = save_checkpoint(saved.folder, state, made)
    assert again.representation is Representation.EE_DELTA_STEP
    data = json.loads((saved.folder / CONFIG).read_text())
    del data["representation"]
    old = {**data, "format": 1}
    (saved.folder / CONFIG).write_text(json.dumps({**old, "sha256": module._digest(old)}))
    assert read_checkpoint(saved.folder).representation is Representation.JOINT_POSITION
    shipped = read_checkpoint(config_dir() / "checkpoint" / "pick_push")
    assert (shipped.representation, shipped.embodiment) == (Representation.JOINT_POSITION, "panda")


def test_pictures_of_its_data_come_with_it_and_go_with_the_next(saved: Checkpoint, tmp_path: Path) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (8, 6, 3), np.uint8)
    weights = load_model(saved).state_dict()
    folder = tmp_path / "nano"
    save_checkpoint(folder, weights, saved, {"base": picture})
    np.testing.assert_array_equal(first_views(folder)["base"], picture)
    assert read_checkpoint(folder).training == saved.training
    save_checkpoint(folder, weights, saved)
    assert first_views(folder) == {}


def damage(path: Path, how: str) -> None:
    data = bytearray(path.read_bytes())
    if how == "truncated":
        data = data[: len(data) // 2]
    elif how == "bit":
        data[-5] ^= 1
    else:
        data += b"x"
    path.write_bytes(data)


@pytest.mark.parametrize("how", ["truncated", "bit", "longer"])
@pytest.mark.parametrize("name", [WEIGHTS, CONFIG])
def test_damage_is_refused_before_anything_loads(
    saved: Checkpoint, name: str, how: str, monkeypatch: pytest.MonkeyPatch, record_property
) -> None:
    monkeypatch.setattr(module, "safe_open", None)
    damage(saved.folder / name, how)
    with pytest.raises(CheckpointError, match=name):
        read_checkpoint(saved.folder)
    record_property("figure", "damaged file refused, nothing of it loaded")


@pytest.mark.parametrize(
    ("key", "value"), [("embodiment", "fr3"), ("transform", {"views": ["base"], "actions": [1.6]}), ("period_ns", 1)]
)
def test_an_edited_configuration_is_refused(saved: Checkpoint, key: str, value: object) -> None:
    path = saved.folder / CONFIG
    path.write_text(json.dumps({**json.loads(path.read_text()), key: value}))
    with pytest.raises(CheckpointError, match=r"config\.json has SHA-256 .* was written"):
        read_checkpoint(saved.folder)


def test_weights_of_another_configuration_are_refused(saved: Checkpoint, tmp_path: Path) -> None:
    other = replace(saved.model, expert_mlp=40)
    with pytest.raises(CheckpointError, match=r"\(16, 32\); the configuration needs \(16, 40\)"):
        load_model(replace(saved, model=other))
    with pytest.raises(CheckpointError, match="the configuration needs"):
        save_checkpoint(tmp_path / "other", tiny_model().state_dict(), replace(saved, model=other))
    assert not (tmp_path / "other").exists()
    tensors = tiny_model().state_dict()
    tensors["extra"] = torch.zeros(1)
    with pytest.raises(CheckpointError, match=r"extra is \(1,\); the configuration needs none"):
        save_checkpoint(tmp_path / "other", tensors, saved)


class Hostile:
    """Runs code of its own where it is unpickled: makes a file."""

    def __init__(self, mark: Path) -> None:
        self._mark = mark

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self._mark,)


def test_pickles_and_half_checkpoints_are_refused(saved: Checkpoint, tmp_path: Path, record_property) -> None:
    pickle, mark = tmp_path / "model.pt", tmp_path / "ran"
    torch.save(Hostile(mark), pickle)
    for path in (pickle, shutil.copy(pickle, saved.folder / "model.pt")):
        with pytest.raises(CheckpointError, match="never opened"):
            read_checkpoint(path)
    whole = (saved.folder / WEIGHTS).read_bytes()
    (saved.folder / WEIGHTS).write_bytes(pickle.read_bytes())
    with pytest.raises(CheckpointError, match=WEIGHTS):
        read_checkpoint(saved.folder)
    (saved.folder / WEIGHTS).write_bytes(whole)
    assert not mark.exists()
    torch.load(pickle, weights_only=False)
    assert mark.exists(), "it would have run"
    record_property("figure", "pickles that run code, by name and in the weights' place: refused, 0 ran")
    (saved.folder / WEIGHTS).unlink()
    with pytest.raises(CheckpointError, match=r"has no model\.safetensors"):
        read_checkpoint(saved.folder)
    data = json.loads((saved.folder / CONFIG).read_text())
    (saved.folder / WEIGHTS).write_bytes(b"")
    (saved.folder / CONFIG).write_text(json.dumps({**data, "format": 99}))
    with pytest.raises(CheckpointError, match="format 99; this code reads 1, 2"):
        read_checkpoint(saved.folder)


def test_a_killed_save_leaves_the_old_checkpoint(saved: Checkpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(path: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "sync", killed)
    with pytest.raises(KeyboardInterrupt):
        save_checkpoint(saved.folder, tiny_model(seed=1).state_dict(), saved)
    monkeypatch.undo()
    assert read_checkpoint(saved.folder) == saved
    newer = save_checkpoint(saved.folder, tiny_model(seed=1).state_dict(), saved)
    assert newer.identifier != saved.identifier
    assert [p.name for p in saved.folder.parent.iterdir()] == ["nano"]


def test_other_folders_are_never_replaced(saved: Checkpoint, tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter1").touch()
    with pytest.raises(CheckpointError, match="is no checkpoint"):
        save_checkpoint(tmp_path / "thesis", tiny_model().state_dict(), saved)
    assert (tmp_path / "thesis" / "chapter1").exists()
