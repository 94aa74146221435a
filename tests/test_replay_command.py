"""`e0 replay` with policies of others, which do not say whose arm they drive, and with a checkpoint that is damaged."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from e0_ros.cli import main
from e0_ros.synthetic_episode import SyntheticEpisode

SHIPPED = Path(__file__).resolve().parents[1] / "config" / "checkpoint" / "pick_push"
FRAMES = 21


@pytest.fixture(scope="module")
def bag(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return SyntheticEpisode(seconds=1.0, joint_hz=100.0, size=16, lockstep=True).write(tmp_path_factory.mktemp("bags"))


def test_a_policy_of_others_drives_the_bags_arm_and_sees_as_far_back_as_it_looks(bag: Path, tmp_path: Path) -> None:
    pytest.importorskip("msgpack", reason="msgpack is not installed (extra [remote])")
    pytest.importorskip("websockets", reason="websockets is not installed (extra [remote])")
    from tests.e0_policy.policy_servers import serving

    asked: list[Mapping[str, Any]] = []

    def stay(request: Mapping[str, Any]) -> dict[str, Any]:
        asked.append(request)
        return {"actions": np.tile(request["observation/state"][-1], (8, 1))}

    with serving(stay) as address:
        words = ["replay", "--shadow", str(bag), "--checkpoint", address, "--plot", str(tmp_path / "a.svg")]
        own = ["--set", "name=pi05", "--set", "execution_horizon=5", "--set", "observations=2"]
        assert main([*words, *own, "--json", str(tmp_path / "figures.json")]) == 0
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert figures["checkpoint"] == "pi05" and len(asked) == 1 + (FRAMES - 1) // 5
    np.testing.assert_allclose(figures["mean_rad"], figures["still_rad"], atol=1e-6)
    states = np.array([request["observation/state"] for request in asked])
    assert states.shape == (len(asked), 2, 8)
    moved = np.abs(np.diff(states, axis=1)).max(axis=(1, 2))
    assert moved[0] == 0.0 and (moved[1:] > 0.0).all(), "the first frame of an episode stands for those before it"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--checkpoint", "ws://127.0.0.1:9", "--set", "start_s=0.0"], "cannot be reached"),
        (["--checkpoint", "ws://127.0.0.1:9", "--set", "perod_ms=50"], "did you mean 'period_ms'"),
        (["--checkpoint", "ws://127.0.0.1:9", "--set", "period_ms"], "NAME=VALUE is needed"),
        (["--set", "steps=2"], "it needs --checkpoint"),
    ],
)
def test_a_server_or_setting_that_is_wrong_is_told_in_one_line(bag: Path, words: list[str], said: str, capsys) -> None:
    pytest.importorskip("websockets", reason="websockets is not installed (extra [remote])")
    assert main(["replay", "--shadow", str(bag), *words]) == 2
    told = capsys.readouterr().err.strip()
    assert told.startswith("e0 replay: ") and said in told and "\n" not in told


def test_a_damaged_checkpoint_is_told_in_one_line(bag: Path, tmp_path: Path, capsys) -> None:
    pytest.importorskip("torch", reason="torch is not installed (extra [policy])")
    shutil.copytree(SHIPPED, tmp_path / "pick_push")
    with (tmp_path / "pick_push" / "model.safetensors").open("r+b") as weights:
        weights.truncate(1000)
    assert main(["replay", "--shadow", str(bag), "--checkpoint", str(tmp_path / "pick_push")]) == 2
    told = capsys.readouterr().err.strip()
    assert "has 1000 bytes" in told and "\n" not in told
