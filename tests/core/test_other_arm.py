"""An arm whose kinematics are not known: every joint limit is kept, and what is in metres is refused."""

from __future__ import annotations

from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest

from e0_policy.embodiment import load_embodiment
from e0_policy.types import Representation
from e0_ros.config import ConfigError
from e0_ros.core.bag_reader import BagReadError
from e0_ros.core.calibration_bag import sightings
from e0_ros.core.chunk_executor import ChunkExecutor
from e0_ros.core.executor_types import ExecutorConfig
from tests.core.driven import MS, Driven, follow
from tests.other_arm import write_arm


def test_it_follows_a_motion_and_stops_within_its_limits(tmp_path: Path) -> None:
    d = Driven(embodiment=str(write_arm(tmp_path))).arm_it()
    follow(d, 1.2)
    assert d.mode == "RUNNING" and np.ptp(np.array(d.positions), axis=0).min() > 0.2
    d.executor.stop()
    d.run(1000)
    assert np.ptp(np.array(d.positions[-50:]), axis=0).max() == 0.0 and d.violations == []


def test_whatever_the_rows_no_joint_limit_is_broken(tmp_path: Path) -> None:
    d = Driven(embodiment=str(write_arm(tmp_path)), max_jump_rad=7.0, max_tracking_error_rad=7.0).arm_it()
    rng, arm = np.random.default_rng(3), d.arm
    for sequence in range(20):
        rows = rng.uniform(arm.position_lower - 1, arm.position_upper + 1, (int(rng.integers(1, 8)), arm.joints))
        reference = d.status.reference.position
        rows = np.clip(rows, reference - 6.5, reference + 6.5)
        assert d.offer(d.chunk(rows, sequence, period_ns=int(rng.choice([50, 100])) * MS)) is None
        d.run(200)
    d.play(2000)
    assert d.violations == [] and d.judge.samples == 6000
    assert np.ptp(np.array(d.positions[-20:]), axis=0).max() == 0.0


def test_a_pose_of_its_tool_is_refused(tmp_path: Path) -> None:
    d = Driven(embodiment=str(write_arm(tmp_path))).arm_it()
    pose = d.chunk([[0.4, 0.0, 0.4, 1.0, 0.0, 0.0, 0.0, 1.0]], representation=Representation.EE_POSE, joint_names=())
    refusal = d.offer(pose)
    assert refusal and refusal.reason == "representation EE_POSE; executed here: JOINT_POSITION"


@pytest.mark.parametrize(
    "setting", [{"table_height_m": 0.0}, {"max_speed_m_s": 0.5}, {"workspace_lower_m": (0.0, -1.0, 0.0)}]
)
def test_a_setting_that_could_not_be_kept_is_refused(tmp_path: Path, setting: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=f"{next(iter(setting))} cannot be kept: the kinematics of other are none"):
        ChunkExecutor(ExecutorConfig(embodiment=str(write_arm(tmp_path)), **setting))


def test_no_camera_is_calibrated_with_it(tmp_path: Path) -> None:
    with pytest.raises(BagReadError, match="its kinematics are none"):
        sightings(Mock(), "front", load_embodiment(str(write_arm(tmp_path))), Mock())


def test_joints_without_all_limits_are_not_commanded() -> None:
    with pytest.raises(ConfigError, match="left_gripper of dual_panda has no finite velocity, acceleration and jerk"):
        ChunkExecutor(ExecutorConfig(embodiment="dual_panda"))
