from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from e0_policy.normalization import NormalizationError, Normalizer, StatisticsSketch

NAMES = ("a", "b", "c")


def _sketch(data: np.ndarray, bins: int = 256) -> StatisticsSketch:
    sketch = StatisticsSketch(data.shape[1:], NAMES, bins)
    sketch.update(data)
    return sketch


def _data(seed: int, count: int, scale: float) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.standard_normal((count, 3)) ** 3 * np.array([scale, 1.0, 1e-3]) + np.array([5.0, 0.0, -2.0])


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 400), st.floats(1e-6, 1e6), st.lists(st.integers(0, 400), max_size=4))
def test_statistics_are_exact_but_for_one_bin_however_the_stream_is_cut(seed, count, scale, cuts):
    data = _data(seed, count, scale)
    sketch = StatisticsSketch((3,), NAMES, 256)
    for part in np.split(data, sorted(min(c, count) for c in cuts)):
        sketch.update(part)
    got = sketch.statistics()
    np.testing.assert_array_equal(got.minimum, data.min(0))
    np.testing.assert_array_equal(got.maximum, data.max(0))
    np.testing.assert_allclose(got.mean, data.mean(0), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(got.std, data.std(0), rtol=1e-6, atol=1e-9)
    for q, value in ((0.01, got.q_low), (0.99, got.q_high)):
        exact = np.quantile(data, q, axis=0, method="inverted_cdf")
        assert (np.abs(value - exact) <= got.quantile_error * (1 + 1e-9)).all()
    bound = 2 * (data.max(0) - data.min(0)) / 254
    assert (got.quantile_error <= np.maximum(bound, np.abs(data).max(0) * 2.0**-40)).all()


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 100), st.integers(1, 100))
def test_merging_equals_one_stream(seed, first, second):
    a, b = _data(seed, first, 1.0), _data(seed + 1, second, 100.0)
    merged = _sketch(a)
    merged.merge(_sketch(b))
    other = _sketch(b)
    other.merge(_sketch(a))
    whole = np.concatenate([a, b])
    for sketch in (merged, other):
        got, exact = sketch.statistics(), np.quantile(whole, 0.99, axis=0, method="inverted_cdf")
        np.testing.assert_allclose(got.mean, whole.mean(0), rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(got.std, whole.std(0), rtol=1e-6)
        assert (got.count == first + second).all()
        assert (np.abs(got.q_high - exact) <= got.quantile_error * (1 + 1e-9)).all()


def test_an_item_may_be_a_chunk_with_invalid_rows():
    rng = np.random.default_rng(0)
    chunks = rng.standard_normal((500, 4, 3)) * np.arange(1, 5)[:, None]
    valid = rng.random((500, 4, 1)) < 0.7
    spoiled = np.where(valid, chunks, np.nan)
    sketch = StatisticsSketch((4, 3), NAMES)
    sketch.update(spoiled, valid)
    got = sketch.statistics(0.003, 0.997)
    np.testing.assert_array_equal(got.maximum, np.nanmax(spoiled, 0))
    np.testing.assert_allclose(got.std, np.nanstd(spoiled, 0))
    exact = np.stack([np.quantile(chunks[valid[:, r, 0], r], 0.997, 0, method="inverted_cdf") for r in range(4)])
    assert (np.abs(got.q_high - exact) <= got.quantile_error).all()
    normalizer = Normalizer.fit(got)
    np.testing.assert_allclose(normalizer.denormalize(normalizer.normalize(chunks)), chunks, atol=1e-12)
    with pytest.raises(NormalizationError, match=r"\(4, 4, 3\)|\(2, 3\)"):
        normalizer.normalize(chunks[0, :2])


@pytest.mark.parametrize("kind", ["quantile", "mean_std"])
def test_bounds_map_to_one_and_back(kind):
    data = _data(3, 1000, 1.0)
    got = _sketch(data, 8192).statistics()
    normalizer = Normalizer.fit(got, kind, bounds={"b": (-7.0, 9.0)})
    np.testing.assert_allclose(normalizer.normalize(np.stack([normalizer.low, normalizer.high]))[:, 0], [-1, 1])
    assert normalizer.low[1] == -7.0 and normalizer.high[1] == 9.0
    expected = got.q_low[0] if kind == "quantile" else got.mean[0] - 3 * got.std[0]
    assert normalizer.low[0] == pytest.approx(expected)
    np.testing.assert_allclose(normalizer.denormalize(normalizer.normalize(data)), data, atol=1e-9)


def test_json_round_trip_is_exact():
    normalizer = Normalizer.fit(_sketch(_data(4, 100, 1.0)).statistics())
    back = Normalizer.from_json(json.loads(json.dumps(normalizer.to_json())))
    np.testing.assert_array_equal(back.low, normalizer.low)
    np.testing.assert_array_equal(back.high, normalizer.high)
    assert (back.kind, back.names) == (normalizer.kind, normalizer.names)
    with pytest.raises(NormalizationError, match="lack high"):
        Normalizer.from_json({k: v for k, v in normalizer.to_json().items() if k != "high"})


def test_a_constant_dimension_is_an_error_that_names_it_or_is_held_when_asked():
    data = _data(5, 200, 1.0)
    data[:, 1] = 0.3
    got = _sketch(data).statistics()
    with pytest.raises(NormalizationError, match=r"b has zero range.*0\.3.*200 values"):
        Normalizer.fit(got)
    held = Normalizer.fit(got, constant="hold")
    assert (held.normalize(data)[:, 1] == 0).all()
    assert (held.denormalize(np.ones((2, 3)))[:, 1] == 0.3).all()
    assert Normalizer.fit(got, bounds={"b": (0.0, 1.0)}).normalize(data)[0, 1] == pytest.approx(-0.4)


def test_bad_numbers_and_shapes_are_named():
    normalizer = Normalizer.fit(_sketch(_data(6, 50, 1.0)).statistics())
    with pytest.raises(NormalizationError, match="c is nan"):
        normalizer.normalize(np.array([0.0, 0.0, np.nan]))
    with pytest.raises(NormalizationError, match=r"shape \(2, 4\).*\(\.\.\., 3"):
        normalizer.normalize(np.zeros((2, 4)))
    with pytest.raises(NormalizationError, match="b is inf in item 1"):
        _sketch(np.array([[0.0, 0.0, 0.0], [0.0, np.inf, 0.0]]))
    with pytest.raises(NormalizationError, match="no value"):
        StatisticsSketch((3,), NAMES).statistics()
    with pytest.raises(NormalizationError, match="bounds for z; dimensions are a, b, c"):
        Normalizer.fit(_sketch(_data(6, 50, 1.0)).statistics(), bounds={"z": (0, 1)})
