"""How ManiSkill's tasks are done, motion by motion, by somebody who knows where everything is.

A solution is a generator: it looks at the scene, yields a motion, and goes on when the arm has come to rest at its end,
with the scene as it is then. What is grasped is therefore placed as it lies in the hand, not as it was meant to. The
ways are those of `mani_skill.examples.motionplanning.panda.solutions`; where they differ, a docstring says so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import cv2
import numpy as np

from e0_policy.types import FloatArray

OPEN, CLOSED = 1.0, 0.0
_ABOVE_M = 0.05
_RISE_TO_M = 0.1
_CUBE_M = 0.04
_FINGERS_M = 0.06
"""From the middle of the open hand to the outside of a finger."""
_TWISTED_RAD = 2.7
"""A last joint so far from the middle is 0.2 rad from its end."""
_UPRIGHT_REACH_M, _LEAN_RAD = 0.78, np.deg2rad(15.0)
"""How far from its base a Panda's hand that points down gets to the table, less 2 cm; how much it leans beyond that."""


@dataclass(frozen=True)
class Move:
    """The tool on a straight line to a pose `T_base_tcp` `(4, 4)`, at a share of the full speed, then `rest` rows."""

    tool: FloatArray
    speed: float = 1.0
    rest: int = 0


@dataclass(frozen=True)
class Grip:
    """The fingers to an opening in [0, 1], in so many rows, while the arm stands."""

    opening: float
    rows: int = 6


Motion = Move | Grip


@dataclass
class View:
    """The scene as it is now, in the base frame.

    Attributes:
        poses: `(4, 4)` by name: actors, `tcp` as measured, and `goal` and `peg_head` where the task has them.
        tool: `T_base_tcp` that the arm is commanded to.
        opening: of the gripper, in [0, 1].

    """

    poses: Mapping[str, FloatArray] = field(default_factory=dict)
    tool: FloatArray = field(default_factory=lambda: np.eye(4))
    opening: float = OPEN

    def to_bring(self, name: str, goal: FloatArray) -> FloatArray:
        """Where the tool has to go for what it holds to be at `goal`, as it lies in the hand."""
        return goal @ np.linalg.inv(self.poses[name]) @ self.poses["tcp"]

    def to_correct(self, name: str, goal: FloatArray) -> FloatArray:
        """The same from where the tool is commanded to: what the arm falls short of its commands is made up for."""
        return goal @ np.linalg.inv(self.poses[name]) @ self.tool


Solution = Callable[[View], Iterator[Motion]]


def pick_cube(view: View) -> Iterator[Motion]:
    """Grasp it and bring it to the goal."""
    cube = view.poses["cube"]
    yield from _grasp(view, _along_a_side(view, cube))
    goal = view.tool.copy()
    goal[:3, 3] = view.poses["goal_site"][:3, 3]
    yield Move(goal)


def push_cube(view: View) -> Iterator[Motion]:
    """With closed fingers from behind it, through it, to the goal. ManiSkill's goes down and behind it in one line, and
    does without the farthest goals, which a hand that points down does not reach.
    """
    yield from _slide(view, -1.0, 0.12)


def pull_cube(view: View) -> Iterator[Motion]:
    """The same from beyond it."""
    yield from _slide(view, 1.0, 0.05)


def stack_cube(view: View) -> Iterator[Motion]:
    """Grasp A where the fingers are clear of B, lift it, bring it over B, set it down, let go.

    ManiSkill's takes the first pair of sides that it can reach, and crosses over to B in one line.
    """
    yield from _grasp(view, _along_a_side(view, view.poses["cubeA"], view.poses["cubeB"][:3, 3]))
    yield Move(_shifted(view.tool, z=0.1))
    goal = view.poses["cubeA"].copy()
    goal[:3, 3] = view.poses["cubeB"][:3, 3] + [0.0, 0.0, _CUBE_M]
    yield Move(view.to_bring("cubeA", _shifted(goal, z=_ABOVE_M)))
    yield Move(view.to_correct("cubeA", goal), speed=0.5, rest=4)
    yield Grip(OPEN)
    yield Move(_shifted(view.tool, z=0.1))


def insert_peg(view: View) -> Iterator[Motion]:
    """Grasp the peg behind its middle, line it up before the hole, correct that twice, push it in.

    ManiSkill's grasps it the nearer way round even where the last joint then comes to its end before the hole.
    """
    peg, head = view.poses["peg_0"], view.poses["peg_head"]
    half_m = float(np.linalg.norm(head[:3, 3] - peg[:3, 3]))
    before, inside = _inside(view.poses["goal"], -0.01 - half_m * 2), _inside(view.poses["goal"], 0.02)
    grasp = _shifted_along(_down_on(view, peg), peg, -max(0.05, half_m / 2 + 0.01))
    if _twist_rad(inside @ np.linalg.inv(peg) @ grasp) > _TWISTED_RAD:
        grasp = grasp @ np.diag([-1.0, -1.0, 1.0, 1.0])
    yield from _grasp(view, grasp)
    yield Move(_shifted(view.tool, z=_ABOVE_M))
    yield Move(view.to_bring("peg_0", before), rest=4)
    for _ in range(2):
        yield Move(view.to_correct("peg_0", before), speed=0.5, rest=4)
    yield Move(view.to_correct("peg_0", inside), speed=0.8)


def plug_charger(view: View) -> Iterator[Motion]:
    """Grasp the charger, line it up before the receptacle, correct that, once more just ahead of it, push it in.

    The prongs have half a millimetre of room. ManiSkill's goes in as soon as it is 5 cm ahead, and jams.
    """
    charger = view.poses["charger"]
    grasp = _shifted_along(_down_on(view, charger), charger, -0.02)
    tilt = np.eye(4)
    tilt[:3, :3] = cv2.Rodrigues(np.array([0.0, np.deg2rad(15.0), 0.0]))[0]
    yield from _grasp(view, grasp @ tilt)
    goal = view.poses["goal"]
    before, ahead = _inside(goal, -0.05), _inside(goal, -0.018)
    yield Move(view.to_bring("charger", before), rest=4)
    for _ in range(2):
        yield Move(view.to_correct("charger", before), rest=5)
    yield Move(view.to_correct("charger", ahead), rest=5)
    yield Move(view.to_correct("charger", ahead), rest=5)
    yield Move(view.to_correct("charger", goal), speed=0.4, rest=6)


def lift_peg_upright(view: View) -> Iterator[Motion]:
    """Grasp the peg beside its end, lift it, turn it, set it down."""
    yield from _grasp(view, _shifted_along(_down_on(view, view.poses["peg"]), view.poses["peg"], 0.10), 0.2)
    yield Move(_shifted(view.tool, z=0.30))
    turn = np.eye(4)
    turn[:3, :3] = cv2.Rodrigues(np.array([0.0, np.pi / 5, 0.0]))[0]
    yield Move(view.tool @ turn)
    yield Move(_shifted(view.tool, z=-0.10))


def rise(view: View) -> Iterator[Motion]:
    """Straight up until nothing stands in the way, the gripper left as it is: out of a scattered start."""
    if view.tool[2, 3] < _RISE_TO_M:
        yield Move(_shifted(view.tool, z=_RISE_TO_M - view.tool[2, 3]))


def _grasp(view: View, tool: FloatArray, opening: float = CLOSED) -> Iterator[Motion]:
    view.opening = OPEN
    yield Move(_shifted_along(tool, tool, -_ABOVE_M, axis=2))
    yield Move(tool, rest=2)
    yield Grip(opening)


def _slide(view: View, side: float, goal_m: float) -> Iterator[Motion]:
    yield Grip(CLOSED)
    cube, end_m = view.poses["cube"], view.poses["goal_region"][:3, 3] + [side * goal_m, 0.0, 0.0]
    behind = view.tool.copy()
    if np.linalg.norm(end_m[:2]) > _UPRIGHT_REACH_M:
        behind[:3, :3] = cv2.Rodrigues(np.array([0.0, -_LEAN_RAD, 0.0]))[0] @ behind[:3, :3]
    goal = behind.copy()
    behind[:3, 3] = cube[:3, 3] + [side * 0.05, 0.0, 0.0]
    goal[:3, 3] = [*end_m[:2], cube[2, 3]]
    yield Move(_shifted(behind, z=0.08))
    yield Move(behind)
    yield Move(goal)


def _down_on(view: View, thing: FloatArray, closing: FloatArray | None = None) -> FloatArray:
    """The tool at a thing's middle, pointing down, the fingers closing along its y axis, the nearer way round."""
    y = np.array([*(thing[:2, 1] if closing is None else closing), 0.0])
    y /= np.linalg.norm(y)
    y = -y if y @ view.tool[:3, 1] < 0 else y
    z = np.array([0.0, 0.0, -1.0])
    tool = np.eye(4)
    tool[:3, 0], tool[:3, 1], tool[:3, 2], tool[:3, 3] = np.cross(y, z), y, z, thing[:3, 3]
    return tool


def _along_a_side(view: View, cube: FloatArray, obstacle: FloatArray | None = None) -> FloatArray:
    """A grasp of a cube: across the pair of sides that turns the hand less, unless a finger would meet the obstacle."""
    sides = [_down_on(view, cube, cube[:2, axis]) for axis in (0, 1)]
    sides.sort(key=lambda tool: -float(tool[:3, 1] @ view.tool[:3, 1]))
    if obstacle is not None:
        sides.sort(key=lambda tool: _meets(tool, obstacle))
    return sides[0]


def _meets(tool: FloatArray, obstacle: FloatArray) -> bool:
    """Whether a cube there may be in the way of the open fingers."""
    off = np.abs((obstacle - tool[:3, 3]) @ tool[:3, :2])
    half = _CUBE_M * np.sqrt(0.5)
    return bool(off[1] < _FINGERS_M + half and off[0] < 0.01 + half)


def _twist_rad(tool: FloatArray) -> float:
    """How far the last joint is from the middle of its range, the hand pointing down: there its fingers close at 45
    degrees to the direction away from the base.
    """
    turned = np.arctan2(tool[1, 1], tool[0, 1]) - np.arctan2(tool[1, 3], tool[0, 3]) + np.pi / 4
    return float(abs((turned + np.pi) % (2 * np.pi) - np.pi))


def _shifted(pose: FloatArray, z: float) -> FloatArray:
    """The pose moved up."""
    moved = pose.copy()
    moved[2, 3] += z
    return moved


def _shifted_along(pose: FloatArray, along: FloatArray, distance_m: float, axis: int = 0) -> FloatArray:
    """The pose moved along an axis of another."""
    moved = pose.copy()
    moved[:3, 3] += distance_m * along[:3, axis]
    return moved


def _inside(goal: FloatArray, distance_m: float) -> FloatArray:
    """A goal moved along its own x axis, the way in."""
    return _shifted_along(goal, goal, distance_m)
