"""Demonstrations without topics and bags: `e0 collect --task PickCube-v1 --episodes 500 --out data/pick`

The experts move the direct loop, and every tick becomes a frame of a packed folder that `e0 train` reads: what
`e0 record` and `e0 convert` would make of it, without topics and with pictures as they were drawn. It needs a
simulator and no ROS. LIBERO's tasks, and robosuite's Lift, give rows of their controller (OSC_POSE). With ManiSkill the
folder is also one of scenes: where things are is written beside the frames, to teach an encoder (`auxiliary_scenes`,
`e0 pretrain`); no policy reads it. Failed episodes are left out.
"""

from __future__ import annotations

import argparse
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context, parent_process
from pathlib import Path
from statistics import median
from typing import Any

from e0_policy.embodiment import load_embodiment
from e0_policy.packed_writer import Header, PackedWriter
from sim.collect_config import VIEWS, CollectConfig, simulator_of
from sim.collect_episode import Outcome, take
from sim.demonstration import PERIOD_NS
from sim.scenes import LABELS
from sim.simulators import official_steps
from sim.statistics import wilson_interval

_AHEAD = 2
"""Episodes per process that are handed out at a time: they are written in the order of their seeds."""
_TOLD = ("task", "seed", "success", "steps", "max_steps", "processor_s")
Note = dict[str, Any]
"""An `Outcome` without its frames."""


def collect(config: CollectConfig, out: Path | None, workers: int = 2, limit_s: float = 0.0) -> list[Note]:
    """Run the episodes that an interrupted run left, or those of them that begin within the limit.

    Args:
        config: which.
        out: folder for the successful ones, which appears when all are there; None: nothing is kept.
        workers: processes.
        limit_s: begin no episode after so long; 0: no limit.

    Returns:
        What every episode came to, also those of an interrupted run.

    Raises:
        DatasetError: the folder exists, or was begun with other values.
        RuntimeError: no episode succeeded, or a process died.

    """
    writer = PackedWriter(out, _header(config)) if out else None
    notes: list[Note] = writer.journal[:] if writer else []
    if notes:
        print(f"{len(notes)} episodes are there already, {writer.kept if writer else 0} of them kept", flush=True)
    began_s, before = time.monotonic(), len(notes)
    for outcome in _outcomes(config, len(notes), workers, limit_s, out is not None):
        notes.append({name: getattr(outcome, name) for name in _TOLD})
        if writer:
            _write(writer, config, outcome, notes[-1])
        if not len(notes) % 20:
            good = sum(note["success"] for note in notes)
            rate = (len(notes) - before) / (time.monotonic() - began_s) * 3600
            print(f"{len(notes)} of {config.episodes} episodes, {good} solved, {rate:.0f} per hour", flush=True)
    if writer and not writer.kept:
        raise RuntimeError(f"none of {len(notes)} episodes succeeded")
    if writer:
        writer.close()
    return notes


def _header(config: CollectConfig) -> Header:
    arm = load_embodiment(config.embodiment)
    tasks, labels = tuple(dict.fromkeys(config.tasks)), LABELS if config.simulator == "maniskill" else ()
    names = (*arm.joint_names, "gripper")
    what = arm.name, PERIOD_NS, config.views, config.size_px, names, labels, tasks, config.origin
    return Header(*what, step_names=config.step_names)


def _write(writer: PackedWriter, config: CollectConfig, outcome: Outcome, note: Note) -> None:
    if (taken := outcome.taken) is None:
        writer.leave_out(note)
        return
    task = tuple(dict.fromkeys(config.tasks)).index(outcome.task)
    writer.add(taken.episode, dict(zip(config.views, taken.images, strict=True)), task, taken.labels, note)


def _outcomes(config: CollectConfig, first: int, workers: int, limit_s: float, keep: bool) -> Iterator[Outcome]:
    """Episodes from `first` on, in order, from several processes."""
    os.environ.setdefault("LP_NUM_THREADS", "1")
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    until_s = time.monotonic() + limit_s if limit_s else float("inf")
    running: deque[Future[Outcome]] = deque()
    with ProcessPoolExecutor(workers, get_context("spawn"), _end_with_parent) as pool:
        try:
            for index in range(first, config.episodes):
                if time.monotonic() > until_s:
                    break
                running.append(pool.submit(take, config, *config.job(index), keep))
                while len(running) >= _AHEAD * workers:
                    yield running.popleft().result()
            while running:
                yield running.popleft().result()
        except BrokenProcessPool:
            raise RuntimeError("a process that collects died; the same command goes on where it ended") from None
        finally:
            pool.shutdown(cancel_futures=True)


def _end_with_parent() -> None:
    """A worker whose parent was killed would wait for its next episode for ever."""

    def watch() -> None:
        if parent := parent_process():
            parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def table(notes: Sequence[Note]) -> str:
    """Success of each task with its 95 % Wilson interval, median steps of the solved, processor time per episode.

    `within official` are those that were solved within the limit that the benchmark registers, where it has one.
    """
    heads = ("task", "solved", "95 % Wilson", "limit", "within official", "median steps", "processor s per episode")
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for task in dict.fromkeys(note["task"] for note in notes):
        mine = [note for note in notes if note["task"] == task]
        solved = [note["steps"] for note in mine if note["success"]]
        low, high = (100 * bound for bound in wilson_interval(len(solved), len(mine)))
        steps, spent_s = f"{median(solved):.0f}" if solved else "-", sum(n["processor_s"] for n in mine) / len(mine)
        limit, official = max(note["max_steps"] for note in mine), official_steps(simulator_of(task), task)
        within = f"{sum(count <= official for count in solved)}/{len(mine)} in {official}" if official else "-"
        rate = f"{len(solved)}/{len(mine)} | {low:.0f} to {high:.0f} %"
        lines.append(f"| {task} | {rate} | {limit} | {within} | {steps} | {spent_s:.1f} |")
    return "\n".join(lines)


def _parser(default: CollectConfig) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="e0 collect",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Demonstrations of a simulator's experts as a packed folder that e0 train reads, without ROS.\n"
        "A run that was killed goes on with the same command: finished episodes are kept in OUT.partial.",
        epilog="examples:\n"
        "  e0 collect --task PickCube-v1 --task StackCube-v1 --episodes 1000 --workers 16 --out data/two\n"
        "  e0 collect --task PickCube-v1 --disturbance-rad 0.02 --out data/pick    # with ways back to the path\n"
        "  e0 collect --task libero_spatial/0 --episodes 50 --out data/libero      # rows of OSC_POSE, drawn scenes\n"
        "  e0 collect --task Lift --episodes 200 --size 64 --out data/lift         # the same without LIBERO's assets\n"
        "  e0 collect --task Detour-v0 --episodes 100 --out data/detour            # no simulator to install\n"
        "  e0 collect --task PegInsertionSide-v1 --episodes 20 --dry-run           # how good is the expert?",
    )
    parser.add_argument("--task", action="append", help=f"repeat for several (default: {', '.join(default.tasks)})")
    parser.add_argument("--view", action="append", choices=VIEWS, help="repeat (default: all that it has)")
    parser.add_argument("--episodes", type=int, default=default.episodes, help="in all (default: %(default)s)")
    parser.add_argument("--first-seed", type=int, default=default.first_seed, help="of a task (default: %(default)s)")
    parser.add_argument("--size", type=int, default=default.size_px, help="of a picture in px (default: %(default)s)")
    parser.add_argument("--max-steps", type=int, default=0, help="of an episode (default: the task's own)")
    parser.add_argument("--disturbance-rad", type=float, default=0.0, help="largest push on a joint (default: none)")
    parser.add_argument("--disturbance-share", type=float, default=default.disturbance_share, help="of the episodes")
    parser.add_argument("--limit-s", type=float, default=0.0, help="begin no episode after so long, and finish")
    parser.add_argument("--workers", type=int, default=2, help="processes (default: %(default)s)")
    goal = parser.add_mutually_exclusive_group(required=True)
    goal.add_argument("--out", type=Path, help="folder to make")
    goal.add_argument("--dry-run", action="store_true", help="keep nothing and draw nothing: the experts' success")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """`e0 collect`: 0 done, 1 failed, 2 wrong arguments; the same command goes on after a kill."""
    default = CollectConfig()
    a = _parser(default).parse_args(argv)
    numbers = (a.episodes, a.first_seed, a.size, a.max_steps, a.disturbance_rad, a.disturbance_share)
    try:
        config = CollectConfig(tuple(a.task or default.tasks), tuple(a.view or ()), *numbers)
        notes = collect(config, a.out, max(1, a.workers), a.limit_s)
    except (ValueError, RuntimeError, ImportError) as error:
        print(f"e0 collect: {error}", file=sys.stderr)
        return 2 if isinstance(error, ValueError) else 1
    print(table(notes))
    return 0


if __name__ == "__main__":
    sys.exit(main())
