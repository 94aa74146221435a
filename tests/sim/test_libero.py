"""The row adapter on robosuite's Lift, and on LIBERO itself where its assets are."""

from __future__ import annotations

from importlib.util import find_spec

import numpy as np
import pytest

from e0_policy.kinematics import flange_pose
from e0_policy.types import Representation
from e0_ros.config import ConfigError
from sim import libero_tasks
from sim.direct import DirectLoop
from sim.libero import LiberoAdapter
from sim.libero_expert import LiberoPlanner
from sim.scripted import rows_of
from sim.sources import ExpertSource

pytestmark = [pytest.mark.sim, pytest.mark.slow]
if find_spec("robosuite") is None:
    pytest.skip("robosuite is not installed (extra [libero])", allow_module_level=True)


@pytest.fixture(scope="module")
def adapter():
    made = LiberoAdapter(("base", "wrist"), 128, 96)
    yield made
    made.close()


def look(adapter: LiberoAdapter) -> dict[str, np.ndarray]:
    adapter.start_render()
    assert adapter.pictures_ready()
    return adapter.finish_render()


def test_the_same_seed_and_rows_give_the_same_bits_whatever_was_before(adapter: LiberoAdapter) -> None:
    def run(seed: int) -> tuple[bytes, ...]:
        scene = adapter.reset("Lift", seed)
        assert (scene.task, scene.seed, scene.max_steps) == ("Lift", seed, libero_tasks.LIFT_STEPS)
        for row in np.random.default_rng(0).uniform(0, 1, (6, 7)):
            adapter.act(row)
        poses = np.concatenate(list(adapter.privileged().poses.values()))
        return poses.tobytes(), adapter.joint_state()[0].tobytes(), *(v.tobytes() for v in look(adapter).values())

    first, other, again = run(3), run(4), run(3)
    assert first == again and first[0] != other[0]


def test_a_red_cube_is_where_the_cameras_say_and_upright(adapter: LiberoAdapter) -> None:
    """Intrinsics, poses and the picture's direction together: the cube's pixels against its projected middle."""
    adapter.reset("Lift", 0)
    for _ in range(8):  # towards it, so that the hand's camera sees it
        poses = adapter.privileged().poses
        adapter.act(np.array([*(20 * (poses["cube"][:3] - poses["tcp"][:3]) + [0, 0, 2]).clip(-1, 1), 0, 0, 0, 1.0]))
    pictures, cameras = look(adapter), adapter.cameras()
    assert {view: picture.shape for view, picture in pictures.items()} == dict.fromkeys(("base", "wrist"), (96, 128, 3))
    flange = flange_pose(adapter.joint_state()[0])
    cube = adapter.privileged().poses["cube"][:3]
    for view, picture in pictures.items():
        r, g, b = (picture[..., i].astype(int) for i in range(3))
        rows, columns = np.nonzero((r > 90) & (r > 2 * g) & (r > 2 * b))
        assert len(rows) > 20, view
        middle = cameras[view].project(cube[None], flange)[0]
        assert np.abs(middle - [columns.mean(), rows.mean()]).max() < 6, view


def test_the_gripper_closes_at_0_and_opens_at_1(adapter: LiberoAdapter) -> None:
    adapter.reset("Lift", 0)
    for opening in (0.0, 1.0):
        for _ in range(12):
            adapter.act(np.append(np.zeros(6), opening))
        assert abs(adapter.gripper_opening() - opening) < 0.1
    adapter.act(np.append(np.zeros(6), 0.0))
    for _ in range(12):
        adapter.stand()
    assert adapter.gripper_opening() < 0.1, "a step without a row lets the gripper go on"


def test_a_delta_of_one_is_five_centimetres_in_the_bases_frame(adapter: LiberoAdapter) -> None:
    adapter.reset("Lift", 0)
    before = adapter.privileged().poses["tcp"][:3]
    adapter.act(np.array([0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0]))
    for _ in range(20):
        adapter.stand()
    moved = adapter.privileged().poses["tcp"][:3] - before
    assert 0.01 < moved[1] < 0.06 and np.abs(moved[[0, 2]]).max() < 0.01


def test_what_is_no_row_view_or_task_is_refused(adapter: LiberoAdapter) -> None:
    adapter.reset("Lift", 0)
    with pytest.raises(ValueError, match="a row of LIBERO has 7 numbers"):
        adapter.act(np.zeros(8))
    with pytest.raises(ConfigError, match="no view 'bse'"):
        LiberoAdapter(("bse",))
    with pytest.raises(ValueError, match="no task 'Lfit'"):
        adapter.reset("Lfit", 0)


def test_the_expert_lifts_with_rows_of_the_controller() -> None:
    planner = LiberoPlanner()
    for seed in range(3):
        assert planner.begin("Lift", seed) == libero_tasks.LIFT_INSTRUCTION and planner.solved
        rows = planner.rows
        assert rows is not None and rows.shape[1] == 7 and (np.abs(rows[:, :6]) <= 1).all() and not rows[-1, :6].any()
    assert rows_of("libero", "joint_position") is Representation.EE_DELTA_STEP
    with pytest.raises(ValueError, match="rows for libero are its own"):
        rows_of("libero", "ee_pose")


@pytest.mark.skipif(bool(libero_tasks.missing()), reason=libero_tasks.missing() or "all is here")
@pytest.mark.timeout(300)
def test_a_seed_from_100000_on_is_a_scene_that_the_environment_draws(adapter: LiberoAdapter) -> None:
    def scene(seed: int) -> bytes:
        adapter.reset("libero_spatial/0", seed)
        return np.concatenate(list(adapter.privileged().poses.values())).tobytes()

    first = libero_tasks.FIRST_DRAWN
    drawn = [scene(seed) for seed in (first, first + 1, first)]
    assert drawn[0] == drawn[2] and len({*drawn, scene(0)}) == 3


@pytest.mark.skipif(bool(libero_tasks.missing()), reason=libero_tasks.missing() or "all is here")
@pytest.mark.timeout(300)
@pytest.mark.parametrize("task", ["libero_spatial/0", "libero_object/0"])
def test_a_task_of_libero_is_solved_by_its_expert_from_an_initial_state(adapter: LiberoAdapter, task: str) -> None:
    loop = DirectLoop(adapter, task)
    expert = ExpertSource("libero", loop.rig.arm)
    expert.reset(task, 0)
    episode = loop.run(task, 0, expert)
    expert.close()
    assert (episode.success, episode.refused, episode.holds, episode.stale) == (True, 0, (), 0)
    assert episode.max_steps == libero_tasks.official_steps(task)
