import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from e0_ros.core.smoothing import OneEuro


@settings(deadline=None)
@given(st.floats(-2.0, 2.0), st.floats(0.002, 0.05))
def test_no_lag_in_speed_and_little_in_position_at_constant_speed(speed, dt_s):
    euro = OneEuro(5.0, 20.0, 8.0, np.zeros(1))
    for i in range(1, 400):
        euro.update(np.array([speed * i * dt_s]), dt_s)
    np.testing.assert_allclose(euro.velocity, speed, atol=1e-3)
    assert abs(euro.position[0] - speed * 399 * dt_s) < 0.01


def test_noise_at_rest_is_smoothed():
    euro, noise = OneEuro(5.0, 20.0, 8.0, np.zeros(1)), np.random.default_rng(0).normal(0, 7e-4, 2000)
    out = []
    for sample in noise:
        euro.update(np.array([sample]), 0.01)
        out.append(euro.position[0])
    assert np.std(out[100:]) < 0.6 * np.std(noise)


def test_a_shift_moves_everything():
    euro = OneEuro(5.0, 20.0, 8.0, np.zeros(1))
    euro.shift(np.array([6.0]))
    euro.update(np.array([6.0]), 0.01)
    assert (euro.position[0], euro.velocity[0]) == (6.0, 0.0)
