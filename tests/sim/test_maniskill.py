from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from sim.adapter import SimAdapter
from sim.maniskill import ManiSkillAdapter
from sim.maniskill_tasks import TASKS
from sim.threads import threads

pytestmark = [pytest.mark.sim, pytest.mark.usefixtures("maniskill")]
SIZE = 96


@pytest.fixture(scope="module")
def adapter(maniskill: None) -> Iterator[ManiSkillAdapter]:
    made = ManiSkillAdapter(("base", "wrist"), SIZE, SIZE)
    yield made
    made.close()


def pictures(adapter: SimAdapter) -> dict[str, np.ndarray]:
    adapter.start_render()
    return adapter.finish_render()


def hold(adapter: SimAdapter, target: np.ndarray, gripper: float, steps: int = 100) -> None:
    for _ in range(steps):
        adapter.step(target, np.zeros(7), gripper)


def test_a_scene_is_the_tasks_own(adapter: ManiSkillAdapter) -> None:
    scene = adapter.reset("PickCube-v1", 3)
    assert (scene.task, scene.seed, scene.max_steps) == ("PickCube-v1", 3, 200)
    assert "cube" in scene.instruction
    images = pictures(adapter)
    assert list(images) == ["base", "wrist"]
    assert all(image.shape == (SIZE, SIZE, 3) and image.dtype == np.uint8 for image in images.values())
    told = adapter.privileged()
    assert not told.success and set(told.poses) == {"tcp", "cube", "goal_site"}
    assert np.linalg.norm(told.poses["tcp"][:3] - [0.615, 0.0, 0.17]) < 0.05
    assert told.poses["cube"][2] == pytest.approx(0.02, abs=1e-3)
    assert all(np.linalg.norm(pose[3:]) == pytest.approx(1.0, abs=1e-5) for pose in told.poses.values())
    assert told.poses["goal_site"][3:] == pytest.approx([0.0, 0.0, 0.0, 1.0])


def test_cameras_see_the_goal_that_the_task_hides(adapter: ManiSkillAdapter) -> None:
    adapter.reset("PickCube-v1", 0)
    red, green, blue = np.moveaxis(pictures(adapter)["base"].astype(int), -1, 0)
    assert ((green > red + 60) & (green > blue + 60)).sum() >= 5


def test_the_arm_follows_set_points_and_the_fingers_close(adapter: ManiSkillAdapter) -> None:
    adapter.reset("PickCube-v1", 0)
    start = adapter.joint_state()[0]
    target = start + np.array([0.1, -0.1, 0.05, 0.0, 0.1, 0.0, -0.2])
    assert adapter.gripper_opening() == pytest.approx(1.0, abs=0.01)
    hold(adapter, target, 0.0, 200)
    position, velocity, effort = adapter.joint_state()
    assert np.abs(position - target).max() < 0.01
    assert np.abs(velocity).max() < 0.01 and np.isfinite(effort).all()
    assert adapter.gripper_opening() == pytest.approx(0.0, abs=0.02)


def test_velocity_is_fed_forward(adapter: ManiSkillAdapter) -> None:
    """At a constant 0.2 rad/s the drive's damping alone would lag 20 mrad behind."""
    adapter.reset("PickCube-v1", 0)
    start, speed = adapter.joint_state()[0], np.array([0.2, 0, 0, 0, 0, 0, 0])
    for i in range(100):
        adapter.step(start + speed * 0.01 * (i + 1), speed, 1.0)
    assert adapter.joint_state()[0][0] == pytest.approx(start[0] + 0.2, abs=0.005)


def test_physics_may_go_on_while_a_picture_is_made(adapter: ManiSkillAdapter) -> None:
    adapter.reset("PushCube-v1", 1)
    still = pictures(adapter)
    adapter.start_render()
    hold(adapter, adapter.joint_state()[0] + 0.3, 0.0, 30)
    late = adapter.finish_render()
    assert all((late[view] == still[view]).all() for view in still)
    assert (pictures(adapter)["wrist"] != still["wrist"]).any()


def test_pictures_that_are_ready_are_not_waited_for(adapter: ManiSkillAdapter) -> None:
    """What the renderer's threads do after that is to hand the pixels over, a hundredth of the drawing."""
    adapter.reset("PickCube-v1", 1)
    pictures(adapter)

    def worked_ns() -> int:
        places = [Path(f"/proc/self/task/{thread}/schedstat") for thread in adapter.renderers & threads()]
        return sum(int(place.read_text(encoding="utf-8").split()[0]) for place in places)

    started_ns = worked_ns()
    adapter.start_render()
    assert not adapter.pictures_ready()
    deadline = time.monotonic() + 30
    while not adapter.pictures_ready():
        assert time.monotonic() < deadline
        time.sleep(0.001)
    drawn_ns = worked_ns()
    adapter.finish_render()
    assert worked_ns() - drawn_ns < 0.2 * (drawn_ns - started_ns)


def test_in_real_time_pictures_look_the_same(adapter: ManiSkillAdapter) -> None:
    """The ground has fewer triangles then, which a texture's rounding may show."""
    live = ManiSkillAdapter(("base", "side"), SIZE, SIZE, realtime=True)
    try:
        live.reset("PickCube-v1", 2)
        adapter.reset("PickCube-v1", 2)
        difference = np.abs(pictures(live)["base"].astype(int) - pictures(adapter)["base"])
        assert difference.max() <= 1 and (difference > 0).mean() < 1e-3
        (ground,) = (actor._objs[0] for name, actor in live._env.scene.actors.items() if name == "ground")
        (body,) = (part for part in ground.components if hasattr(part, "render_shapes"))
        assert len(body.render_shapes[0].parts[0].triangles) == 1250
    finally:
        live.close()


def test_any_task_of_the_table_can_be_reset(adapter: ManiSkillAdapter) -> None:
    for task in ("StackCube-v1", "PegInsertionSide-v1"):
        assert adapter.reset(task, 5).instruction == TASKS[task].instruction
        assert len(adapter.privileged().poses) >= 3


def test_unknown_names_are_answered_with_the_closest(adapter: ManiSkillAdapter) -> None:
    with pytest.raises(ValueError, match="did you mean 'PickCube-v1'"):
        adapter.reset("PickCubes-v1", 0)
    with pytest.raises(ValueError, match=r"'front'.*base, side, wrist"):
        ManiSkillAdapter(("front",))
    with pytest.raises(ValueError, match="seed is -1"):
        adapter.reset("PickCube-v1", -1)


SCRIPT = """
import hashlib, sys
import numpy as np
from sim.maniskill import ManiSkillAdapter
adapter = ManiSkillAdapter(("base", "wrist"), 64, 64)
for seed in map(int, sys.argv[1:]):
    adapter.reset("PickCube-v1", seed)
    digest, start = hashlib.sha256(), adapter.joint_state()[0]
    for step in range(60):
        adapter.step(start + 0.004 * step * np.array([1, 1, 1, -1, 1, 1, 1]), np.zeros(7), step < 30)
        digest.update(b"".join(part.tobytes() for part in adapter.joint_state()))
        if step % 30 == 29:
            adapter.start_render()
            digest.update(b"".join(image.tobytes() for image in adapter.finish_render().values()))
    digest.update(b"".join(pose.tobytes() for pose in adapter.privileged().poses.values()))
    print(digest.hexdigest())
"""


def test_one_seed_gives_the_same_bits_in_every_process() -> None:
    """Whatever was simulated before, and however many threads draw."""
    runs = [(["7"], "1"), (["3", "7"], "3")]
    started = [
        subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", SCRIPT, *seeds],
            env={**os.environ, "LP_NUM_THREADS": threads},
            stdout=subprocess.PIPE,
            text=True,
        )
        for seeds, threads in runs
    ]
    (alone,), (other_seed, after_another) = (process.communicate(timeout=800)[0].split() for process in started)
    assert alone == after_another
    assert alone != other_seed


def test_the_side_view_tells_what_the_base_view_cannot(adapter: ManiSkillAdapter) -> None:
    """The goal's distance from the robot: across the side view, along the optical axis of the base view."""
    side = ManiSkillAdapter(("side",), SIZE, SIZE)
    columns, distances = [], []
    for seed in range(8):
        side.reset("PickCube-v1", seed)
        red, green, blue = np.moveaxis(pictures(side)["side"].astype(int), -1, 0)
        goal = (green > red + 60) & (green > blue + 60)
        if goal.sum() < 10:
            continue  # behind the hand
        columns.append(np.nonzero(goal)[1].mean())
        distances.append(side.privileged().poses["goal_site"][0])
    side.close()
    assert len(columns) >= 4
    assert np.corrcoef(columns, distances)[0, 1] > 0.9
