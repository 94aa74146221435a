"""What a policy would have planned beside what was done: one that knows makes no error, one that stays put does."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from e0_policy.policy import PolicyOutput
from e0_policy.types import Observation, Representation
from e0_ros import replay_command
from e0_ros.core.bag_reader import Bag
from e0_ros.core.shadow import ShadowError, recorded_shadow, run_shadow
from e0_ros.policies import Card
from e0_ros.synthetic_episode import MS, START_NS, SyntheticEpisode

EPISODE = SyntheticEpisode(seconds=1.5, joint_hz=100.0, size=16, lockstep=True)
ROWS = 8


class Pupil:
    """Plans what the episode's own source did, or that the arm stays where it is."""

    embodiment, checkpoint, execution_horizon = "fr3", "", 5
    representation = Representation.JOINT_POSITION

    def __init__(self, knows: bool) -> None:
        self.knows, self.seen = knows, []

    def reset(self) -> None:
        self.seen = []

    def infer(self, observation: Observation, plan: object) -> PolicyOutput:
        assert plan is None
        self.seen.append(observation)
        times = observation.stamp_ns + 50 * MS * np.arange(ROWS)
        here = np.append(observation.joint_positions, observation.gripper_opening)
        rows = np.array([EPISODE.row(int(t)) if self.knows else here for t in times])
        return PolicyOutput(rows, 50 * MS, self.representation)


@pytest.fixture(scope="module")
def bag(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("bags")
    EPISODE.write(root)
    return root / EPISODE.name


def test_who_plans_what_was_done_makes_no_error(bag: Path) -> None:
    pupil = Pupil(knows=True)
    errors = run_shadow(Bag(bag), pupil, "commanded").errors()
    assert [round((o.stamp_ns - START_NS) / MS) for o in pupil.seen] == list(range(0, 1501, 250))
    assert {(o.instruction, o.embodiment, tuple(o.views)) for o in pupil.seen} == {
        (EPISODE.instruction, "fr3", EPISODE.views)
    }
    np.testing.assert_allclose(errors.mean_rad, 0.0, atol=1e-6)
    np.testing.assert_allclose(errors.opening, 0.0, atol=1e-6)
    assert errors.still_rad.min() > 1e-3
    np.testing.assert_array_equal(errors.ahead_ms, 50.0 * np.arange(ROWS))
    assert errors.plans[0] == 7 and errors.plans[-1] == 5, "rows beyond the episode's end are not judged"


@pytest.mark.parametrize("action", ["commanded", "measured_next"])
def test_who_stays_put_is_as_far_off_as_staying_put(bag: Path, action: str) -> None:
    errors = run_shadow(Bag(bag), Pupil(knows=False), action).errors()
    np.testing.assert_allclose(errors.mean_rad, errors.still_rad, atol=1e-9)
    assert (np.diff(errors.mean_rad[:6]) > 0).all(), "the further ahead, the further off"


def test_who_does_not_fit_is_told_why(bag: Path) -> None:
    other, ends = Pupil(knows=False), Pupil(knows=False)
    other.embodiment = "panda"
    ends.representation = Representation.EE_POSE
    with pytest.raises(ShadowError, match="the bag is of fr3, the policy for panda"):
        run_shadow(Bag(bag), other, "commanded")
    with pytest.raises(ShadowError, match="joint positions are compared"):
        run_shadow(Bag(bag), ends, "commanded")
    with pytest.raises(ShadowError, match="nothing that was done by signal teleop"):
        run_shadow(Bag(bag), Pupil(knows=False), "teleop")


def test_the_command_prints_a_table_and_writes_plot_and_figures(bag: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    card = Card("w", "c", "fr3", EPISODE.views, 16, 5)
    monkeypatch.setattr(replay_command, "read_card", lambda *_: card)
    monkeypatch.setattr(replay_command, "load_checkpoint", lambda *_, **__: Pupil(knows=True))
    words = [
        "--shadow",
        str(bag),
        "--checkpoint",
        "c",
        "--plot",
        str(tmp_path / "a.svg"),
        "--json",
        str(tmp_path / "a"),
    ]
    assert replay_command.main(words) == 0
    assert "350 ms  0.0000 rad" in capsys.readouterr().out
    assert (tmp_path / "a.svg").read_text().count('class="p"') == 7 * 8
    assert json.loads((tmp_path / "a").read_text())["mean_rad"][0] < 1e-6
    monkeypatch.setattr(replay_command, "read_card", lambda *_: replace(card, views=("top",)))
    assert replay_command.main(words) == 1
    assert "no image of view 'top'" in capsys.readouterr().err


def test_the_plans_of_a_policy_that_watched_are_compared_without_it(bag: Path, tmp_path: Path, capsys) -> None:
    with pytest.raises(ShadowError, match="no policy watched this take"):
        recorded_shadow(Bag(bag), "commanded")
    for lockstep in (True, False):
        watched = replace(EPISODE, name=f"watched{lockstep}".lower(), lockstep=lockstep, watched=True, seconds=3.0)
        watched.write(tmp_path)
        shadow = recorded_shadow(Bag(tmp_path / watched.name), "commanded")
        assert shadow.predicted.shape == (len(shadow.stamps_ns), 20, 8) and len(shadow.stamps_ns) >= 4
        errors = shadow.errors()
        assert errors.mean_rad[:8].max() < 0.006 and errors.still_rad[8] > 0.02
    words = ["--shadow", str(tmp_path / watched.name), "--json", str(tmp_path / "f")]
    assert replay_command.main(words) == 0
    assert json.loads((tmp_path / "f").read_text())["checkpoint"] == "as recorded"
    assert "plans beside what was done" in capsys.readouterr().out
