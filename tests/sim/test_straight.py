from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from e0_policy.embodiment import load_embodiment
from e0_policy.kinematics import tcp_pose_and_jacobian
from sim.demonstration import PERIOD_NS
from sim.straight import ACCELERATION_RAD_S2, VELOCITY_RAD_S, straight_rows

ARM = load_embodiment("panda")
STEP_S = PERIOD_NS / 1e9


def tool_of(joints: np.ndarray) -> np.ndarray:
    return tcp_pose_and_jacobian(joints)[0]


@settings(deadline=None, max_examples=25)
@given(
    off=st.tuples(*[st.floats(-0.15, 0.15)] * 3),
    turn=st.floats(-1.0, 1.0),
    speed=st.floats(0.2, 1.0),
)
def test_a_way_is_straight_from_rest_to_rest_and_no_joint_is_hurried(
    off: tuple[float, float, float], turn: float, speed: float
) -> None:
    start, goal = tool_of(ARM.home), tool_of(ARM.home)
    goal[:3, 3] += off
    c, s = np.cos(turn), np.sin(turn)
    goal[:3, :3] = goal[:3, :3] @ np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])
    rows = straight_rows(ARM, ARM.home, goal, speed)
    assert rows is not None
    np.testing.assert_allclose(tool_of(rows[-1]), goal, atol=2e-6)
    whole = np.vstack([ARM.home, rows])
    line = goal[:3, 3] - start[:3, 3]
    places = tool_of(whole)[:, :3, 3] - start[:3, 3]
    along = places @ line / max(float(line @ line), 1e-12)
    assert np.abs(places - np.outer(along, line)).max() < 1e-6, "the tool leaves the line"
    assert (np.diff(along) > -1e-6).all()
    still = np.vstack([whole[:1], whole, whole[-1:]])
    velocity, acceleration = np.diff(still, axis=0) / STEP_S, np.diff(still, 2, axis=0) / STEP_S**2
    assert np.abs(velocity).max() <= VELOCITY_RAD_S * speed * 1.02
    assert np.abs(acceleration).max() <= ACCELERATION_RAD_S2 * 1.05


def test_what_is_out_of_reach_has_no_way() -> None:
    goal = tool_of(ARM.home)
    goal[0, 3] += 0.6
    assert straight_rows(ARM, ARM.home, goal) is None


def test_where_the_tool_is_already_takes_one_row() -> None:
    rows = straight_rows(ARM, ARM.home, tool_of(ARM.home))
    assert rows is not None
    np.testing.assert_allclose(rows, ARM.home[None], atol=1e-8)
