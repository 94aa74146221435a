import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from e0_ros.config import ConfigError
from e0_ros.core.arm_setup import ArmSetupConfig, HostClock, Payload, controller_trouble

MS, S = 1_000_000, 1_000_000_000
CAMERA = ArmSetupConfig(load_mass_kg=0.2, load_center_m=(0.0, 0.05, 0.03))
JTC = "joint_trajectory_controller"


def test_the_arm_must_reckon_with_the_payload_that_it_was_told() -> None:
    assert Payload(0.2000001, (0.0, 0.0500001, 0.03)).trouble(CAMERA) == "", "single precision"
    assert "0.000 kg" in Payload(0.0, (0.0, 0.0, 0.0)).trouble(CAMERA)
    assert "(0.000, 0.050, 0.000)" in Payload(0.2, (0.0, 0.05, 0.0)).trouble(CAMERA)
    assert Payload(0.0, (0.1, 0.0, 0.0)).trouble(ArmSetupConfig()) == "", "nothing has no centre"


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"contact_torque_nm": (1.0,) * 6}, "contact_torque_nm has 6 numbers; 7"),
        ({"load_inertia_kg_m2": (0.0,) * 9}, "9 numbers; 6"),
        ({"contact_force": (50.0,) * 6}, "contact_force is above collision_force"),
        ({"load_mass_kg": 8.0}, "load_mass_kg"),
        ({"collision_torque_nm": (0.0,) * 7}, "collision_torque_nm"),
    ],
)
def test_settings_that_no_arm_can_take_are_refused(wrong, said) -> None:
    with pytest.raises(ConfigError, match=said):
        ArmSetupConfig(**wrong)


def test_the_inertia_is_symmetric_whatever_the_order_of_rows_and_columns() -> None:
    matrix = np.array(ArmSetupConfig(load_inertia_kg_m2=(1.0, 0.1, 0.2, 0.9, 0.3, 0.8)).inertia_matrix()).reshape(3, 3)
    np.testing.assert_array_equal(matrix, matrix.T)
    np.testing.assert_array_equal(np.diag(matrix), [1.0, 0.9, 0.8])
    assert (matrix[0, 1], matrix[0, 2], matrix[1, 2]) == (0.1, 0.2, 0.3)


@given(st.floats(-1e4, 1e4), st.lists(st.floats(0.0, 50.0), min_size=1, max_size=30))
def test_the_least_delay_of_a_second_is_the_offset_of_the_clock(offset_ms, delays_ms) -> None:
    clock = HostClock()
    assert "not heard for a second" in clock.trouble(5.0)
    for i in range(61):
        now_ns = i * S // 60
        clock.hear(now_ns - round((offset_ms + delays_ms[i % len(delays_ms)]) * MS), now_ns)
    assert clock.offset_ms == pytest.approx(offset_ms + min(delays_ms), abs=1e-5)


def steady(offset_ms: float) -> HostClock:
    clock = HostClock()
    for i in range(1500):
        clock.hear(i * MS, round((i + offset_ms + 0.3 * (i % 7)) * MS))
    return clock


def test_clocks_that_differ_are_said_with_the_side_and_the_cure() -> None:
    assert steady(0.4).trouble(5.0) == "" and steady(-3.0).trouble(5.0) == ""
    assert "34.0 ms behind this one" in steady(34.0).trouble(5.0)
    assert "12.0 ms ahead of this one" in steady(-12.0).trouble(5.0) and "chrony" in steady(-12.0).trouble(5.0)


def test_a_clock_that_was_set_is_noticed_within_a_second_or_two() -> None:
    clock = steady(0.0)
    for i in range(1500, 3600):
        clock.hear(i * MS, (i + 80) * MS)
    assert "80.0 ms behind" in clock.trouble(5.0)
    for i in range(3600, 5700):
        clock.hear(i * MS, (i - 80) * MS)
    assert "80.0 ms ahead" in clock.trouble(5.0)


def test_only_the_wanted_active_controller_is_no_trouble() -> None:
    assert controller_trouble({JTC: "active", "joint_state_broadcaster": "active"}, JTC) == ""
    assert "does not answer" in controller_trouble(None, JTC)
    assert "not loaded" in controller_trouble({"joint_state_broadcaster": "active"}, JTC)
    other = controller_trouble({JTC: "inactive", "gravity": "active", "joint_state_broadcaster": "active"}, JTC)
    assert "is inactive; active is gravity: " in other
