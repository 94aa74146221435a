from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.direct import DirectLoop
from sim.maniskill import ManiSkillAdapter
from sim.scattered import draw_start
from sim.sources import ExpertSource

CUBE = np.array([0.6, 0.05, 0.02])


@given(seed=st.integers(0, 2**32 - 1))
def test_a_start_leaves_the_object_alone(seed: int) -> None:
    start = draw_start(np.random.default_rng(seed), CUBE)
    off_m = float(np.hypot(*(start.tool - np.append(CUBE, np.zeros(4)))[:2]))
    fingers_m = 0.02 + 0.04 * start.gripper_opening
    assert start.tool[2] >= 0.065 or off_m > 0.028 + fingers_m - 1e-9
    assert 0.0 <= start.gripper_opening <= 1.0 and start.tool[2] >= 0.008


def test_starts_are_near_and_far_high_and_low_open_and_closed() -> None:
    starts = [draw_start(np.random.default_rng(seed), CUBE) for seed in range(300)]
    off_m = np.array([np.hypot(*(s.tool[:2] - CUBE[:2])) for s in starts])
    low = np.array([s.tool[2] < 0.05 for s in starts])
    opening = np.array([s.gripper_opening for s in starts])
    assert (low & (off_m < 0.12)).mean() > 0.1 and (off_m < 0.02).mean() > 0.03 and (off_m > 0.15).mean() > 0.1
    assert (opening == 1.0).mean() > 0.2 and (opening < 0.3).mean() > 0.1


@pytest.fixture(scope="module")
def adapter(maniskill: None) -> Iterator[ManiSkillAdapter]:
    made = ManiSkillAdapter(())
    yield made
    made.close()


@pytest.mark.sim
@pytest.mark.parametrize("name", ["PickCube", "PushCube", "StackCube"])
def test_a_scattered_scene_is_the_tasks_own_but_for_the_arm(adapter: ManiSkillAdapter, name: str) -> None:
    scene = adapter.reset(f"{name}-v1", 7)
    own, told = adapter.joint_state()[0], adapter.privileged().poses
    scattered = adapter.reset(f"{name}Scattered-v1", 7)
    assert scattered.instruction == scene.instruction
    assert np.abs(adapter.joint_state()[0] - own).max() > 0.05
    for _ in range(100):
        adapter.step(adapter.joint_state()[0], np.zeros(7), adapter.gripper_opening())
    for actor, pose in adapter.privileged().poses.items():
        assert actor == "tcp" or pose == pytest.approx(told[actor], abs=2e-3)


@pytest.mark.sim
@pytest.mark.usefixtures("maniskill")
def test_the_expert_goes_on_from_a_scattered_start() -> None:
    adapter = ManiSkillAdapter(("base",), 16, 16)
    loop, solved = DirectLoop(adapter, "PickCubeScattered-v1"), []
    expert = ExpertSource("maniskill", loop.rig.arm, lambda: adapter.privileged().poses)
    for seed in range(6):
        expert.reset("PickCubeScattered-v1", seed)
        done = loop.run("PickCubeScattered-v1", seed, expert)
        solved.append(done.success)
        assert done.violations == 0
    adapter.close()
    assert sum(solved) >= 5
