from __future__ import annotations

import json
from pathlib import Path

import pytest

from e0_policy import steps_report
from e0_policy.checkpoint import Checkpoint, save_checkpoint
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
    save_checkpoint(path, model.state_dict(), Checkpoint(model.config, transform.to_json(), "panda", 50_000_000, 2))
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


def test_wrong_arguments_end_with_two(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert steps_report.main(["--checkpoint", str(tmp_path)]) == 2
    assert steps_report.main(["--checkpoint", str(folder), "--steps", "0"]) == 2
    assert steps_report.main(["--checkpoint", str(folder), "--data", str(tmp_path / "none")]) == 2
    assert "steps is 0" in capsys.readouterr().err
