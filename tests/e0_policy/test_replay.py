from __future__ import annotations

import numpy as np
import pytest

from e0_policy.replay import ReplayPolicy
from e0_policy.types import Observation

PERIOD = 50_000_000
ROWS = np.arange(40.0).reshape(20, 2)


def at(stamp_ns: int) -> Observation:
    return Observation(stamp_ns, {}, np.zeros(1), 0.0)


def test_rows_come_back_bit_for_bit_on_the_grid() -> None:
    policy = ReplayPolicy(ROWS, PERIOD, "fr3", execution_horizon=8, prediction_horizon=16, name="bag")
    start = 7_000_000_123
    played = []
    for plan in range(3):
        output = policy.infer(at(start + plan * 8 * PERIOD), None)
        assert output is not None and output.period_ns == PERIOD
        assert len(output.rows) == min(16, 20 - 8 * plan)
        played.append(output.rows[:8])
    np.testing.assert_array_equal(np.concatenate(played), ROWS)
    assert (policy.embodiment, policy.checkpoint, policy.execution_horizon) == ("fr3", "bag", 8)


def test_it_ends_and_a_reset_begins_again() -> None:
    policy = ReplayPolicy(ROWS, PERIOD, "fr3")
    assert policy.infer(at(0), None) is not None
    assert policy.infer(at(20 * PERIOD), None) is None
    policy.reset()
    output = policy.infer(at(20 * PERIOD), None)
    assert output is not None
    np.testing.assert_array_equal(output.rows, ROWS[:16])


def test_off_the_grid_joints_are_linear_and_the_gripper_keeps() -> None:
    policy = ReplayPolicy(ROWS, PERIOD, "fr3", execution_horizon=4, prediction_horizon=4)
    policy.infer(at(0), None)
    output = policy.infer(at(PERIOD * 16 + PERIOD // 4), None)
    assert output is not None
    np.testing.assert_allclose(output.rows, [[32.5, 33.0], [34.5, 35.0], [36.5, 37.0], [38.0, 39.0]])


def test_replaying_changes_no_recording() -> None:
    rows = ROWS.copy()
    policy = ReplayPolicy(rows, PERIOD, "fr3")
    policy.infer(at(0), None)
    output = policy.infer(at(PERIOD // 2), None)
    assert output is not None
    output.rows[:] = -1.0
    np.testing.assert_array_equal(rows, ROWS)


@pytest.mark.parametrize(
    ("rows", "period", "horizons"),
    [
        (np.zeros((0, 8)), PERIOD, (8, 16)),
        (np.full((4, 8), np.nan), PERIOD, (8, 16)),
        (ROWS, 0, (8, 16)),
        (ROWS, PERIOD, (0, 16)),
        (ROWS, PERIOD, (17, 16)),
    ],
)
def test_bad_recordings_are_refused(rows: np.ndarray, period: int, horizons: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match=r"replay|horizon"):
        ReplayPolicy(rows, period, "fr3", *horizons)
