import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.statistics import known, mcnemar_p, paired_difference, percentile, rms_jerk, total, wilson_interval


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


def test_jerk_of_a_cubic_is_its_third_derivative_and_of_a_parabola_none():
    stamps = np.arange(0, 40) * 50_000_000
    t = stamps[:, None] / 1e9
    assert rms_jerk(stamps, 2.0 * t**3, 50_000_000) == pytest.approx(12.0)
    assert rms_jerk(stamps, np.hstack([2.0 * t**3, t**2]), 50_000_000) == pytest.approx(12.0 / math.sqrt(2))
    assert rms_jerk(stamps, 3.0 * t**2 - t, 50_000_000) == pytest.approx(0.0, abs=1e-6)
    assert math.isnan(rms_jerk(stamps[:3], t[:3], 50_000_000))
    assert math.isnan(rms_jerk(stamps[:0], t[:0], 50_000_000))


def test_jerk_hardly_depends_on_when_positions_are_told():
    rng = np.random.default_rng(0)
    even, uneven = np.arange(0, 4000, 50), np.cumsum(rng.integers(15, 25, 200))
    even, uneven = even * 1_000_000, uneven[uneven < 4000] * 1_000_000
    found = [rms_jerk(s, np.sin(2 * s[:, None] / 1e9 + 0.3), 50_000_000) for s in (even, uneven)]
    assert found[1] == pytest.approx(found[0], rel=0.05)


def test_mcnemar_is_the_binomial_sign_test():
    # R: binom.test(x, n)$p.value
    assert mcnemar_p(1, 9) == mcnemar_p(9, 1) == pytest.approx(0.021484375)
    assert mcnemar_p(0, 5) == pytest.approx(0.0625)
    assert mcnemar_p(0, 0) == mcnemar_p(4, 4) == mcnemar_p(512, 512) == 1.0
    assert 0.0 < mcnemar_p(1000, 30) < 1e-200


def test_a_paired_difference_keeps_its_sign_and_its_bounds():
    change, low, high = paired_difference(2, 12, 40)
    assert change == pytest.approx(0.25) and low < change < high and low > 0
    assert paired_difference(12, 2, 40) == pytest.approx((-change, -high, -low))
    assert paired_difference(0, 0, 0) == (0.0, -1.0, 1.0)
    # the adjusted Wald interval by hand: (13/42 - 3/42) -+ 1.96 * sqrt((16/42 - (10/42)^2) / 42)
    assert (low, high) == pytest.approx((0.0656, 0.4106), abs=1e-3)
