"""`e0 eval`: how often a policy succeeds in a simulator, with controls, over the ROS graph or without it."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from e0_ros.config import ConfigError
from sim.eval_rollouts import BLANK, ERROR, OTHER, POLICY, Job, Rollout, RolloutStore
from sim.eval_summary import finite, summary
from sim.evaluation import EvalConfig, RolloutRunner, completed, identity, other_instruction


def jobs_of(tasks: Sequence[str], seeds: Sequence[int], controls: int, config: EvalConfig) -> list[Job]:
    """Every rollout of an evaluation: task x seed, then the controls of a checkpoint on the first seeds."""
    jobs = [Job(POLICY, task, seed) for task in tasks for seed in seeds]
    for condition in (BLANK, OTHER) if config.checkpoint else ():
        for task in tasks:
            if condition == BLANK or other_instruction(config.simulator, task):
                jobs += [Job(condition, task, seed) for seed in seeds[:controls]]
    return jobs


def seed_range(text: str) -> list[int]:
    """Seeds of `A:B`, B excluded.

    Raises:
        ConfigError: another form, or no seed at all.

    """
    first, colon, end = text.partition(":")
    if not (colon and first.isdigit() and end.isdigit() and int(first) < int(end)):
        raise ConfigError(f"--seeds is {text!r}; A:B with A < B is needed, e.g. 1000:1100 for the hundred from 1000 on")
    return list(range(int(first), int(end)))


def parser() -> argparse.ArgumentParser:
    """Arguments of `e0 eval`."""
    p = argparse.ArgumentParser(prog="e0 eval", description=__doc__)
    p.add_argument("--task", action="append", required=True, help="task; may be given several times")
    p.add_argument("--seeds", default="0:20", help="A:B: a rollout per seed from A on, B excluded (default: 0:20)")
    p.add_argument("--checkpoint", default="", help="folder of the checkpoint (default: the scripted expert)")
    how = p.add_mutually_exclusive_group()
    how.add_argument("--mode", choices=("lockstep", "realtime"), default="lockstep", help="over the ROS graph")
    how.add_argument("--direct", action="store_const", const="direct", dest="mode", help="the same in one process")
    p.add_argument("--max-steps", type=int, default=0, help="control steps per rollout; 0: the task's own limit")
    p.add_argument("--controls", type=int, default=20, help="seeds of each control; 0: none (default: 20)")
    p.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="a setting of inference")
    p.add_argument("--simulator", default="maniskill", help="maniskill or fr3_plant")
    p.add_argument("--size", type=int, default=0, help="side of the views; 0: the checkpoint's own")
    p.add_argument("--out", type=Path, help="folder of the evaluation; an earlier one is continued")
    p.add_argument("--json", type=Path, help="write the figures to this file")
    return p


def main(argv: Sequence[str] | None = None) -> int:
    """Evaluate; 0 if no rollout ended with an error."""
    options = parser().parse_args(argv)
    settings = "{" + ", ".join(word.replace("=", ": ", 1) for word in options.set) + "}"
    config = completed(
        EvalConfig(
            simulator=options.simulator,
            mode=options.mode,
            checkpoint=options.checkpoint,
            settings=settings,
            size=options.size,
            max_steps=options.max_steps,
        )
    )
    jobs = jobs_of(options.task, seed_range(options.seeds), options.controls, config)
    out = options.out or Path("runs") / time.strftime("eval-%Y%m%d-%H%M%S")
    store = RolloutStore(out, identity(config))
    with RolloutRunner(config) as runner:
        for number, job in enumerate(missing := store.missing(jobs), 1):
            rollout = runner.run(job)
            store.add(rollout)
            print(f"{number:4d}/{len(missing)}  {rollout.line()}", flush=True)
    done: list[Rollout] = [store.rollouts[job] for job in jobs]
    figures = finite(summary(done, identity(config)))
    text = json.dumps(figures, indent=2) + "\n"
    for path in [out / "summary.json", *([options.json] if options.json else [])]:
        path.write_text(text, encoding="utf-8")
    print(text)
    return int(any(r.outcome == ERROR for r in done))


if __name__ == "__main__":
    sys.exit(main())
