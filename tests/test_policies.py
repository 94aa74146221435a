from __future__ import annotations

import json
from dataclasses import replace

import pytest

from e0_policy.types import Representation
from e0_ros.config import ConfigError
from e0_ros.policies import check_rows, load_checkpoint, read_card

DATA = {
    "weights_sha256": "ab" * 32,
    "sha256": "cd" * 32,
    "embodiment": "panda",
    "execution_horizon": 4,
    "model": {"views": ["base", "side", "wrist"], "image_size": 64},
    "training": {},
    "transform": {"actions": {"names": ["dx", "gripper"]}},
}


def write(folder, data=DATA):
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(data))
    return folder


def test_a_card_tells_what_the_checkpoint_was_trained_on(tmp_path):
    card = read_card(write(tmp_path))
    assert (card.views, card.image_px, card.embodiment) == (("base", "side", "wrist"), 64, "panda")
    assert (card.identifier, card.execution_horizon) == ("ab" * 8, 4)
    assert read_card(write(tmp_path, {**DATA, "training": {"image_px": 128}})).image_px == 128


def test_rows_that_a_robot_does_not_take_are_refused_with_both_sides(tmp_path):
    joints, steps = read_card(write(tmp_path)), read_card(write(tmp_path, {**DATA, "representation": "ee_delta_step"}))
    assert (joints.representation, steps.representation) == (
        Representation.JOINT_POSITION,
        Representation.EE_DELTA_STEP,
    )
    check_rows(joints, (), "graph franka")
    check_rows(steps, ("dx", "gripper"), "simulator a")
    check_rows(replace(steps, action_names=()), ("dx", "gripper"), "simulator a")
    for card, names, text in (
        (joints, ("dx", "gripper"), r"predicts joint_position \(dx, gripper\); x takes ee_delta_step \(dx, gripper\)"),
        (steps, (), r"predicts ee_delta_step \(dx, gripper\); x takes joint_position or ee_pose"),
        (steps, ("dy", "gripper"), r"ee_delta_step \(dx, gripper\); x takes ee_delta_step \(dy, gripper\)"),
    ):
        with pytest.raises(ConfigError, match=text):
            check_rows(card, names, "x")


def test_what_is_no_checkpoint_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="holds no checkpoint"):
        read_card(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match="is not the configuration of an E0 checkpoint: KeyError: 'model'"):
        read_card(write(tmp_path, {"training": {}}))
    with pytest.raises(ConfigError, match="needs an existing checkpoint"):
        load_checkpoint("")


def test_a_card_agrees_with_a_checkpoint_as_it_is_saved(tmp_path):
    pytest.importorskip("torch", reason="torch is not installed (extra [policy])")
    from tests.e0_policy.tiny import tiny_checkpoint

    card = read_card(tiny_checkpoint(tmp_path / "tiny"))
    policy = load_checkpoint(str(tmp_path / "tiny"), "cpu", {"steps": 2, "threads": 1})
    assert (card.identifier, card.embodiment) == (policy.checkpoint, policy.embodiment)
    assert (card.representation, card.action_names[-1]) == (Representation.JOINT_POSITION, "gripper")
    assert (card.execution_horizon, card.views, card.image_px) == (policy.execution_horizon, ("base", "wrist"), 32)
