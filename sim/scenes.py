"""Random scenes with labels, without physics: `e0 scenes --task PickCube-v1 --count 12000 --out data/scenes`

What is written is a folder of arrays that are mapped into memory:

    index.json    tasks, views, names of the labels, how it was made; written last
    view_<name>.npy    (N, side, side, 3) uint8
    labels.npy    (N, labels) float32, the poses that the simulator knows
    task.npy    (N,) uint8, index of the task

The labels are privileged: they may teach an encoder to see, and are never inputs of a policy.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from functools import lru_cache
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from e0_policy.files import sync
from e0_policy.types import FloatArray
from e0_ros.config import ConfigError, check, setting
from sim.maniskill import VIEWS, ManiSkillAdapter
from sim.scene_sampling import scenes_of

FORMAT = 1
POSE = ("x", "y", "z", "qx", "qy", "qz", "qw")
LABELS = (
    *(f"{name}_{part}" for name in ("object", "goal", "tool") for part in POSE),
    *(f"joint{i}" for i in range(1, 8)),
    "gripper",
)
"""Columns of `labels.npy`: poses in the base frame [m], joint positions [rad], gripper opening."""
BLOCK = 100
_PLAN, _DONE = "plan.json", "done"
_TRIES = 100


@dataclass(frozen=True)
class ScenesConfig:
    """Which scenes. The same values give the same bits, whatever the number of processes."""

    tasks: tuple[str, ...] = setting(("PickCube-v1", "PushCube-v1"), "ManiSkill tasks, an equal share of scenes each")
    views: tuple[str, ...] = setting(VIEWS, "cameras", choices=VIEWS)
    count: int = setting(12_000, "scenes", low=1, high=10_000_000)
    side_px: int = setting(128, "width and height of a picture", unit="px", low=16, high=1024)
    seed: int = setting(0, "of the draws", low=0, high=2**31 - 1)

    def __post_init__(self) -> None:
        check(self)
        if not self.tasks or not self.views:
            raise ConfigError(f"ScenesConfig has {len(self.tasks)} tasks and {len(self.views)} views; 1 or more needed")
        for task in self.tasks:
            scenes_of(task)

    def task_of(self, block: int) -> int:
        """Index of the task that a block of scenes shows."""
        return block % len(self.tasks)


def make_scenes(config: ScenesConfig, out: Path, workers: int = 2) -> Path:
    """Render all scenes, or those that an interrupted run left; the folder appears under its name when it is whole.

    Raises:
        ConfigError: the folder exists, or what is there was begun with other values.
        RuntimeError: a process died.
        sim.vulkan.VulkanError: no usable Vulkan driver.

    """
    if out.exists():
        raise ConfigError(f"{out} exists; give a new folder")
    partial = _begin(config, out)
    blocks = sorted(range(-(-config.count // BLOCK)), key=lambda block: (config.task_of(block), block))
    left = [block for block in blocks if not (partial / _DONE / str(block)).exists()]
    os.environ.setdefault("LP_NUM_THREADS", "1")
    started, rendered = time.monotonic(), 0
    with ProcessPoolExecutor(min(workers, max(1, len(left))), get_context("spawn")) as pool:
        try:
            running = [pool.submit(render_block, config, partial, block) for block in left]
            for one in as_completed(running):
                rendered += one.result()
                rate = rendered / (time.monotonic() - started)
                print(f"\r{rendered} of {len(left) * BLOCK} scenes, {rate:.1f}/s", end="", flush=True)
        except BrokenProcessPool:
            raise RuntimeError("a rendering process died; the same command goes on where it ended") from None
        finally:
            pool.shutdown(cancel_futures=True)
    print()
    return _finish(config, partial, out)


def render_block(config: ScenesConfig, folder: Path, block: int) -> int:
    """Render one block of scenes into the arrays below `folder`; returns how many."""
    first, end = block * BLOCK, min(config.count, (block + 1) * BLOCK)
    names = [f"view_{view}.npy" for view in config.views]
    images = [np.load(folder / name, mmap_mode="r+", allow_pickle=False) for name in names]
    labels = np.load(folder / "labels.npy", mmap_mode="r+", allow_pickle=False)
    task = config.tasks[config.task_of(block)]
    adapter = _adapter(config.views, config.side_px)
    rest = _show(adapter, task)
    for index in range(first, end):
        labels[index] = place_randomly(adapter, task, rest, np.random.default_rng((config.seed, index)))
        adapter.start_render()
        pictures = adapter.finish_render()
        for view, array in zip(config.views, images, strict=True):
            array[index] = pictures[view]
    for array in (*images, labels):
        array.flush()
    (folder / _DONE / str(block)).touch()
    return end - first


def place_randomly(adapter: ManiSkillAdapter, task: str, rest: FloatArray, rng: np.random.Generator) -> FloatArray:
    """Put arm, object and goal of a task that was reset at random; returns the labels `(len(LABELS),)`.

    The arm takes the configuration that is found from near `rest`, as a motion from there would.

    Raises:
        RuntimeError: the arm reaches none of many draws.

    """
    scenes = scenes_of(task)
    for _ in range(_TRIES):
        draw = scenes.draw(rng)
        joints = adapter.reach(draw.tool, rest + rng.normal(0.0, 0.06, rest.shape))
        if joints is not None:
            break
    else:
        raise RuntimeError(f"{task}: the arm reaches none of {_TRIES} random poses")
    adapter.place(joints, draw.gripper_opening, {scenes.object_name: draw.cube, scenes.goal_name: draw.goal})
    told = adapter.privileged().poses
    poses = [told[name] for name in (scenes.object_name, scenes.goal_name, "tcp")]
    return np.concatenate([*poses, adapter.joint_state()[0], [adapter.gripper_opening()]])


@lru_cache(maxsize=1)
def _adapter(views: tuple[str, ...], side_px: int) -> ManiSkillAdapter:
    return ManiSkillAdapter(views, side_px, side_px)


@lru_cache(maxsize=1)
def _show(adapter: ManiSkillAdapter, task: str) -> FloatArray:
    """Reset to a task; returns the joint positions."""
    adapter.reset(task, 0)
    return adapter.joint_state()[0]


def _begin(config: ScenesConfig, out: Path) -> Path:
    """The unfinished folder, with arrays of the full size."""
    partial = out.with_name(out.name + ".partial")
    plan = json.dumps(asdict(config))
    if (partial / _PLAN).is_file():
        if (partial / _PLAN).read_text(encoding="utf-8") != plan:
            raise ConfigError(f"{partial} was begun with other values; delete it, or give another folder")
        return partial
    shutil.rmtree(partial, ignore_errors=True)
    (partial / _DONE).mkdir(parents=True)
    for name, shape, kind in _arrays(config):
        needed = int(np.prod(shape)) * np.dtype(kind).itemsize
        if needed > (free := shutil.disk_usage(partial).free):
            raise ConfigError(f"{name} needs {needed / 1e9:.1f} GB at {out}; {free / 1e9:.1f} GB are free")
        np.lib.format.open_memmap(partial / name, "w+", kind, shape).flush()  # type: ignore[no-untyped-call]
    (partial / _PLAN).write_text(plan, encoding="utf-8")
    return partial


def _arrays(config: ScenesConfig) -> Iterator[tuple[str, tuple[int, ...], str]]:
    for view in config.views:
        yield f"view_{view}.npy", (config.count, config.side_px, config.side_px, 3), "u1"
    yield "labels.npy", (config.count, len(LABELS)), "<f4"
    yield "task.npy", (config.count,), "u1"


def _finish(config: ScenesConfig, partial: Path, out: Path) -> Path:
    tasks = np.array([config.task_of(i // BLOCK) for i in range(config.count)], np.uint8)
    np.save(partial / "task.npy", tasks)
    index = {"format": FORMAT, **asdict(config), "labels": LABELS}
    (partial / "index.json").write_text(json.dumps(index, indent=1) + "\n", encoding="utf-8")
    (partial / _PLAN).unlink()
    shutil.rmtree(partial / _DONE)
    for file in (*partial.iterdir(), partial):
        sync(file)
    partial.replace(out)
    sync(out.parent)
    return out


def main(argv: Sequence[str] | None = None) -> int:
    """`e0 scenes`: 0 done, 1 failed, 2 wrong arguments, 130 interrupted; the same command goes on."""
    parser = argparse.ArgumentParser(
        prog="e0 scenes",
        description="Render random scenes with labels for pretraining an image encoder.",
        epilog="Example: e0 scenes --task PickCube-v1 --task PushCube-v1 --count 12000 --out data/scenes",
    )
    default = ScenesConfig()
    parser.add_argument("--task", action="append", help=f"repeat for several (default: {', '.join(default.tasks)})")
    parser.add_argument("--view", action="append", choices=VIEWS, help=f"repeat (default: {', '.join(default.views)})")
    parser.add_argument("--count", type=int, default=default.count, help="scenes (default: %(default)s)")
    parser.add_argument("--side-px", type=int, default=default.side_px, help="of a picture (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=default.seed, help="of the draws (default: %(default)s)")
    parser.add_argument("--workers", type=int, default=2, help="processes (default: %(default)s)")
    parser.add_argument("--out", type=Path, required=True, help="folder to make")
    arguments = parser.parse_args(argv)
    try:
        config = ScenesConfig(
            tuple(arguments.task or default.tasks),
            tuple(arguments.view or default.views),
            arguments.count,
            arguments.side_px,
            arguments.seed,
        )
        made = make_scenes(config, arguments.out, max(1, arguments.workers))
    except (ValueError, RuntimeError) as error:
        print(f"e0 scenes: {error}", file=sys.stderr)
        return 2 if isinstance(error, ValueError) else 1
    print(f"{config.count} scenes in {made}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
