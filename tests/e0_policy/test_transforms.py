from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from e0_policy.action_tokenizer import ActionTokenizer
from e0_policy.normalization import NormalizationError, Normalizer
from e0_policy.text_tokenizer import Prompt, TextTokenError, WordTokenizer
from e0_policy.transforms import DeltaActions, PadActions, PolicyTransform, TransformError, resize_with_pad

NAMES = ("j1", "j2", "gripper")
PROPRIO = np.array([0.3, -0.4, 1.0])


def make_transform(rows: int = 4, per_row: bool = False) -> PolicyTransform:
    low, high = np.array([-0.5, -0.5, 0.0]), np.array([0.5, 0.5, 1.0])
    if per_row:
        scale = np.arange(1, rows + 1)[:, None] * np.array([0.1, 0.2, 0.0]) + np.array([0.0, 0.0, 1.0])
        low, high = -scale * [1, 1, 0], scale
    return PolicyTransform(
        views=("base", "wrist"),
        image_size=16,
        prompt=Prompt(WordTokenizer.fit(["reach the red dot"]), 8),
        proprioception=Normalizer("quantile", NAMES, np.array([-1.0, -1.0, 0.0]), np.array([1.0, 1.0, 1.0])),
        proprio_dim=4,
        actions=Normalizer("quantile", NAMES, low, high),
        relative=(True, True, False),
        action_dim=5,
        prediction_horizon=rows,
        tokenizer=ActionTokenizer(256),
    )


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 4), st.booleans())
def test_rows_survive_the_round_trip_within_half_a_bin(seed, count, per_row):
    transform = make_transform(per_row=per_row)
    rng = np.random.default_rng(seed)
    limits = transform.actions.high - transform.actions.low
    values = transform.actions.low + rng.random((4, 3)) * limits
    rows = values[:count] + np.array([0.3, -0.4, 0.0])
    before = rows.copy(), PROPRIO.copy()
    targets = transform.targets(rows, PROPRIO)
    back = transform.rows(targets.tokens, PROPRIO)
    half_bin = np.broadcast_to(limits, (4, 3)) / 2 / 256
    assert (np.abs(back[:count] - rows) <= half_bin[:count] + 1e-12).all()
    assert targets.clipped == 0 and targets.mask.sum() == count * 3
    assert not targets.mask[:, 3:].any() and not targets.mask[count:].any()
    np.testing.assert_array_equal(rows, before[0])
    np.testing.assert_array_equal(PROPRIO, before[1])


def test_the_gripper_is_absolute_and_joints_are_relative():
    transform = make_transform()
    rows = np.array([[0.3, -0.4, 0.0], [0.8, -0.4, 1.0]])
    tokens = transform.targets(rows, PROPRIO).tokens
    assert tokens[0].tolist()[:3] == [128, 128, 0] and tokens[1].tolist()[:3] == [255, 128, 255]
    elsewhere = transform.rows(tokens, PROPRIO + np.array([0.1, 0.0, -1.0]))
    np.testing.assert_allclose(elsewhere - transform.rows(tokens, PROPRIO), [[0.1, 0, 0]] * 4, atol=1e-12)


def test_rows_behind_the_end_of_an_episode_are_masked_and_clipping_counts_real_values():
    transform = make_transform()
    rows = np.array([[9.0, 0.0, 0.0], [0.0, 0.0, 0.0], [9.0, 0.0, 0.0]])
    targets = transform.targets(rows, PROPRIO, np.array([True, True, False]))
    assert targets.clipped == 1 and targets.mask[:, 0].tolist() == [True, True, False, False]


def test_inputs_have_the_models_shapes_and_mask_a_missing_view():
    transform = make_transform()
    views = {"wrist": np.full((32, 32, 3), 200, np.uint8), "unknown": np.zeros((4, 4, 3), np.uint8)}
    got = transform.inputs(views, PROPRIO, "reach the red dot")
    assert got.images.shape == (2, 16, 16, 3) and got.images.dtype == np.uint8
    assert got.view_mask.tolist() == [False, True]
    assert (got.images[0] == 0).all() and (got.images[1] == 200).all()
    assert got.text_tokens.shape == (8,) and got.text_mask.sum() == 5
    np.testing.assert_allclose(got.proprio, [0.3, -0.4, 1.0, 0.0])


def test_json_round_trip_gives_the_same_transform():
    transform = make_transform(per_row=True)
    back = PolicyTransform.from_json(json.loads(json.dumps(transform.to_json())))
    rng = np.random.default_rng(0)
    tokens = rng.integers(0, 256, (4, 5))
    np.testing.assert_array_equal(back.rows(tokens, PROPRIO), transform.rows(tokens, PROPRIO))
    assert back.to_json() == transform.to_json()
    with pytest.raises(TransformError, match="lacks 'bins'"):
        PolicyTransform.from_json({k: v for k, v in transform.to_json().items() if k != "bins"})


def test_bad_input_names_both_sides():
    transform = make_transform()
    image = np.zeros((16, 16, 3), np.uint8)
    with pytest.raises(TransformError, match="views are side; the model needs base, wrist"):
        transform.inputs({"side": image}, PROPRIO, "x")
    with pytest.raises(TransformError, match=r"'base' is float32 \(16, 16, 3\); needed is uint8"):
        transform.inputs({"base": image.astype(np.float32)}, PROPRIO, "x")
    with pytest.raises(TransformError, match=r"'wrist' is uint8 \(3, 16, 16\)"):
        transform.inputs({"wrist": image.transpose(2, 0, 1)}, PROPRIO, "x")
    with pytest.raises(NormalizationError, match="j2 is nan"):
        transform.inputs({"base": image}, np.array([0.0, np.nan, 0.0]), "x")
    with pytest.raises(TextTokenError, match="the model takes 8"):
        transform.inputs({"base": image}, PROPRIO, "an instruction that nobody has seen")
    with pytest.raises(TransformError, match=r"\(5, 3\); allowed is \(1\.\.4, 3\)"):
        transform.targets(np.zeros((5, 3)), PROPRIO)
    with pytest.raises(NormalizationError, match="j1 is nan"):
        transform.targets(np.full((1, 3), np.nan), PROPRIO)
    with pytest.raises(TransformError, match=r"tokens \(4, 3\); needed is \(4, 5\)"):
        transform.rows(np.zeros((4, 3), np.int64), PROPRIO)
    with pytest.raises(TransformError, match="3 action columns for a model with 2"):
        replace(transform, action_dim=2)
    with pytest.raises(TransformError, match=r"horizon 5 for action statistics of shape \(4, 3\)"):
        replace(make_transform(per_row=True), prediction_horizon=5)
    with pytest.raises(TransformError, match="model that takes 2 numbers"):
        replace(transform, proprio_dim=2)
    with pytest.raises(TransformError, match="need 2 columns"):
        DeltaActions((True, False)).forward(np.zeros((4, 3)), PROPRIO)
    with pytest.raises(TransformError, match="3 columns are needed"):
        PadActions(3, 5).forward(np.zeros((4, 4)), PROPRIO)


@pytest.mark.parametrize(("height", "width", "side"), [(48, 64, 16), (64, 48, 24), (7, 5, 16), (30, 30, 30), (9, 9, 4)])
def test_resizing_equals_torchs_antialiased_bilinear(height, width, side):
    torch = pytest.importorskip("torch")
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    got = resize_with_pad(image, side)
    scale = side / max(height, width)
    inner = round(height * scale), round(width * scale)
    chw = torch.from_numpy(image).permute(2, 0, 1)[None].float()
    expected = torch.nn.functional.interpolate(chw, inner, mode="bilinear", antialias=True)[0].permute(1, 2, 0)
    top, left = (side - inner[0]) // 2, (side - inner[1]) // 2
    inside = got[top : top + inner[0], left : left + inner[1]]
    assert np.abs(inside - expected.numpy()).max() <= 0.51
    border = np.ones((side, side), bool)
    border[top : top + inner[0], left : left + inner[1]] = False
    assert (got[border] == 0).all()
