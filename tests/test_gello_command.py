"""`e0 gello calibrate` and `show` against the fake leader."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("dynamixel_sdk", reason="dynamixel-sdk is not installed")

from e0_policy.embodiment import load_embodiment
from e0_policy.resources import config_dir
from e0_ros import dynamixel, gello_command
from e0_ros.cli import main
from e0_ros.core.gello_geometry import load_calibration
from sim.fake_gello import FakeConfig, FakeGello

SHIPPED = load_calibration(config_dir() / "gello.yaml")
HOME = load_embodiment("fr3").home
POSE = ["--pose", *(f"{q:.6f}" for q in HOME)]
ASSEMBLED = replace(SHIPPED, offsets_rad=tuple(np.array([0, 1, 2, 3, 2, 1, 0]) * np.pi / 2))


@pytest.fixture
def leader(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeGello]:
    def patient(port: str, baud_rate: int, ids: tuple[int, ...]) -> dynamixel.LeaderBus:
        return dynamixel.LeaderBus(port, baud_rate, ids, patience_s=2.0)

    monkeypatch.setattr(gello_command, "LeaderBus", patient)
    with FakeGello(FakeConfig(still_s=1e6, turns=3), ASSEMBLED) as fake:
        yield fake


def test_calibrates_and_shows_the_pose(leader, tmp_path, capsys):
    out, figures = tmp_path / "g.yaml", tmp_path / "f.json"
    assert main(["gello", "calibrate", "--port", leader.port, "--out", str(out), "--yes", *POSE]) == 0
    found = load_calibration(out)
    np.testing.assert_allclose(found.offsets_rad, ASSEMBLED.offsets_rad, atol=1e-9)
    assert found.port == leader.port
    words = ["gello", "show", "--calibration", str(out), "--seconds", "0.5", "--json", str(figures)]
    assert main(words) == 0
    shown = json.loads(figures.read_text())
    np.testing.assert_allclose(shown["joints_rad"], HOME, atol=0.01)
    assert shown["opening"] > 0.97
    assert "readings/s" in capsys.readouterr().out


def test_a_joint_away_from_the_pose_is_named_and_nothing_is_written(leader, tmp_path, capsys):
    leader.jump(4, 0.6)
    out = tmp_path / "g.yaml"
    assert main(["gello", "calibrate", "--port", leader.port, "--out", str(out), "--yes", *POSE]) == 1
    assert "joint 5 (+0.60 rad) is not at the pose" in capsys.readouterr().err
    assert not out.exists()


def test_no_leader_is_said_plainly(capsys):
    assert main(["gello", "show", "--port", "/dev/nowhere"]) == 1
    assert "/dev/nowhere cannot be opened" in capsys.readouterr().err
