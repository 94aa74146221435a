import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.statistics import known, percentile, total, wilson_interval


def test_known_values():
    # Brown, Cai, DasGupta (2001): 95 % Wilson intervals
    low, high = wilson_interval(19, 20)
    assert low == pytest.approx(0.7639, abs=1e-4)
    assert high == pytest.approx(0.9911, abs=1e-4)
    assert wilson_interval(0, 10) == (0.0, pytest.approx(0.2775, abs=1e-4))
    assert wilson_interval(0, 0) == (0.0, 1.0)


@given(st.integers(1, 500), st.data())
def test_contains_the_rate_and_is_symmetric(trials, data):
    successes = data.draw(st.integers(0, trials))
    low, high = wilson_interval(successes, trials)
    assert 0.0 <= low <= successes / trials <= high <= 1.0
    mirrored_low, mirrored_high = wilson_interval(trials - successes, trials)
    assert low == pytest.approx(1 - mirrored_high)
    assert high == pytest.approx(1 - mirrored_low)


def test_more_successes_than_trials_is_refused():
    with pytest.raises(ValueError, match="11 successes of 10"):
        wilson_interval(11, 10)


def test_percentile_is_nearest_rank():
    assert percentile([3.0, 1.0, 2.0], 0.5) == 2.0
    assert percentile([1.0, 2.0], 0.99) == 2.0
    assert math.isnan(percentile([], 0.5))


def test_a_count_that_is_not_known_makes_the_sum_unknown_and_says_so() -> None:
    assert total([1, 2]) == 3 and total([]) == 0
    assert math.isnan(total([1, -1]))
    assert (known(3.0, "unknown", " lost"), known(math.nan, "unknown", " lost")) == ("3 lost", "unknown")
