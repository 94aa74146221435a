"""A reaching task drawn into small images: demonstrations for tests and smoke runs, with no simulator.

A Panda turns two of its joints (q1 and q4) until its tool is over the dot that the instruction names, then closes its
gripper. The base view looks down on the table, the wrist view follows the tool.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from e0_policy.dataset import Episode
from e0_policy.embodiment import load_embodiment
from e0_policy.kinematics import tcp_position_m
from e0_policy.policy import Policy
from e0_policy.types import FloatArray, ImageArray, Observation, Representation

COLOURS = {"red": (220, 40, 40), "green": (40, 200, 60)}
MAX_STEP_RAD = 0.08
_HOME = np.array([0.0, -np.pi / 4, 0.0, -3 * np.pi / 4, 0.0, np.pi / 2, np.pi / 4])
_Q1, _Q4 = (-0.6, 0.6), (-2.7, -1.6)
_TABLE_M = ((0.1, 0.7), (-0.3, 0.3))
_WRIST_M = 0.12


@dataclass(frozen=True)
class Scene:
    """Two dots on the table `(x, y)` m by colour, and the joint positions that reach them."""

    goals: Mapping[str, FloatArray]
    target: str

    @property
    def instruction(self) -> str:
        """What to do."""
        return f"reach the {self.target} dot"

    def dot_m(self, colour: str) -> FloatArray:
        """`(x, y)` of a dot."""
        return tcp_position_m(self.goals[colour])[:2]


class SyntheticSource:
    """Demonstrations of the reaching task; a function of its arguments."""

    embodiment = "panda"
    period_ns = 50_000_000
    representation = Representation.JOINT_POSITION
    views: tuple[str, ...] = ("base", "wrist")

    def __init__(self, episodes: int, seed: int = 0, image_size: int = 64) -> None:
        names = (*load_embodiment("panda").joint_names, "gripper")
        self.proprioception_names = self.action_names = names
        self.image_size = image_size
        drawn = [draw_scene(np.random.default_rng((seed, i))) for i in range(episodes)]
        self.scenes = [scene for scene, _ in drawn]
        self.episodes: Sequence[Episode] = [_demonstrate(f"{seed}-{i}", *pair) for i, pair in enumerate(drawn)]

    def images(self, episode: int, frame: int) -> Mapping[str, ImageArray]:
        """Both views of one frame."""
        return draw_views(self.scenes[episode], self.episodes[episode].proprioception[frame], self.image_size)


def draw_scene(rng: np.random.Generator) -> tuple[Scene, FloatArray]:
    """A random scene and joint positions to start from `(7,)`; dots are at least 12 cm apart and from the tool."""
    while True:
        q = np.tile(_HOME, (3, 1))
        q[:, 0], q[:, 3] = rng.uniform(*_Q1, 3), rng.uniform(*_Q4, 3)
        points = tcp_position_m(q)[:, :2]
        if min(np.linalg.norm(points[i] - points[j]) for i, j in ((0, 1), (0, 2), (1, 2))) > 0.12:
            return Scene({"red": q[1], "green": q[2]}, ("red", "green")[int(rng.integers(2))]), q[0]


def draw_views(scene: Scene, proprioception: FloatArray, side: int) -> dict[str, ImageArray]:
    """Base and wrist view `uint8 (side, side, 3)` of a state `(8,)`."""
    tool = tcp_position_m(proprioception[:7])[:2]
    base = table(_TABLE_M, side)
    wrist_window = ((tool[0] - _WRIST_M, tool[0] + _WRIST_M), (tool[1] - _WRIST_M, tool[1] + _WRIST_M))
    wrist = table(wrist_window, side)
    for colour, rgb in COLOURS.items():
        base = disc(base, _TABLE_M, scene.dot_m(colour), 0.035, rgb)
        wrist = disc(wrist, wrist_window, scene.dot_m(colour), 0.035, rgb)
    size = 0.012 + 0.012 * float(proprioception[7])
    base = disc(base, _TABLE_M, tool, size, (250, 250, 250))
    wrist = disc(wrist, wrist_window, tool, size, (250, 250, 250))
    return {"base": np.rint(base).astype(np.uint8), "wrist": np.rint(wrist).astype(np.uint8)}


def reach(policy: Policy, seed: int, steps: int = 40, image_size: int = 64) -> tuple[float, float]:
    """Run a policy closed loop on a scene of its own; commands are reached at once.

    Args:
        policy: replanned every `execution_horizon` rows.
        seed: of the scene.
        steps: rows that are executed.
        image_size: px of the views.

    Returns:
        Distance of the tool from the right dot [m] and gripper opening at the end.

    """
    scene, q = draw_scene(np.random.default_rng((seed, 1_000_000)))
    state, step = np.append(q, 1.0), 0
    policy.reset()
    while step < steps:
        views = draw_views(scene, state, image_size)
        stamp = step * SyntheticSource.period_ns
        output = policy.infer(Observation(stamp, views, state[:7], state[7], scene.instruction, "panda"), None)
        if output is None:
            break
        count = min(policy.execution_horizon, steps - step)
        state, step = output.rows[count - 1], step + count
    return float(np.linalg.norm(tcp_position_m(state[:7])[:2] - scene.dot_m(scene.target))), float(state[7])


def _demonstrate(identifier: str, scene: Scene, start: FloatArray) -> Episode:
    goal = scene.goals[scene.target]
    steps = max(1, int(np.ceil(np.abs(goal - start).max() / MAX_STEP_RAD)))
    q = start + np.linspace(0.0, 1.0, steps + 1)[:, None] * (goal - start)
    q = np.concatenate([q, np.repeat(goal[None], 4, 0)])
    gripper = np.ones(len(q))
    gripper[steps + 1 :] = 0.0
    states = np.concatenate([q, gripper[:, None]], 1)
    return Episode(identifier, scene.instruction, states[:-1], states[1:])


Window = tuple[tuple[float, float], tuple[float, float]]


def table(window: Window, side: int) -> FloatArray:
    """Table with a faint grid of 10 cm, which tells the views' places apart."""
    x, y = _axes(window, side)
    lines_x, lines_y = (np.abs((axis * 10) % 1 - 0.5) > 0.42 for axis in (x, y))
    return np.where((lines_x[:, None] | lines_y)[..., None], 110.0, 90.0) * np.ones(3)


def disc(
    image: FloatArray, window: Window, centre: FloatArray, radius_m: float, rgb: tuple[int, int, int]
) -> FloatArray:
    """The picture with a disc, drawn into its bounding box alone."""
    x, y = _axes(window, len(image))
    pixel_m = (window[0][1] - window[0][0]) / len(image)
    rows, columns = (np.flatnonzero(np.abs(a - c) < radius_m + pixel_m) for a, c in ((x, centre[0]), (y, centre[1])))
    if not rows.size or not columns.size:
        return image
    box = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    distance = np.hypot(x[rows][:, None] - centre[0], y[columns] - centre[1])
    cover = np.clip((radius_m - distance) / pixel_m + 0.5, 0.0, 1.0)[..., None]
    drawn = image.copy()
    drawn[box] = image[box] * (1.0 - cover) + np.array(rgb) * cover
    return drawn


def _axes(window: Window, side: int) -> tuple[FloatArray, FloatArray]:
    """Table coordinates of the pixel rows and columns: x up the image, y to the left, seen from above the base."""
    (x0, x1), (y0, y1) = window
    step = (np.arange(side) + 0.5) / side
    return x1 - step * (x1 - x0), y1 - step * (y1 - y0)
