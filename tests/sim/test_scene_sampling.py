from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.scene_sampling import CENTRE_M, SCENES, Draw, scenes_of

seeds = st.integers(0, 2**32 - 1)
tasks = st.sampled_from(sorted(SCENES))


def draw(task: str, seed: int) -> Draw:
    return scenes_of(task).draw(np.random.default_rng(seed))


def axes(pose: np.ndarray) -> np.ndarray:
    x, y, z, w = pose[3:]
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )


@given(tasks, seeds)
def test_things_are_on_or_above_the_table_and_within_reach(task, seed):
    d = draw(task, seed)
    for pose in (d.tool, d.cube, d.goal):
        assert pose.shape == (7,) and np.linalg.norm(pose[3:]) == pytest.approx(1.0)
        assert np.abs(pose[:2] - CENTRE_M).max() < 0.5
    assert d.cube[2] >= 0.02 - 1e-9 and d.goal[2] > 0.0 and 0.005 < d.tool[2] < 0.4
    assert 0.0 <= d.gripper_opening <= 1.0
    assert axes(d.tool)[2, 2] < -0.95, "the tool looks down"
    assert axes(d.cube)[2, 2] == pytest.approx(1.0)


@given(tasks, seeds)
def test_a_draw_is_a_function_of_its_generator(task, seed):
    one, other = draw(task, seed), draw(task, seed)
    assert all((getattr(one, name) == getattr(other, name)).all() for name in ("tool", "cube", "goal"))


def test_a_cube_off_the_table_is_between_the_fingers():
    held = 0
    for seed in range(2000):
        d = draw("PickCube-v1", seed)
        if d.cube[2] < 0.05:
            continue
        held += 1
        inside = axes(d.tool).T @ (d.cube[:3] - d.tool[:3])
        assert np.linalg.norm(inside) < 0.03 and abs(inside[1]) < 0.01, "between the fingers, which close along y"
        assert 0.4 < d.gripper_opening < 0.6
        sides = axes(d.tool).T @ axes(d.cube)
        assert np.abs(sides[1, :2]).max() > 0.98, "a side is parallel to the fingers"
    assert 200 < held < 800


def test_scenes_cover_where_the_tasks_put_things():
    """ManiSkill draws cubes within 0.1 m of the middle; each quarter of that square is drawn, by both tasks."""
    for task in SCENES:
        spots = np.array([draw(task, seed).cube[:2] - CENTRE_M for seed in range(400)])
        for x in (-1, 1):
            for y in (-1, 1):
                assert ((spots * [x, y] > 0.06).all(1)).any(), task


def test_the_target_of_a_push_is_ahead_of_where_the_cube_began():
    ahead = np.array([draw("PushCube-v1", s).goal[:3] - draw("PushCube-v1", s).cube[:3] for s in range(300)])
    assert np.median(ahead[:, 0]) == pytest.approx(0.2, abs=0.05) and ahead[:, 0].max() == pytest.approx(0.2, abs=0.01)
    assert (np.abs(ahead[:, 1]) < 0.1).all()


def test_an_unknown_task_is_answered_with_the_closest():
    with pytest.raises(ValueError, match=r"no random scenes for 'PickCubes-v1'; did you mean 'PickCube-v1'"):
        scenes_of("PickCubes-v1")
