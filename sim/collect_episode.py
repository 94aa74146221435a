"""One episode of `e0 collect`: an expert moves the direct loop, and every tick becomes a frame."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from e0_policy.dataset import DatasetError, Episode, PackedSource
from e0_policy.embodiment import load_embodiment
from e0_policy.types import FloatArray, ImageArray, Representation
from sim.adapter import RowAdapter, SimAdapter
from sim.collect_config import CollectConfig
from sim.demonstration import PERIOD_NS
from sim.direct import DirectLoop, Moment
from sim.disturbance import Disturbance
from sim.maniskill_arm import JOINTS
from sim.maniskill_tasks import TASKS
from sim.simulators import instructions, make_adapter, make_row_adapter
from sim.sources import ExpertSource

_DRY_PX = 16
"""Size of the one picture of an episode that nobody looks at."""


@dataclass(frozen=True)
class Taken:
    """An episode's frames; `images` is `(views, T, side, side, 3)`, `labels` privileged (None: there are none)."""

    episode: Episode
    images: ImageArray
    labels: NDArray[np.float32] | None


@dataclass(frozen=True)
class Outcome:
    """What an episode came to.

    `max_steps` was its limit. `taken` is None without success, without a single step, and where nothing is kept.
    """

    task: str
    seed: int
    success: bool
    steps: int
    max_steps: int
    processor_s: float
    taken: Taken | None


def take(config: CollectConfig, task: str, seed: int, keep: bool) -> Outcome:
    """Run one episode in this process; without `keep` no pictures are made but the first."""
    began_s, frames = time.process_time(), list[Moment]()
    loop, expert = stage(config, config.tasks[0] if config.step_names else task, keep)
    expert.reset(task, seed)
    done = loop.run(task, seed, expert, config.max_steps, frames.append if keep else None)
    taken = frames_of(config, task, seed, frames) if done.success else None
    return Outcome(task, seed, done.success, done.steps, done.max_steps, round(time.process_time() - began_s, 3), taken)


def frames_of(config: CollectConfig, task: str, seed: int, seen: Sequence[Moment]) -> Taken | None:
    """The frames of an episode, but for its last one, after which nothing is commanded; None if that leaves none."""
    moments = [moment for moment in seen if moment.row is not None and not moment.success]
    if not moments:
        return None
    states = np.array([np.append(m.joint_positions, m.gripper_opening) for m in moments])
    rows = np.array([m.row for m in moments])
    episode = Episode(name_of(task, seed), instructions(config.simulator)[task], states, rows, scene=(task, seed))
    images = np.array([[m.images[view] for m in moments] for view in config.views])
    return Taken(episode, images, _labels(task, moments, states) if config.simulator == "maniskill" else None)


def name_of(task: str, seed: int) -> str:
    """What an episode is called in its folder."""
    return f"{task}-{seed}"


def demonstrations(folder: Path, task: str) -> dict[int, FloatArray]:
    """Rows `(n, joints + 1)` of a collected folder's episodes of a task, by seed: the set-points, `PERIOD_NS` apart.

    Raises:
        DatasetError: no such folder, rows of another kind or period, or no episode of the task.

    """
    source, needed = PackedSource(folder), Representation.JOINT_POSITION
    if source.representation != needed:
        raise DatasetError(f"{folder}: its rows are {source.representation.label}; needed are {needed.label}")
    if source.period_ns != PERIOD_NS:
        raise DatasetError(f"{folder}: its rows are {source.period_ns} ns apart; needed are {PERIOD_NS}")
    named = [(*episode.identifier.rpartition("-")[::2], episode.actions) for episode in source.episodes]
    found = {int(seed): rows for of, seed, rows in named if of == task}
    if not found:
        raise DatasetError(f"{folder} has no episode of {task}; it has {', '.join(sorted({of for of, *_ in named}))}")
    return found


def _labels(task: str, moments: Sequence[Moment], states: NDArray[np.float64]) -> NDArray[np.float32]:
    """Rows of `sim.scenes.LABELS`: where object, goal and tool are, and the state."""
    things = (TASKS[task].object_name, TASKS[task].goal_name, "tcp")
    poses = np.array([np.concatenate([m.poses[name] for name in things]) for m in moments])
    return np.column_stack([poses, states[:, :JOINTS], states[:, -1]]).astype(np.float32)


@lru_cache(maxsize=8)
def stage(config: CollectConfig, task: str, keep: bool) -> tuple[DirectLoop, ExpertSource]:
    """Loop and expert, one per task and process: a scene of another task takes a while to make.

    A stepped simulator is one for all tasks, as it makes each scene anew and may be there only once in a process.
    """
    size_px = config.size_px if keep else _DRY_PX
    views = config.views if keep else config.views[:1]
    size = (size_px, size_px)
    adapter: SimAdapter | RowAdapter = (
        make_row_adapter(config.simulator, views, size)
        if config.step_names
        else make_adapter(config.simulator, views, size, config.embodiment)
    )
    arm = load_embodiment(config.embodiment)
    pushes = Disturbance(len(arm.joint_names), config.disturbance_rad, config.disturbance_share)
    loop = DirectLoop(adapter, task, disturbance=pushes if config.disturbance_rad else None)
    return loop, ExpertSource(config.simulator, arm, lambda: adapter.privileged().poses)
