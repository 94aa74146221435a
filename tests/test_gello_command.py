"""`e0 gello calibrate` and `show` against the fake leader."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("dynamixel_sdk", reason="dynamixel-sdk is not installed")

from e0_policy.embodiment import load_embodiment
from e0_policy.resources import config_dir
from e0_ros import dynamixel, gello_command
from e0_ros.cli import main
from e0_ros.core.gello_geometry import calibration_text, load_calibration
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


@pytest.mark.parametrize("out", ["calib/by/me.yaml", "taken/me.yaml", "calib"])
def test_who_cannot_keep_a_calibration_is_told_before_any_question(monkeypatch, leader, tmp_path, capsys, out):
    """A folder that is not there is made; a file in its place, or a folder in the file's, is refused."""
    (tmp_path / "taken").touch()
    (tmp_path / "calib").mkdir()
    asked, file = list[str](), tmp_path / "file.yaml"
    file.write_text(calibration_text(replace(SHIPPED, gripper_id=0)))
    monkeypatch.setattr("builtins.input", lambda prompt: asked.append(prompt) or "")
    words = ["--calibration", str(file), "--out", str(tmp_path / out), "--signs", *map(str, SHIPPED.signs), *POSE]
    good = out == "calib/by/me.yaml"
    assert main(["gello", "calibrate", "--port", leader.port, *words]) == (0 if good else 2) and bool(asked) == good
    assert (tmp_path / "calib" / "by" / "me.yaml").is_file() == good
    assert good or "e0 gello calibrate: --out: " in capsys.readouterr().err


class Hand:
    """A person at the prompts, who turns every joint as asked and squeezes nothing."""

    def __init__(self, fake: FakeGello) -> None:
        self.asked, self._fake = [], fake

    def __call__(self, prompt: str) -> str:
        self.asked.append(prompt)
        if (joint := re.match(r"Turn joint (\d)", prompt)) is not None:
            self.turn(int(joint.group(1)) - 1)
        return ""

    def turn(self, joint: int) -> None:
        self._fake.jump(joint, 0.3)


@pytest.mark.parametrize("flipped", [(), (1,), (0, 3, 6)])
def test_wrong_signs_of_the_file_are_put_right_by_a_turn_of_each_joint(monkeypatch, leader, tmp_path, capsys, flipped):
    """At this pose a wrong sign moves the offset by half a turn and no more: nothing else would tell."""
    hand, out, file = Hand(leader), tmp_path / "g.yaml", tmp_path / "wrong.yaml"
    monkeypatch.setattr("builtins.input", hand)
    wrong = tuple(-s if i in flipped else s for i, s in enumerate(SHIPPED.signs))
    file.write_text(calibration_text(replace(SHIPPED, gripper_id=0, signs=wrong)))
    assert (
        main(["gello", "calibrate", "--port", leader.port, "--calibration", str(file), "--out", str(out), *POSE]) == 0
    )
    found = load_calibration(out)
    assert found.signs == ASSEMBLED.signs
    np.testing.assert_allclose(found.offsets_rad, ASSEMBLED.offsets_rad, atol=1e-9)
    said = capsys.readouterr().out
    assert len(hand.asked) == 8 and "counter-clockwise as seen from above" in hand.asked[1]
    assert [f"joint {i + 1}: servo {i + 1} went by" in said for i in range(7)] == [True] * 7
    assert [int(n) - 1 for n in re.findall(r"joint (\d): servo \d .*, not [+-]1 as it was", said)] == list(flipped)


def test_a_turn_of_the_wrong_joint_is_told_and_asked_for_again(monkeypatch, leader, tmp_path, capsys):
    class Clumsy(Hand):
        def turn(self, joint: int) -> None:
            self._fake.jump(5 if len(self.asked) == 2 else joint, 0.0 if len(self.asked) == 4 else 0.3)

    hand, file = Clumsy(leader), tmp_path / "file.yaml"
    monkeypatch.setattr("builtins.input", hand)
    file.write_text(calibration_text(replace(SHIPPED, gripper_id=0)))
    words = ["--calibration", str(file), "--out", str(tmp_path / "g.yaml"), *POSE]
    assert main(["gello", "calibrate", "--port", leader.port, *words]) == 0
    said = capsys.readouterr().out
    assert "joint 6 turned, by 0.30 rad; turn joint 1" in said and "no joint turned by more than" in said
    assert len(hand.asked) == 10 and load_calibration(tmp_path / "g.yaml").signs == ASSEMBLED.signs


def test_given_signs_are_taken_and_said_to_be_unseen(leader, tmp_path, capsys):
    """Wrong ones fit the pose as well as right ones."""
    for signs in (ASSEMBLED.signs, tuple(-s for s in ASSEMBLED.signs)):
        out, given = tmp_path / "g.yaml", [str(sign) for sign in signs]
        words = ["--port", leader.port, "--out", str(out), "--yes", "--signs", *given, *POSE]
        assert main(["gello", "calibrate", *words]) == 0
        assert load_calibration(out).signs == signs
        assert "the signs were not seen" in capsys.readouterr().out


@pytest.fixture
def slow_leader(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeGello]:
    """A leader from the factory; whoever asks at a rate that nobody hears does not wait long."""
    with FakeGello(FakeConfig(still_s=1e6), replace(ASSEMBLED, baud_rate=57600)) as fake:

        def patient(port: str, baud_rate: int, ids: tuple[int, ...]) -> dynamixel.LeaderBus:
            heard = baud_rate in {fake.servos.baud_rate(i) for i in ids}
            return dynamixel.LeaderBus(port, baud_rate, ids, patience_s=2.0 if heard else 0.05)

        monkeypatch.setattr(gello_command, "LeaderBus", patient)
        yield fake


def test_baud_sets_every_servo_and_sees_it_answer(slow_leader, tmp_path, capsys):
    words, servos = ["gello", "baud", "--port", slow_leader.port], slow_leader.servos
    assert main([*words, "--baud-rate", "115200", "--to", "1000000"]) == 1
    assert "at 115200 baud: servo 1, 2, 3, 4, 5, 6, 7, 8 does not answer" in capsys.readouterr().err
    assert {servos.baud_rate(i) for i in SHIPPED.ids} == {57600}
    assert main([*words, "--to", "1000000"]) == 0
    assert {servos.baud_rate(i) for i in SHIPPED.ids} == {1000000} and not servos.torque(1)
    assert "8 were told" in capsys.readouterr().out
    out = tmp_path / "g.yaml"
    calibrate = ["gello", "calibrate", "--port", slow_leader.port, "--out", str(out), "--yes", *POSE]
    assert main([*calibrate, "--baud-rate", "57600"]) == 1
    assert main([*calibrate, "--baud-rate", "1000000"]) == 0 and load_calibration(out).baud_rate == 1000000


def test_baud_goes_on_where_it_was_broken_off(slow_leader, monkeypatch, capsys):
    words, servos = ["gello", "baud", "--port", slow_leader.port, "--to", "1000000"], slow_leader.servos
    servos.silent = {8}
    assert main(words) == 1 and "servo 8 does not answer" in capsys.readouterr().err
    servos.silent = set()
    assert main(words) == 0 and {servos.baud_rate(i) for i in SHIPPED.ids} == {1000000}


def test_no_leader_is_said_plainly(capsys):
    assert main(["gello", "show", "--port", "/dev/nowhere"]) == 1
    assert "/dev/nowhere cannot be opened" in capsys.readouterr().err
