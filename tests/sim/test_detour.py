"""Detour-v0: two ways, neither of them visible beforehand; straight through is a failure."""

from __future__ import annotations

import numpy as np
import pytest

from e0_policy.embodiment import load_embodiment
from e0_policy.kinematics import tcp_position_m
from e0_policy.types import FloatArray
from sim import detour
from sim.detour_data import DetourSource
from sim.direct import DirectLoop
from sim.fr3_plant import Fr3Plant, start_positions
from sim.plant_planner import plan_detour
from sim.sources import ExpertSource

ARM = load_embodiment("fr3")


def played(rows: FloatArray, seed: int = 0) -> Fr3Plant:
    plant = Fr3Plant(("base",), 48, 48)
    plant.reset(detour.TASK, seed)
    for row in rows:
        plant.step(row[:7], np.zeros(7), 1.0)
    return plant


def way_seed(way: str) -> int:
    return next(s for s in range(20) if played(plan_detour(ARM, 0, s)).privileged().way == way)


@pytest.mark.parametrize("way", [detour.LEFT, detour.RIGHT])
def test_one_scene_is_solved_both_ways(way: str) -> None:
    found = played(plan_detour(ARM, 0, way_seed(way))).privileged()
    assert found.success and found.way == way


def test_straight_through_the_post_is_a_failure_even_at_the_target() -> None:
    start, scene = start_positions(ARM, 0), detour.draw_scene(ARM, 0)
    begin = tcp_position_m(start)
    rows = detour.follow(begin + np.linspace(0, 1, 20)[:, None] * (scene.target_m - begin), start)
    plant = played(rows)
    assert np.linalg.norm(tcp_position_m(plant.joint_state()[0]) - scene.target_m) < 1e-3
    assert not plant.privileged().success and plant.privileged().way == ""


def test_a_path_that_swings_over_the_line_is_not_one_way() -> None:
    start, scene = start_positions(ARM, 0), detour.draw_scene(ARM, 0)
    begin, s = tcp_position_m(start), np.linspace(0, 1, 40)[:, None]
    along = (scene.target_m - scene.home_m) / np.linalg.norm(scene.target_m - scene.home_m)
    swing = 0.1 * np.where(s < 0.25, -0.7 * np.sin(4 * np.pi * s), np.sin(np.pi * (s - 0.25) / 0.75))
    plant = played(detour.follow(begin + s * (scene.target_m - begin) + swing * [-along[1], along[0], 0.0], start))
    assert plant.privileged().success and plant.privileged().way == ""


def test_the_way_shows_neither_in_the_start_nor_in_the_picture() -> None:
    """Both ways are drawn about as often, and begin in the same state before the same picture."""
    left = [plan_detour(ARM, 0, s)[12] @ np.eye(7)[0] > ARM.home[0] for s in range(60)]
    assert 15 < sum(left) < 45
    plants = [played(plan_detour(ARM, 0, way_seed(way))[:0]) for way in (detour.LEFT, detour.RIGHT)]
    assert np.array_equal(plants[0].joint_state()[0], plants[1].joint_state()[0])
    for plant in plants:
        plant.start_render()
    assert np.array_equal(*(plant.finish_render()["base"] for plant in plants))


def test_the_picture_shows_target_post_and_tool() -> None:
    scene, picture = detour.draw_scene(ARM, 3), None
    picture = detour.draw(scene, "base", start_positions(ARM, 3), 64, 80)
    assert picture.shape == (64, 80, 3)
    for rgb in ((40, 200, 60), (220, 40, 40), (250, 250, 250)):
        assert (np.abs(picture.astype(int) - rgb).sum(2) < 30).any()
    moved = detour.draw(detour.draw_scene(ARM, 4), "base", start_positions(ARM, 3), 64, 80)
    assert not np.array_equal(picture, moved)


@pytest.mark.parametrize("embodiment", ["fr3", "panda"])
def test_the_expert_solves_it_through_the_executor(embodiment: str) -> None:
    plant = Fr3Plant(("base",), 32, 32, embodiment)
    loop, expert = DirectLoop(plant, detour.TASK), ExpertSource("fr3_plant", load_embodiment(embodiment))
    for seed in range(3):
        expert.reset(detour.TASK, seed)
        done = loop.run(detour.TASK, seed, expert)
        assert done.success and plant.privileged().way and done.violations == 0


def test_demonstrations_stand_beside_the_plan_and_lead_back() -> None:
    source = DetourSource(2, 32)
    episode = source.episodes[0]
    beside = episode.proprioception - episode.actions
    assert 0.005 < beside[:, :7].std() < 0.02 and not beside[:, 7].any()
    assert source.images(0, 4)["base"].shape == (32, 32, 3)
    assert np.array_equal(DetourSource(1, 32).episodes[0].proprioception, episode.proprioception)
