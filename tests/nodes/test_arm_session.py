"""The node without a driver: it says what to do. With one it is tested in `tests/graph/test_arm_session.py`."""

from __future__ import annotations

import importlib.util
import subprocess
import sys

import pytest

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
