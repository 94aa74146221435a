from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from e0_policy.action_tokenizer import ActionTokenError, ActionTokenizer


@given(st.integers(2, 8192), st.lists(st.floats(-1, 1), min_size=1, max_size=50))
def test_round_trip_is_within_half_a_bin(bins, values):
    tokenizer = ActionTokenizer(bins)
    array = np.array(values)
    encoded = tokenizer.encode(array)
    assert encoded.clipped == 0 and encoded.total == len(values)
    assert encoded.tokens.min() >= 0 and encoded.tokens.max() < bins
    assert np.abs(tokenizer.decode(encoded.tokens) - array).max() <= (1 + 1e-9) / bins


@given(st.integers(2, 8192))
def test_every_token_survives_decoding(bins):
    tokens = np.arange(bins)
    tokenizer = ActionTokenizer(bins)
    np.testing.assert_array_equal(tokenizer.encode(tokenizer.decode(tokens)).tokens, tokens)


def test_lower_edge_decoding_is_biased_by_half_a_bin():
    mid, lower = ActionTokenizer(2048), ActionTokenizer(2048, "lower")
    np.testing.assert_allclose(mid.values - lower.values, 1 / 2048)
    assert lower.values[0] == -1.0 and mid.values.mean() == pytest.approx(0.0)


def test_clipping_is_counted_and_padding_is_not():
    values = np.array([[-1.5, 0.0, 9.0], [1.0, np.nan, 3.0]])
    mask = np.array([[True, True, True], [True, False, False]])
    encoded = ActionTokenizer(8).encode(values, mask)
    assert (encoded.clipped, encoded.total) == (2, 4)
    np.testing.assert_array_equal(encoded.tokens, [[0, 4, 7], [7, 4, 4]])


def test_bad_input_says_both_sides():
    tokenizer = ActionTokenizer(128)
    with pytest.raises(ActionTokenError, match=r"value at \(1,\) is nan"):
        tokenizer.encode(np.array([0.0, np.nan]))
    with pytest.raises(ActionTokenError, match="0 to 128; allowed is 0 to 127"):
        tokenizer.decode(np.array([0, 128]))
    with pytest.raises(ActionTokenError, match="float64; integers"):
        tokenizer.decode(np.array([0.0]))
    with pytest.raises(ActionTokenError, match="allowed is 2 to 65536"):
        ActionTokenizer(1)
