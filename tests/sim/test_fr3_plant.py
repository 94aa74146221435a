from __future__ import annotations

import hashlib

import numpy as np
import pytest

from sim.fr3_plant import Fr3Plant, reach_goal


def pictures(plant: Fr3Plant) -> dict[str, str]:
    plant.start_render()
    return {view: hashlib.sha256(image.tobytes()).hexdigest() for view, image in plant.finish_render().items()}


def test_it_follows_the_set_point_exactly_and_the_gripper_takes_its_time() -> None:
    plant = Fr3Plant()
    goal = plant.joint_state()[0] + 0.1
    plant.step(goal, np.full(7, 0.3), 0.0)
    positions, velocities, efforts = plant.joint_state()
    assert (positions == goal).all() and (velocities == 0.3).all() and (efforts == 0).all()
    assert plant.gripper_opening() == pytest.approx(1 - 1.25e-3)
    for _ in range(800):
        plant.step(goal, np.zeros(7), 0.0)
    assert plant.gripper_opening() == 0.0


def test_lag_reaches_63_percent_after_its_time_constant() -> None:
    plant = Fr3Plant(lag_s=0.02)
    start = plant.joint_state()[0]
    for _ in range(20):
        plant.step(start + 1.0, np.zeros(7), 1.0)
    positions, velocities, _ = plant.joint_state()
    np.testing.assert_allclose(positions - start, 1 - np.exp(-1))
    np.testing.assert_allclose(velocities, np.exp(-1) / 0.02, rtol=0.03)


def test_the_same_seed_gives_the_same_scene_and_pictures() -> None:
    a, b = Fr3Plant(), Fr3Plant()
    assert a.reset("Reach-v0", 5) == b.reset("Reach-v0", 5)
    assert pictures(a) == pictures(b)
    assert (a.joint_state()[0] == b.joint_state()[0]).all()
    b.reset("Reach-v0", 6)
    assert pictures(a) != pictures(b)


def test_pictures_show_joints_gripper_time_and_view() -> None:
    plant = Fr3Plant(("base", "wrist"), 64, 48)
    start = plant.joint_state()[0]
    seen = [pictures(plant)]
    plant.step(start, np.zeros(7), 1.0)
    seen.append(pictures(plant))
    moved = start.copy()
    moved[6] += 0.5
    plant.step(moved, np.zeros(7), 1.0)
    seen.append(pictures(plant))
    assert len({picture for views in seen for picture in views.values()}) == 6


def test_a_picture_shows_the_moment_of_start_render() -> None:
    plant = Fr3Plant()
    expected = pictures(plant)
    plant.start_render()
    plant.step(plant.joint_state()[0] + 0.5, np.zeros(7), 0.0)
    assert {v: hashlib.sha256(i.tobytes()).hexdigest() for v, i in plant.finish_render().items()} == expected


def test_image_size_and_views() -> None:
    plant = Fr3Plant(("top",), 320, 200)
    plant.start_render()
    images = plant.finish_render()
    assert list(images) == ["top"] and images["top"].shape == (200, 320, 3) and images["top"].dtype == np.uint8


@pytest.mark.parametrize("embodiment", ["fr3", "panda"])
def test_success_is_to_rest_at_the_goal(embodiment: str) -> None:
    plant = Fr3Plant(embodiment=embodiment)
    plant.reset("Reach-v0", 3)
    assert not plant.privileged().success
    goal = reach_goal(plant._arm, 3)
    plant.step(goal, np.full(7, 0.1), 1.0)
    assert not plant.privileged().success
    plant.step(goal + 0.019, np.zeros(7), 1.0)
    assert plant.privileged().success


def test_wrong_arguments_are_named() -> None:
    for wrong, reason in (
        ({"views": ()}, "at least one"),
        ({"views": ("a", "a")}, "each once"),
        ({"views": ("../x",)}, "a-z"),
        ({"width_px": 4}, "16 to 4096"),
        ({"control_period_ns": 1}, "multiple of"),
        ({"embodiment": "fr4"}, "did you mean 'fr3'"),
    ):
        with pytest.raises(ValueError, match=reason):
            Fr3Plant(**wrong)
    with pytest.raises(ValueError, match="did you mean 'Reach-v0'"):
        Fr3Plant().reset("Reech-v0", 0)
