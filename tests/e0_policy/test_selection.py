from __future__ import annotations

import numpy as np
import pytest

from e0_policy.dataset import DatasetError, Episode, gather
from e0_policy.selection import idle_words, mixed, with_instructions, without_idle
from e0_policy.types import ImageArray, Representation


class Numbered:
    """Images hold `first + 10 * episode + frame`; each source has views of its own."""

    embodiment, period_ns = "panda", 50_000_000
    proprioception_names = action_names = ("joint", "gripper")
    representation = Representation.JOINT_POSITION

    def __init__(self, first: int, lengths: tuple[int, ...], views: tuple[str, ...] = ("base",), text: str = "pick"):
        self.first, self.views = first, views
        self.episodes = []
        for e, n in enumerate(lengths):
            table = np.stack([first + np.arange(n + 1) * 0.1, np.zeros(n + 1)], 1)
            self.episodes.append(Episode(f"{first}-{e}", f"{text} {e}", table[:-1], table[1:]))

    def images(self, episode: int, frame: int) -> dict[str, ImageArray]:
        return {view: np.full((8, 8, 3), self.first + 10 * episode + frame, np.uint8) for view in self.views}


def test_several_sources_are_one_with_their_own_images_and_views():
    both = mixed([Numbered(0, (3, 2)), Numbered(100, (4,), ("wrist", "base"), "push")], ["a", "b"])
    assert both.views == ("base", "wrist")
    assert [(e.identifier, e.instruction, len(e)) for e in both.episodes] == [
        ("0-0", "pick 0", 3), ("0-1", "pick 1", 2), ("100-0", "push 0", 4),
    ]  # fmt: skip
    assert both.images(2, 3)["wrist"][0, 0, 0] == 103
    images, present = gather(both, ("wrist", "base"), np.array([2, 0, 1, 2]), np.array([1, 2, 0, 3]), 4)
    assert images[:, 1, 0, 0, 0].tolist() == [101, 2, 10, 103] and images.shape == (4, 2, 4, 4, 3)
    assert present.tolist() == [[True, True], [False, True], [False, True], [True, True]]
    assert images[:, 0, 0, 0, 0].tolist() == [101, 0, 0, 103]


def test_sources_that_differ_are_not_mixed():
    other = Numbered(1, (2,))
    other.period_ns = 100_000_000
    with pytest.raises(DatasetError, match="a has period_ns 50000000, b has 100000000; they cannot be mixed"):
        mixed([Numbered(0, (2,)), other], ["a", "b"])
    stepped = Numbered(1, (2,))
    stepped.representation = Representation.EE_DELTA_STEP
    with pytest.raises(DatasetError, match="a has representation joint_position, b has ee_delta_step; they cannot"):
        mixed([Numbered(0, (2,)), stepped], ["a", "b"])
    alone = Numbered(0, (2,))
    assert mixed([alone], ["a"]) is alone


def test_episodes_are_chosen_by_instruction():
    both = mixed([Numbered(0, (3, 2)), Numbered(100, (4,), text="Push")], ["a", "b"])
    chosen = with_instructions(both, ["push *", "pick 1"])
    assert [e.instruction for e in chosen.episodes] == ["pick 1", "Push 0"]
    assert [int(chosen.images(e, 1)["base"][0, 0, 0]) for e in (0, 1)] == [11, 101]
    with pytest.raises(DatasetError, match="no episode has an instruction like 'pusch 0'; the closest is 'Push 0'"):
        with_instructions(both, ["pick*", "pusch 0"])


def test_idle_frames_are_left_out_with_their_images():
    source = Numbered(0, (6,))
    table = source.episodes[0]
    actions = table.actions.copy()
    actions[2] = actions[1] + [0.001, 0.0]
    actions[3] = actions[2] + [0.001, 1.0]
    source.episodes[0] = Episode("e0", "do 0", table.proprioception, actions)
    moving = without_idle(mixed([source], ["a"]), (True, False), 0.01)
    assert len(moving.episodes[0]) == 5
    assert [int(moving.images(0, t)["base"][0, 0, 0]) for t in range(5)] == [0, 1, 3, 4, 5]
    np.testing.assert_array_equal(moving.episodes[0].actions, actions[[0, 1, 3, 4, 5]])
    images, _ = gather(moving, ("base",), np.array([0, 0]), np.array([4, 2]), 8)
    assert images[:, 0, 0, 0, 0].tolist() == [5, 3]


def test_slow_motion_that_is_taken_for_rest_is_told():
    slow, source = np.r_[np.linspace(0, 0.1, 11), 0.1 + 0.0019 * np.arange(1, 101), 0.3], Numbered(0, (112,))
    table = np.stack([slow, np.ones(112)], 1)
    source.episodes[0] = Episode("e0", "do 0", table, table)
    said = idle_words(without_idle(source, (True, False), 0.002), (True, False), 0.002)
    assert said.startswith("warning: 100 of 112 frames are left out as idle; at most 0.19 rad")
    assert said.endswith("lower drop_idle_rad, which is 0.002")
    table[11:111, 0] = 0.1
    said = idle_words(without_idle(source, (True, False), 0.002), (True, False), 0.002)
    assert said == "100 of 112 frames are left out as idle; at most 0 rad are moved over between two frames"
    assert idle_words(source, (True, False), 0.002) == ""
