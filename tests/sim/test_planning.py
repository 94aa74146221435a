"""The experts in a scene without physics: the arm is where it is commanded, what is grasped moves with the hand."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from e0_policy.embodiment import load_embodiment
from e0_policy.kinematics import tcp_pose_and_jacobian
from e0_ros.core.camera_model import pose_matrix, quaternion_xyzw
from sim.maniskill_tasks import TASKS
from sim.planning import ManiSkillPlanner
from sim.scripted import Seen
from sim.straight import straight_rows

ARM = load_embodiment("panda")
HALF_PEG_M, REACH_M = 0.1, 0.79


def flat(x: float, y: float, z: float, yaw: float) -> np.ndarray:
    return pose_matrix([x, y, z], [0.0, 0.0, np.sin(yaw / 2), np.cos(yaw / 2)])


class Toy:
    """A scene: `things` by name; a grasp takes hold of `held`, which slips in the hand by `slip`.

    The arm reports that it is `sag` from where it is commanded; `grasped` is where the tool closed last.
    """

    def __init__(self, held: str, things: Mapping[str, np.ndarray], slip: np.ndarray, sag: np.ndarray) -> None:
        self.things, self.held, self.slip, self.sag = dict(things), held, slip, sag
        self.joints, self.opening = ARM.home + sag, 1.0
        self.in_hand: np.ndarray | None = None
        self.grasped = np.eye(4)

    @property
    def tool(self) -> np.ndarray:
        return tcp_pose_and_jacobian(self.joints)[0]

    def seen(self) -> Seen:
        poses = {"tcp": self.tool, **self.things}
        if self.held == "peg_0":
            poses["peg_head"] = poses["peg_0"] @ pose_matrix([HALF_PEG_M, 0, 0], [0, 0, 0, 1])
        told = {name: np.append(pose[:3, 3], quaternion_xyzw(pose[:3, :3])) for name, pose in poses.items()}
        return Seen(self.joints, self.opening, told)

    def play(self, rows: np.ndarray) -> None:
        for row in rows:
            self.joints, before, self.opening = row[:7] + self.sag, self.opening, row[7]
            if self.opening < before and self.held in self.things:
                near = np.linalg.norm(self.tool[:3, 3] - self.things[self.held][:3, 3]) < HALF_PEG_M
                self.in_hand = np.linalg.inv(self.tool) @ self.things[self.held] @ self.slip if near else None
                self.grasped = self.tool
            if self.opening > before:
                self.in_hand = None
            if self.in_hand is not None:
                self.things[self.held] = self.tool @ self.in_hand


def cube_at(x: float) -> Toy:
    things = {"cube": flat(x, 0.1, 0.02, 0.0), "goal_site": flat(0.6, 0.0, 0.2, 0.0)}
    return Toy("cube", things, np.eye(4), np.zeros(7))


def played(task: str, toy: Toy) -> int:
    """Motions that the expert of a task needed."""
    planner, count = ManiSkillPlanner(ARM), 0
    assert planner.begin(task, 0) == TASKS[task].instruction
    while (rows := planner.motion(toy.seen())) is not None:
        assert rows.shape[1] == 8 and np.isfinite(rows).all() and (rows[:, 7] >= 0).all() and (rows[:, 7] <= 1).all()
        toy.play(rows)
        count += 1
    return count


def apart(one: np.ndarray, other: np.ndarray) -> tuple[float, float]:
    between = np.linalg.inv(one) @ other
    return float(np.linalg.norm(between[:3, 3])), float(np.arccos(np.clip((np.trace(between[:3, :3]) - 1) / 2, -1, 1)))


places = st.tuples(st.floats(-0.08, 0.0), st.floats(-0.15, 0.15), st.floats(-1.0, 1.0))
receptacles = st.tuples(st.floats(0.02, 0.1), st.floats(-0.1, 0.1), st.floats(-0.39, 0.39))
boxes = st.tuples(st.floats(-0.05, 0.05), st.floats(0.2, 0.3), st.floats(-0.39, 0.39))
slips = st.tuples(st.floats(-0.004, 0.004), st.floats(-0.004, 0.004), st.floats(-0.05, 0.05))
sags = st.tuples(*[st.floats(-0.002, 0.002)] * 7)


@settings(deadline=None, max_examples=15, derandomize=True)
@given(place=places, goal=receptacles, slip=slips, sag=sags)
def test_a_charger_that_slipped_and_an_arm_that_sags_still_end_in_the_receptacle(
    place: tuple[float, float, float],
    goal: tuple[float, float, float],
    slip: tuple[float, float, float],
    sag: tuple[float, ...],
) -> None:
    things = {
        "charger": flat(0.615 + place[0], place[1], 0.012, place[2]),
        "goal": flat(0.615 + goal[0], goal[1], 0.1, goal[2]),
    }
    toy = Toy("charger", things, flat(slip[0], 0.0, slip[1], slip[2]), np.array(sag))
    assert played("PlugCharger-v1", toy) > 6
    off_m, off_rad = apart(toy.things["goal"], toy.things["charger"])
    assert off_m < 2e-4 and off_rad < 2e-3


@settings(deadline=None, max_examples=15, derandomize=True)
@given(place=places, goal=boxes, slip=slips)
@example(place=(-0.02, 0.06, 0.65), goal=(0.04, 0.26, -0.39), slip=(0.0, 0.0, 0.0))  # the nearer way round is too far
def test_a_peg_goes_through_its_hole_along_the_holes_axis(
    place: tuple[float, float, float], goal: tuple[float, float, float], slip: tuple[float, float, float]
) -> None:
    things = {
        "peg_0": flat(0.615 + place[0], -0.15 + place[1] / 2, 0.02, np.pi / 2 + place[2]),
        "goal": flat(0.615 + goal[0], goal[1], 0.1, np.pi / 2 + goal[2]),
    }
    toy = Toy("peg_0", things, flat(slip[0], 0.0, slip[1], slip[2]), np.zeros(7))
    played("PegInsertionSide-v1", toy)
    inside = np.linalg.inv(things["goal"]) @ toy.things["peg_0"]
    assert inside[0, 3] == pytest.approx(0.02, abs=1e-6)
    assert np.abs(inside[1:3, 3]).max() < 1e-6 and apart(np.eye(4), inside)[1] < 1e-6


@settings(deadline=None, max_examples=20, derandomize=True)
@given(place=places, off=st.floats(0.058, 0.2), angle=st.floats(-3.2, 3.2), yaw=st.floats(-3.0, 3.0))
@example(place=(-0.04, 0.0, 0.1), off=0.06, angle=1.6, yaw=0.4)  # where the hand would close without turning
def test_a_cube_is_set_down_on_another_and_no_finger_goes_down_into_it(
    place: tuple[float, float, float], off: float, angle: float, yaw: float
) -> None:
    """As far as a hand gets that points down over the table: about 0.8 m from the base, by the lengths of its links."""
    a = flat(0.615 + place[0], place[1], 0.02, place[2])
    b = flat(a[0, 3] + off * np.cos(angle), a[1, 3] + off * np.sin(angle), 0.02, yaw)
    assume(np.linalg.norm(b[:2, 3]) < REACH_M)
    toy = Toy("cubeA", {"cubeA": a, "cubeB": b}, np.eye(4), np.zeros(7))
    played("StackCube-v1", toy)
    np.testing.assert_allclose(toy.things["cubeA"][:3, 3] - b[:3, 3], [0.0, 0.0, 0.04], atol=1e-6)
    assert toy.opening == 1.0
    fingers = [(x, side * y, 0.0, 1.0) for x in (-0.01, 0.0, 0.01) for y in (0.04, 0.05, 0.06) for side in (1, -1)]
    beside = np.abs((np.linalg.inv(b) @ toy.grasped @ np.array(fingers).T)[:2])
    assert (beside.max(axis=0) > 0.02).all()


@settings(deadline=None, max_examples=10, derandomize=True)
@given(x=st.floats(-0.1, 0.1), y=st.floats(-0.1, 0.1))
@example(x=0.1, y=0.1)
@example(x=0.1, y=-0.1)
def test_a_cube_is_pushed_wherever_its_goal_may_be(x: float, y: float) -> None:
    """The farthest goals are beyond the reach of a hand that points down."""
    cube, goal = flat(0.615 + x, y, 0.02, 0.0), flat(0.815 + x, y, 0.001, 0.0)
    toy = Toy("", {"cube": cube, "goal_region": goal}, np.eye(4), np.zeros(7))
    played("PushCube-v1", toy)
    assert toy.opening == 0.0 and toy.tool[:3, 3] == pytest.approx([0.695 + x, y, 0.02], abs=1e-6)
    assert (toy.tool[2, 2] < -0.999) == bool(np.hypot(0.695 + x, y) < 0.78), "a hand leans only where it must"


def test_a_cube_is_picked() -> None:
    goal = flat(0.65, 0.1, 0.25, 0.0)
    toy = Toy("cube", {"cube": flat(0.6, -0.05, 0.02, 0.4), "goal_site": goal}, np.eye(4), np.zeros(7))
    played("PickCube-v1", toy)
    assert apart(goal, toy.things["cube"])[0] < 1e-6


def test_a_scattered_arm_rises_with_its_fingers_as_they_are_before_it_opens_them() -> None:
    toy = cube_at(0.6)
    planner, low = ManiSkillPlanner(ARM), toy.tool
    low[2, 3] = 0.03
    down = straight_rows(ARM, ARM.home, low)
    assert down is not None
    toy.joints, toy.opening = down[-1], 0.3
    planner.begin("PickCubeScattered-v1", 0)
    rising = planner.motion(toy.seen())
    assert rising is not None and (rising[:, 7] == 0.3).all()
    assert tcp_pose_and_jacobian(rising[-1, :7])[0][2, 3] == pytest.approx(0.1)
    toy.play(rising)
    reaching = planner.motion(toy.seen())
    assert reaching is not None and (reaching[:, 7] == 1.0).all()


def test_where_there_is_no_way_there_are_no_more_rows_and_an_unknown_task_is_named() -> None:
    assert played("PickCube-v1", cube_at(1.6)) == 0
    with pytest.raises(ValueError, match="did you mean 'PushCube-v1'"):
        ManiSkillPlanner(ARM).begin("PushCube", 0)
