"""Demonstrations without topics and bags: `e0 collect --task PickCube-v1 --episodes 500 --out data/pick`

The experts move the direct loop (`sim.live_expert`), and every tick becomes a frame of a packed folder that `e0 train`
reads: what `e0 record` and `e0 convert` would make of it, many times faster and with pictures as they were drawn. It
needs a simulator and no ROS. The folder is also one of scenes: where things are is written beside the frames, to teach
an encoder (`auxiliary_scenes`, `e0 pretrain`); no policy reads it. Failed episodes are left out.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import lru_cache
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from e0_policy.dataset import Episode
from e0_policy.embodiment import load_embodiment
from e0_policy.packed_writer import Header, PackedWriter
from e0_policy.types import ImageArray
from e0_ros.config import ConfigError, check, setting
from sim.demonstration import PERIOD_NS
from sim.direct import DirectLoop, Moment
from sim.disturbance import Disturbance
from sim.live_expert import LiveExpert
from sim.maniskill import VIEWS, ManiSkillAdapter
from sim.maniskill_arm import JOINTS
from sim.maniskill_tasks import task_named
from sim.scenes import LABELS

_AHEAD = 2
"""Episodes per process that are handed out at a time: they are written in the order of their seeds."""


@dataclass(frozen=True)
class CollectConfig:
    """Which demonstrations. The same values give the same folder, whatever the number of processes."""

    tasks: tuple[str, ...] = setting(("PickCube-v1", "PushCube-v1"), "ManiSkill tasks, one episode of each in turn")
    views: tuple[str, ...] = setting(VIEWS, "cameras", choices=VIEWS)
    episodes: int = setting(1000, "episodes that are run in all", low=1, high=10_000_000)
    first_seed: int = setting(100_000, "of each task", low=0, high=2**31 - 1)
    size_px: int = setting(128, "width and height of a picture", unit="px", low=16, high=1024)
    disturbance_rad: float = setting(0.0, "largest push on a joint", unit="rad", low=0.0, high=0.2)
    disturbance_share: float = setting(0.6, "share of the episodes that are disturbed", low=0.0, high=1.0)

    def __post_init__(self) -> None:
        check(self)
        if not self.tasks or not self.views:
            raise ConfigError(
                f"CollectConfig has {len(self.tasks)} tasks and {len(self.views)} views; 1 or more needed"
            )
        for task in self.tasks:
            task_named(task)

    def job(self, index: int) -> tuple[str, int]:
        """Task and seed of an episode; a task that is named several times has its own seeds each time."""
        turn, place = divmod(index, len(self.tasks))
        task = self.tasks[place]
        times, before = self.tasks.count(task), self.tasks[:place].count(task)
        return task, self.first_seed + turn * times + before


@dataclass(frozen=True)
class Taken:
    """An episode's frames; `images` is `(views, T, side, side, 3)`."""

    episode: Episode
    task: str
    images: ImageArray
    labels: NDArray[np.float32]


def collect(config: CollectConfig, out: Path, workers: int = 2, limit_s: float = 0.0) -> Counter[str]:
    """Run all episodes, or those that begin within the limit, and write the successful ones.

    Returns:
        By task how many were run, and how many kept (`TASK kept`).

    Raises:
        DatasetError: the folder exists.
        RuntimeError: no episode succeeded, or a process died.

    """
    arm = load_embodiment(ManiSkillAdapter.embodiment)
    names = (*arm.joint_names, "gripper")
    tasks = tuple(dict.fromkeys(config.tasks))
    header = Header(arm.name, PERIOD_NS, config.views, config.size_px, names, LABELS, tasks)
    writer, counts, began = PackedWriter(out, header), Counter[str](), time.monotonic()
    for index, taken in _episodes(config, workers, limit_s):
        task = config.job(index)[0]
        counts[task] += 1
        if taken is not None:
            counts[f"{task} kept"] += 1
            images = dict(zip(config.views, taken.images, strict=True))
            writer.add(taken.episode, images, tasks.index(task), taken.labels)
        if not (index + 1) % 20:
            rate = writer.frames / (time.monotonic() - began)
            print(f"{index + 1} episodes, {len(writer.episodes)} kept, {rate:.0f} frames/s", flush=True)
    if not writer.episodes:
        raise RuntimeError(f"none of {sum(counts.values())} episodes succeeded")
    writer.close()
    return counts


def _episodes(config: CollectConfig, workers: int, limit_s: float) -> Iterator[tuple[int, Taken | None]]:
    """Episodes in order, from several processes."""
    os.environ.setdefault("LP_NUM_THREADS", "1")
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    until = time.monotonic() + limit_s if limit_s else float("inf")
    running: deque[tuple[int, Future[Taken | None]]] = deque()
    with ProcessPoolExecutor(workers, get_context("spawn")) as pool:
        try:
            for index in range(config.episodes):
                if time.monotonic() > until:
                    break
                running.append((index, pool.submit(take, config, *config.job(index))))
                while len(running) >= _AHEAD * workers:
                    done, future = running.popleft()
                    yield done, future.result()
            for index, future in running:
                yield index, future.result()
        except BrokenProcessPool:
            raise RuntimeError("a process that collects died") from None
        finally:
            pool.shutdown(cancel_futures=True)


def take(config: CollectConfig, task: str, seed: int) -> Taken | None:
    """Run one episode in this process; None without success."""
    recorder = _Recorder(task)
    episode = _expert(config, task).run(task, seed, recorder)
    return recorder.taken(seed, config.views) if episode.success else None


class _Recorder:
    """Turns the moments of an episode into frames. The last one has no action any more."""

    def __init__(self, task: str) -> None:
        self._task, self._moments = task, list[Moment]()

    def __call__(self, moment: Moment) -> None:
        if moment.row is not None and not moment.success:
            self._moments.append(moment)

    def taken(self, seed: int, views: Sequence[str]) -> Taken | None:
        """The frames; None if there are none, because the scene was solved at its start."""
        moments, known = self._moments, task_named(self._task)
        if len(moments) < 2:
            return None
        states = np.array([np.append(m.joint_positions, m.gripper_opening) for m in moments])
        episode = Episode(f"{self._task}-{seed}", known.instruction, states, np.array([m.row for m in moments]))
        things = (known.object_name, known.goal_name, "tcp")
        poses = np.array([np.concatenate([m.poses[name] for name in things]) for m in moments])
        labels = np.column_stack([poses, states[:, :JOINTS], states[:, -1]]).astype(np.float32)
        images = np.array([[m.images[view] for m in moments] for view in views])
        return Taken(episode, self._task, images, labels)


@lru_cache(maxsize=8)
def _expert(config: CollectConfig, task: str) -> LiveExpert:
    """One per task and process: a scene of another task takes a while to make."""
    adapter = ManiSkillAdapter(config.views, config.size_px, config.size_px)
    arm = load_embodiment(adapter.embodiment)
    pushes = Disturbance(len(arm.joint_names), config.disturbance_rad, config.disturbance_share)
    return LiveExpert(DirectLoop(adapter, task, pushes if config.disturbance_rad else None), arm)


def main(argv: Sequence[str] | None = None) -> int:
    """`e0 collect`: 0 done, 1 failed, 2 wrong arguments."""
    default = CollectConfig()
    parser = argparse.ArgumentParser(
        prog="e0 collect",
        description="Demonstrations of ManiSkill's experts as a packed folder, without ROS.",
        epilog="Example: e0 collect --task PickCube-v1 --task StackCube-v1 --episodes 1000 --workers 16 --out data/two",
    )
    parser.add_argument("--task", action="append", help=f"repeat for several (default: {', '.join(default.tasks)})")
    parser.add_argument("--view", action="append", choices=VIEWS, help=f"repeat (default: {', '.join(default.views)})")
    parser.add_argument("--episodes", type=int, default=default.episodes, help="in all (default: %(default)s)")
    parser.add_argument(
        "--first-seed", type=int, default=default.first_seed, help="of each task (default: %(default)s)"
    )
    parser.add_argument("--size", type=int, default=default.size_px, help="of a picture in px (default: %(default)s)")
    parser.add_argument("--disturbance-rad", type=float, default=0.0, help="largest push on a joint (default: none)")
    parser.add_argument("--disturbance-share", type=float, default=default.disturbance_share, help="of the episodes")
    parser.add_argument("--limit-s", type=float, default=0.0, help="begin no episode after so many seconds")
    parser.add_argument("--workers", type=int, default=2, help="processes (default: %(default)s)")
    parser.add_argument("--out", type=Path, required=True, help="folder to make")
    a = parser.parse_args(argv)
    try:
        tasks, views = tuple(a.task or default.tasks), tuple(a.view or default.views)
        numbers = (a.episodes, a.first_seed, a.size, a.disturbance_rad, a.disturbance_share)
        counts = collect(CollectConfig(tasks, views, *numbers), a.out, max(1, a.workers), a.limit_s)
    except (ValueError, RuntimeError) as error:
        print(f"e0 collect: {error}", file=sys.stderr)
        return 2 if isinstance(error, ValueError) else 1
    for task in dict.fromkeys(tasks):
        print(f"{task}: {counts[f'{task} kept']} of {counts[task]} episodes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
