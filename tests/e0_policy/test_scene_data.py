from __future__ import annotations

import json
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from e0_policy.dataset import DatasetError
from e0_policy.scene_data import METRES, TARGETS, SceneData, targets_of
from e0_policy.transforms import resize_with_pad
from tests.e0_policy.drawn_scenes import LABELS, draw_scenes

angles = st.floats(-3.0, 3.0)


def quaternion(axis: int, angle: float) -> np.ndarray:
    q = np.zeros(4)
    q[axis], q[3] = np.sin(angle / 2), np.cos(angle / 2)
    return q


def scene(thing: np.ndarray, turn: np.ndarray, tool: np.ndarray, tool_turn: np.ndarray) -> dict[str, float]:
    labels = np.concatenate([thing, turn, [0.5, 0.1, 0.2, 0, 0, 0, 1], tool, tool_turn]).astype(np.float32)
    return dict(zip(TARGETS, targets_of(labels[None], LABELS)[0].tolist(), strict=True))


@settings(deadline=None)
@given(arrays(np.float64, 3, elements=st.floats(-1, 1)), arrays(np.float64, 3, elements=st.floats(-1, 1)), angles)
def test_a_tool_turned_about_the_vertical_sees_things_turned_back(thing, tool, angle):
    got = scene(thing, quaternion(2, 0.0), tool, quaternion(2, angle))
    c, s, (x, y, z) = np.cos(angle), np.sin(angle), thing - tool
    inside = [got[f"object_in_tool_{axis}"] for axis in "xyz"]
    assert inside == pytest.approx([c * x + s * y, c * y - s * x, z], abs=1e-5)
    assert [got[f"object_{axis}"] for axis in "xyz"] == pytest.approx(thing, abs=1e-6)


@given(angles, angles, st.integers(0, 3))
def test_a_quarter_turn_of_a_cube_is_no_turn(cube, tool, quarters):
    place = np.zeros(3)
    one = scene(place, quaternion(2, cube), place, quaternion(2, tool))
    other = scene(place, quaternion(2, cube + quarters * np.pi / 2), place, quaternion(2, tool))
    assert [one["turn_cos"], one["turn_sin"]] == pytest.approx([other["turn_cos"], other["turn_sin"]], abs=1e-4)
    assert one["turn_cos"] == pytest.approx(np.cos(4 * (cube - tool)), abs=1e-4)


def test_every_position_comes_before_the_turn():
    assert all(name[-2:] in ("_x", "_y", "_z") for name in TARGETS[:METRES])
    assert not any(name[-2:] in ("_x", "_y", "_z") for name in TARGETS[METRES:])


@pytest.mark.parametrize(("recorded", "side"), [(32, 32), (128, 64), (96, 64)])
def test_pictures_are_those_that_the_policy_sees(tmp_path, recorded, side):
    folder = draw_scenes(tmp_path / "s", 6, ("base", "wrist"), recorded)
    noise = np.random.default_rng(0).integers(0, 256, (6, recorded, recorded, 3), dtype=np.uint8)
    np.save(folder / "view_wrist.npy", noise)
    images = SceneData(folder, ("wrist", "base"), side).images(np.array([4, 1]))
    assert images.shape == (2, 2, 3, side, side)
    seen = np.rint((images[0, 0].numpy().transpose(1, 2, 0) + 1.0) * 127.5)
    off = np.abs(seen - resize_with_pad(noise[4], side).astype(float))
    assert off.max() <= 1.0 and (off > 0).mean() < 0.01


def test_a_folder_that_does_not_fit_is_refused(tmp_path):
    folder = draw_scenes(tmp_path / "s", 6)
    with pytest.raises(DatasetError, match=r"base, wrist; it lacks side"):
        SceneData(folder, ("base", "side"), 32)
    with pytest.raises(DatasetError, match=r"no index\.json"):
        SceneData(tmp_path, ("base",), 32)
    index = json.loads((folder / "index.json").read_text())
    (folder / "index.json").write_text(json.dumps({**index, "count": 7}))
    with pytest.raises(DatasetError, match=re.escape("index.json says uint8 (7, 32, 32, 3)")):
        SceneData(folder, ("base",), 32)
    (folder / "index.json").write_text(json.dumps({**index, "format": 2}))
    with pytest.raises(DatasetError, match="format 2; this version reads 1"):
        SceneData(folder, ("base",), 32)
    (folder / "index.json").write_text(json.dumps({**index, "labels": ["x", *LABELS[1:]]}))
    with pytest.raises(DatasetError, match="lack object_x"):
        SceneData(folder, ("base",), 32)


def test_a_label_that_is_no_number_is_refused():
    labels = np.zeros((3, len(LABELS)), np.float32)
    labels[1, 2] = np.nan
    with pytest.raises(DatasetError, match="scene 1 "):
        targets_of(labels, LABELS)
