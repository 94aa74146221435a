import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from e0_ros.core.dataset_stats import QUANTILES, aggregate, histogram, image_stats, sample_indices, vector_stats


@settings(max_examples=60, deadline=None)
@given(hnp.arrays(np.float32, st.tuples(st.integers(2, 60), st.integers(1, 4)), elements=st.floats(-5, 5, width=32)))
def test_vectors_have_the_usual_moments_and_quantiles_within_a_bin(values):
    stats = vector_stats(values)
    wide = values.astype(np.float64)
    np.testing.assert_array_equal(stats["min"], values.min(axis=0))
    np.testing.assert_array_equal(stats["max"], values.max(axis=0))
    np.testing.assert_allclose(stats["mean"], wide.mean(axis=0), atol=1e-12)
    np.testing.assert_allclose(stats["std"], wide.std(axis=0), atol=1e-9)
    assert stats["count"].tolist() == [len(values)]
    width = (wide.max(axis=0) - wide.min(axis=0)) / 5000 + 1e-9
    ordered = np.sort(wide, axis=0)
    for name, q in QUANTILES.items():
        rank = max(1, int(np.ceil(q * len(values))))
        assert (stats[name] >= wide.min(axis=0) - 1e-9).all()
        assert (stats[name] <= ordered[rank - 1] + width).all(), name


def test_integers_keep_integer_bounds():
    stats = vector_stats(np.arange(5))
    assert (stats["min"].dtype.kind, stats["min"].tolist(), stats["max"].tolist()) == ("i", [0], [4])


def test_images_are_per_channel_in_zero_to_one():
    images = [np.full((4, 6, 3), (0, 100, 255), np.uint8) for _ in range(3)]
    images[1][..., 1] = 200
    stats = image_stats([histogram(image) for image in images])
    assert stats["mean"].shape == (3, 1, 1)
    np.testing.assert_allclose(stats["mean"].ravel(), [0, 400 / 3 / 255, 1])
    np.testing.assert_allclose(stats["std"].ravel(), [0, np.std([100, 200, 100]) / 255, 0], atol=1e-9)
    np.testing.assert_allclose(stats["max"].ravel(), [0, 200 / 255, 1])
    np.testing.assert_allclose(stats["q50"].ravel(), [0, 100 / 255, 1], atol=1e-4)
    assert stats["count"].tolist() == [3]


def test_large_images_are_thinned_as_lerobot_thins_them():
    image = np.random.default_rng(0).integers(0, 256, (480, 640, 3), dtype=np.uint8)
    counts = histogram(image)
    assert counts.sum(axis=1).tolist() == [120 * 160] * 3
    assert counts[0].tolist() == np.bincount(image[::4, ::4, 0].ravel(), minlength=256).tolist()


@pytest.mark.parametrize(("frames", "number"), [(1, 1), (50, 50), (100, 100), (500, 105), (1000, 177), (20000, 1681)])
def test_the_sample_of_frames_is_lerobots(frames, number):
    chosen = sample_indices(frames)
    assert (len(chosen), chosen[0], chosen[-1]) == (number, 0, frames - 1)


def test_aggregation_is_that_of_all_frames_for_the_moments():
    parts = [np.random.default_rng(i).normal(i, 1 + i, (20 + 10 * i, 3)) for i in range(3)]
    whole, joined = vector_stats(np.concatenate(parts)), aggregate([vector_stats(p) for p in parts])
    for name in ("min", "max", "mean", "std", "count"):
        np.testing.assert_allclose(joined[name], whole[name], rtol=1e-12)
    weights = np.array([20, 30, 40])[:, None]
    median = (np.stack([vector_stats(p)["q50"] for p in parts]) * weights).sum(axis=0) / 90
    np.testing.assert_allclose(joined["q50"], median)
