"""The node without a driver: it says what to do. With one it is tested in `tests/graph/test_arm_session.py`."""

from __future__ import annotations

import importlib.util
import math
import subprocess
import sys
from collections.abc import Iterator
from types import SimpleNamespace

import numpy as np
import pytest

from e0_msgs.msg import ExecutorState
from e0_policy.embodiment import load_embodiment
from e0_ros.core.arm_setup import HostClock
from e0_ros.nodes import arm_session
from tests.faults.attack import FLOATS, odd_message

pytestmark = pytest.mark.ros


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (["e0_ros.nodes.arm_session"], ("build franka_ros2", "arm_session:=false")),
        (["sim.bridge", "--ros-args", "-p", "fci:=jazzy"], ("fci:=jazzy needs franka_ros2's messages",)),
        (["e0_ros.nodes.arm_session", "--ros-args", "-p", "rest_rad:=[0.0, 1.0]"], ("rest_rad has 2 joints",)),
    ],
)
def test_what_is_missing_or_wrong_is_one_line_and_exit_status_2(command: list[str], words: tuple[str, ...]) -> None:
    if importlib.util.find_spec("franka_msgs") and "rest_rad" not in words[0]:
        pytest.skip("franka_msgs is installed")
    done = subprocess.run([sys.executable, "-m", *command], capture_output=True, text=True, timeout=120)
    assert done.returncode == 2 and len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert all(word in done.stderr for word in words)


@pytest.fixture
def node(ros: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[arm_session.ArmSessionNode]:
    """The node beside a driver that says nothing."""
    driver = SimpleNamespace(newest=lambda: None, ask_controllers=lambda _: None, controllers=None, clock=HostClock())
    monkeypatch.setattr(arm_session, "FrankaDriver", lambda *_: driver)
    made = arm_session.ArmSessionNode()
    yield made
    made.destroy_node()


def test_it_tells_how_far_the_arm_is_from_home_if_it_knows(node: arm_session.ArmSessionNode) -> None:
    arm = load_embodiment("fr3")
    names, at = list(arm.joint_names), arm.home.tolist()
    assert math.isnan(node._from_home_rad())
    for state, far_rad in (
        (ExecutorState(joint_names=names, positions=at), 0.0),
        (ExecutorState(joint_names=names[::-1], positions=[at[6] - 0.3, *at[5::-1]]), 0.3),
        (ExecutorState(joint_names=names[1:], positions=at[1:]), math.nan),
    ):
        node._on_executor(state)
        assert node._from_home_rad() == pytest.approx(far_rad, nan_ok=True)


def test_no_state_of_an_executor_ends_a_move(node: arm_session.ArmSessionNode) -> None:
    rng = np.random.default_rng(4)
    names = list(load_embodiment("fr3").joint_names)
    for step in arm_session.MOTIONS:
        for _ in range(300):
            if node._session.step is not step:
                node._begin((step,))
            state = odd_message(ExecutorState, rng)
            if rng.random() < 0.7:  # in its own form, but for the numbers, which are finite half of the time
                state.joint_names = names
                state.positions, state.velocities = rng.choice(FLOATS[: rng.choice([6, 8])], (2, 7)).tolist()
            node._on_executor(state)
    assert node._sequence > 10, "it moves by some of them"
