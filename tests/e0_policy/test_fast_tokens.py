from __future__ import annotations

import itertools
import json

import numpy as np
import pytest

from e0_policy.fast_tokens import FastTokenError, FastTokenizer, NaiveTokenizer, _dct


def smooth_chunks(count: int, rows: int = 10, columns: int = 3, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    t = np.linspace(0, 1, rows)[None, :, None]
    a, b, c = (rng.uniform(-0.5, 0.5, (count, 1, columns)) for _ in range(3))
    return np.clip(a + b * t + c * np.sin(3 * t), -1, 1)


def test_the_transform_is_scipys_orthonormal_dct():
    fft = pytest.importorskip("scipy.fft", reason="scipy is not installed")
    values = np.random.default_rng(0).standard_normal((7, 4))
    np.testing.assert_allclose(_dct(7) @ values, fft.dct(values, axis=0, norm="ortho"), atol=1e-12)
    np.testing.assert_allclose(_dct(7).T @ _dct(7), np.eye(7), atol=1e-12)


def test_a_chunk_comes_back_within_the_rounding_of_its_coefficients():
    chunks = smooth_chunks(200)
    tokenizer = FastTokenizer.fit(chunks, vocabulary=256)
    for chunk in smooth_chunks(50, seed=0):
        error = tokenizer.decode(tokenizer.encode(chunk)) - chunk
        assert np.sqrt((error**2).sum(0)).max() <= 0.5 / 10 * np.sqrt(10) + 1e-9


def test_fewer_rows_are_written_by_their_own_transform():
    tokenizer = FastTokenizer.fit(smooth_chunks(200), vocabulary=256)
    for rows, chunk in itertools.product((1, 4, 9), smooth_chunks(10, seed=0)):
        cut = chunk[:rows]
        error = tokenizer.decode(tokenizer.encode(cut)) - cut
        assert error.shape == cut.shape and np.sqrt((error**2).sum(0)).max() <= 0.5 / 10 * np.sqrt(rows) + 1e-9
    with pytest.raises(FastTokenError, match=r"or fewer rows"):
        tokenizer.encode(chunk[:0])


def test_merges_shorten_and_lose_nothing():
    chunks = smooth_chunks(300)
    plain = FastTokenizer.fit(chunks, vocabulary=FastTokenizer.fit(chunks).alphabet)
    merged = FastTokenizer.fit(chunks, vocabulary=256)
    assert plain.merges == () and len(merged.merges) > 50
    lengths = [(len(plain.encode(c)), len(merged.encode(c))) for c in chunks[:100]]
    assert all(full == 30 for full, _ in lengths)
    assert np.mean([short for _, short in lengths]) < 0.6 * 30
    for chunk in chunks[:20]:
        np.testing.assert_array_equal(merged.decode(merged.encode(chunk)), plain.decode(plain.encode(chunk)))


def test_merges_follow_frequency_by_a_worked_example():
    tokenizer = FastTokenizer(1, 6, 1.0, 0, 4, ((1, 1), (4, 2)))
    assert tokenizer.encode(np.array([[1, 1, 2, 3, 1, 1]]) * 1.0) == [5, 3, 4]
    assert tokenizer.encode(np.array([[1, 1, 1, 2, 9, -9]]) * 1.0) == [4, 1, 2, 3, 0]


def test_training_is_deterministic_and_the_file_round_trips(tmp_path):
    chunks = smooth_chunks(100)
    tokenizer = FastTokenizer.fit(chunks, vocabulary=128)
    assert FastTokenizer.fit(chunks.copy(), vocabulary=128) == tokenizer
    path = tmp_path / "fast.json"
    path.write_text(json.dumps(tokenizer.to_json()))
    assert FastTokenizer.load(path) == tokenizer


def test_naive_tokens_are_one_per_row_and_dimension():
    chunk = np.array([[-1.0, 0.0], [0.5, 1.0], [0.25, -0.25]])
    assert NaiveTokenizer(8).encode(chunk) == [0, 4, 6, 7, 5, 3]
    assert NaiveTokenizer(8, stride=2).encode(chunk) == [0, 4, 5, 3]


def test_bad_input_is_named(tmp_path):
    tokenizer = FastTokenizer(1, 2, 1.0, 0, 4, ((1, 1),))
    with pytest.raises(FastTokenError, match=r"\(2, 2\); needed is \(1, 2\)"):
        tokenizer.encode(np.zeros((2, 2)))
    with pytest.raises(FastTokenError, match="all finite"):
        tokenizer.encode(np.full((1, 2), np.nan))
    with pytest.raises(FastTokenError, match="token 5; allowed is 0 to 4"):
        tokenizer.decode([5])
    with pytest.raises(FastTokenError, match="3 coefficients; a chunk of 1 x 2"):
        tokenizer.decode([4, 0])
    with pytest.raises(FastTokenError, match="merge 0 is"):
        FastTokenizer(1, 2, 1.0, 0, 4, ((1, 4),))
    with pytest.raises(FastTokenError, match="lacks scale, lowest"):
        FastTokenizer.from_json({"rows": 1, "columns": 2, "alphabet": 4, "merges": []})
    with pytest.raises(FastTokenError, match="a vocabulary of 2"):
        FastTokenizer.fit(smooth_chunks(5), vocabulary=2)
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(FastTokenError, match=r"bad\.json"):
        FastTokenizer.load(tmp_path / "bad.json")
