from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from lerobot_folder import write_folder

from e0_policy import steps_report
from e0_policy.checkpoint import Checkpoint, load_model, read_checkpoint, save_checkpoint
from e0_policy.dataset import ChunkDataset
from e0_policy.lerobot_source import LeRobotSource
from e0_policy.model import E0Model
from e0_policy.synthetic import SyntheticSource
from e0_policy.train_config import TrainConfig
from e0_policy.train_setup import fit_transform
from tests.e0_policy.tiny import tiny_model


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint with random weights and the statistics of the drawn task."""
    model = tiny_model(action_dim=8, proprio_dim=8, vocab_size=320, max_text_tokens=16, bins=64)
    config = TrainConfig(model=model.config, constant_dimensions="hold")
    source = SyntheticSource(4, 0, model.config.image_size)
    transform = fit_transform(config, source, range(4))
    path = tmp_path_factory.mktemp("runs") / "checkpoint"
    what = transform.to_json(), "panda", 50_000_000, 2
    save_checkpoint(path, model.state_dict(), Checkpoint(model.config, *what))
    return path


def test_the_last_number_of_steps_is_the_reference(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "steps.json"
    words = ["--checkpoint", str(folder), "--steps", "1", "3", "--count", "6", "--json", str(path)]
    assert steps_report.main(words) == 0
    rows = json.loads(path.read_text())
    assert [row["steps"] for row in rows] == [1, 3]
    assert rows[1]["agreement"] == rows[1]["within_two"] == 1.0
    assert rows[0]["agreement"] < 1.0 and rows[0]["agreement"] <= rows[0]["within_two"]
    for row in rows:
        assert row["latency_ms"] > 0 and row["open_loop"]["samples"] == 6
        assert row["open_loop"]["joint_rad"] > 0 and row["open_loop"]["tcp_m"] > 0
    assert "joint mrad" in capsys.readouterr().out


def test_ways_of_decoding_are_compared_with_the_same_tokens(folder: Path, tmp_path: Path) -> None:
    """The last distribution is read in another way, so the open-loop error differs and no token does."""
    path = tmp_path / "steps.json"
    words = ["--checkpoint", str(folder), "--steps", "2", "--decode", "token", "expectation", "--count", "4"]
    assert steps_report.main([*words, "--json", str(path)]) == 0
    tokens, expected = json.loads(path.read_text())
    assert (tokens["decode"], expected["decode"]) == ("token", "expectation")
    assert tokens["agreement"] == 1.0
    assert tokens["open_loop"]["joint_rad"] != expected["open_loop"]["joint_rad"]


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LeRobotDataset as `e0 convert` writes it."""
    path = tmp_path_factory.mktemp("data") / "converted"
    write_folder(path, (6, 5, 8, 7), instructions=("reach the red dot", "reach the green dot"))
    return path


def test_a_converted_dataset_is_measured(
    folder: Path, converted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "steps.json"
    words = ["--checkpoint", str(folder), "--data", str(converted), "--steps", "1", "2", "--count", "4"]
    assert steps_report.main([*words, "--json", str(path)]) == 0
    rows = json.loads(path.read_text())
    assert [row["open_loop"]["samples"] for row in rows] == [4, 4] and rows[1]["agreement"] == 1.0
    assert all(row["open_loop"]["tcp_m"] > 0 for row in rows)
    assert "4 frames of 4 of 4 episodes" in capsys.readouterr().out


def test_only_what_the_training_held_out_is_measured(
    folder: Path,
    converted: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Whole takes, by name, whatever else has come to the data since."""
    measured: set[str] = set()

    def note(model: E0Model, dataset: ChunkDataset, indices: list[int], *_: object) -> list[object]:
        measured.update(dataset.where(i)[0].identifier for i in range(len(dataset)))
        return []

    monkeypatch.setattr(steps_report, "compare_steps", note)
    names = [episode.identifier for episode in LeRobotSource(converted).episodes]
    words = ["--checkpoint", str(folder), "--data", str(converted), "--held-out"]
    assert steps_report.main(words) == 2
    assert "the checkpoint tells nothing of what was held out" in capsys.readouterr().err
    found = read_checkpoint(folder)
    told = replace(found, training={"held_out": [names[1], names[2], "gone"]})
    save_checkpoint(tmp_path / "told", load_model(found, "cpu").state_dict(), told)
    assert steps_report.main([*words, "--checkpoint", str(tmp_path / "told")]) == 0
    assert measured == {names[1], names[2]}
    assert "of 2 of 4 episodes" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("told", "message"),
    [
        ({"embodiment": "fr3"}, "embodiment of .* is fr3; the checkpoint was trained on panda"),
        ({"period_ns": 100_000_000}, "period_ns of .* is 100000000; the checkpoint was trained on 50000000"),
        (
            {"representation": "ee_delta_step"},
            "rows of .* is ee_delta_step; the checkpoint was trained on joint_position",
        ),
    ],
)
def test_demonstrations_that_are_not_for_the_checkpoint_are_refused(
    folder: Path,
    converted: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    told: dict[str, Any],
    message: str,
) -> None:
    other = shutil.copytree(converted, tmp_path / "other")
    own = other / "meta" / "e0.json"
    own.write_text(json.dumps({**json.loads(own.read_text()), **told}))
    assert steps_report.main(["--checkpoint", str(folder), "--data", str(other)]) == 2
    assert re.search(message, capsys.readouterr().err)


def test_wrong_arguments_end_with_two(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert steps_report.main(["--checkpoint", str(tmp_path)]) == 2
    assert steps_report.main(["--checkpoint", str(folder), "--steps", "0"]) == 2
    assert steps_report.main(["--checkpoint", str(folder), "--data", str(tmp_path / "none")]) == 2
    assert "steps is 0" in capsys.readouterr().err
