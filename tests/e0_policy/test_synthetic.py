from __future__ import annotations

import numpy as np

from e0_policy.embodiment import load_embodiment
from e0_policy.kinematics import tcp_position_m
from e0_policy.policy import PolicyOutput
from e0_policy.synthetic import COLOURS, MAX_STEP_RAD, SyntheticSource, draw_scene, draw_views, reach


def test_demonstrations_reach_the_named_dot_within_limits():
    source = SyntheticSource(20, seed=1)
    arm = load_embodiment("panda")
    assert {e.instruction for e in source.episodes} == {"reach the red dot", "reach the green dot"}
    for episode, scene in zip(source.episodes, source.scenes, strict=True):
        end = tcp_position_m(episode.actions[-1, :7])[:2]
        np.testing.assert_allclose(end, scene.dot_m(scene.target), atol=1e-9)
        assert episode.actions[-1, 7] == 0.0 and episode.actions[0, 7] == 1.0
        assert np.abs(np.diff(episode.actions[:, :7], axis=0)).max() <= MAX_STEP_RAD + 1e-9
        assert (episode.actions[:, :7] > arm.position_lower).all() and (
            episode.actions[:, :7] < arm.position_upper
        ).all()
        np.testing.assert_array_equal(episode.actions[:-1], episode.proprioception[1:])


def test_the_same_seed_draws_the_same_and_scenes_do_not_depend_on_their_number():
    few, many = SyntheticSource(2, seed=3), SyntheticSource(5, seed=3)
    for a, b in zip(few.episodes, many.episodes[:2], strict=True):
        np.testing.assert_array_equal(a.actions, b.actions)
    np.testing.assert_array_equal(few.images(1, 2)["base"], many.images(1, 2)["base"])


def test_both_dots_and_the_tool_are_in_the_picture():
    source = SyntheticSource(20, seed=2)
    for scene, episode in zip(source.scenes, source.episodes, strict=True):
        views = draw_views(scene, episode.proprioception[-1], 64)
        assert views["base"].shape == (64, 64, 3) and views["base"].dtype == np.uint8
        near = {c: np.abs(views["base"].astype(int) - rgb).max(-1) < 30 for c, rgb in COLOURS.items()}
        other = next(c for c in COLOURS if c != scene.target)
        assert near[other].sum() >= 10
        centre = views["wrist"][30:34, 30:34].reshape(-1, 3)
        assert (centre > 200).all(), "the tool is in the middle of the wrist view"
        ring = views["wrist"][32, 32 + 6]
        assert np.abs(ring.astype(int) - COLOURS[scene.target]).max() < 30, "the dot is under the tool at the end"


class Expert:
    """Steps towards the goal of one scene, or of the other dot."""

    embodiment, checkpoint, execution_horizon = "panda", "", 3

    def __init__(self, seed: int, wrong: bool) -> None:
        self.seed, self.wrong, self.stamps = seed, wrong, []

    def reset(self) -> None:
        self.stamps.clear()

    def infer(self, observation, plan):
        scene, _ = draw_scene(np.random.default_rng((self.seed, 1_000_000)))
        assert observation.instruction == scene.instruction and observation.views["base"].shape == (64, 64, 3)
        goal = scene.goals[({"red", "green"} - {scene.target}).pop() if self.wrong else scene.target]
        self.stamps.append(observation.stamp_ns)
        steps = np.clip(goal - observation.joint_positions, -MAX_STEP_RAD, MAX_STEP_RAD)
        rows = np.append(observation.joint_positions + steps, float(np.abs(steps).max() > 1e-6))
        return PolicyOutput(np.tile(rows, (4, 1)), 50_000_000)


def test_a_rollout_ends_at_the_dot_that_the_policy_goes_to():
    right, wrong = Expert(5, wrong=False), Expert(5, wrong=True)
    distance, gripper = reach(right, 5, steps=80)
    assert distance < 1e-6 and gripper == 0.0
    assert right.stamps[:3] == [0, 150_000_000, 300_000_000] and len(right.stamps) == 27
    assert reach(wrong, 5, steps=80)[0] > 0.1
