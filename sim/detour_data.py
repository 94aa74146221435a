"""Demonstrations of Detour-v0 straight from the planner, in seconds: no graph, no topics, no bag.

`e0 record` and `e0 convert` make the same task into a dataset the long way. Here the arm stands at every row of a plan,
a little beside it (the rows lead back), and the pictures are drawn for that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from e0_policy.dataset import Episode, PackedSource, write_packed
from e0_policy.embodiment import load_embodiment
from e0_policy.types import FloatArray, ImageArray, Representation
from e0_ros.config import ConfigError
from sim import detour
from sim.demonstration import PERIOD_NS
from sim.plant_planner import plan_detour

BESIDE_RAD = 0.01
"""Standard deviation of the joints beside the plan."""
_HELD = 6
"""Frames at rest on the target."""


class DetourSource:
    """Demonstrations of seeds `0:episodes`, a scene and a way each; a `Source` for training.

    Args:
        episodes: how many.
        size_px: side of the pictures.
        views: `base`, `wrist`, ...
        arm: embodiment.

    """

    period_ns = PERIOD_NS
    representation = Representation.JOINT_POSITION

    def __init__(self, episodes: int, size_px: int, views: tuple[str, ...] = ("base",), arm: str = "fr3") -> None:
        self.embodiment, self.views, self._size_px = arm, views, size_px
        self._arm = load_embodiment(arm)
        self.proprioception_names = self.action_names = (*self._arm.joint_names, "gripper")
        self.episodes: Sequence[Episode] = [self._demonstrate(seed) for seed in range(episodes)]

    def images(self, episode: int, frame: int) -> Mapping[str, ImageArray]:
        """The views of one frame."""
        scene, positions = detour.draw_scene(self._arm, episode), self.episodes[episode].proprioception[frame, :-1]
        return {v: detour.draw(scene, v, positions, self._size_px, self._size_px) for v in self.views}

    def _demonstrate(self, seed: int) -> Episode:
        plan = plan_detour(self._arm, seed, seed)
        joints = np.concatenate([plan, np.repeat(plan[-1:], _HELD, 0)])
        beside = np.random.default_rng([seed, 6]).normal(0.0, BESIDE_RAD, joints.shape)
        states, rows = _with_gripper(joints + beside), _with_gripper(joints)
        return Episode(f"detour-{seed}", detour.INSTRUCTION, states, rows, scene=(detour.TASK, seed))


def write_detour(folder: Path, episodes: int, size_px: int, views: tuple[str, ...] = ("base",)) -> None:
    """Write demonstrations as a packed folder, if it is not there yet; it appears only when it is whole.

    Raises:
        ConfigError: those that are there are others.

    """
    if not folder.exists():
        write_packed(DetourSource(episodes, size_px, views), folder)
    there = PackedSource(folder)
    found = len(there.episodes), there.side_px(there.views[0]), there.views
    if found != (episodes, size_px, views):
        raise ConfigError(
            f"{folder} has {found[0]} demonstrations with {', '.join(there.views)} of {found[1]} px; asked for are "
            f"{episodes} with {', '.join(views)} of {size_px} px; choose another --out"
        )


def _with_gripper(joints: FloatArray) -> FloatArray:
    """Rows with an open gripper."""
    return np.column_stack([joints, np.ones(len(joints))])
