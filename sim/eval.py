"""`e0 eval`: how often a policy succeeds in a simulator, with controls, over the ROS graph or without it."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from e0_policy.files import write_json
from e0_ros.config import ConfigError
from e0_ros.policies import settings_of
from e0_ros.resolve import GraphError
from sim.compare import compare_folders
from sim.eval_options import angles_of, parser, seed_range
from sim.eval_progress import Progress
from sim.eval_run import REPORT, EvaluationStopped, Plan, evaluate
from sim.eval_summary import table
from sim.evaluation import EvalConfig
from sim.paper import text_beside
from sim.suites import listing, suite_named


def main(argv: Sequence[str] | None = None) -> int:
    """Evaluate; 0 if every rollout ran, 1 if some ended with an error, those of controls too."""
    options = parser().parse_args(argv)
    if options.list_suites:
        print(listing(options.sim_python))
        return 0
    try:
        return _run(options)
    except ConfigError as error:
        print(f"e0 eval: {error}", file=sys.stderr)
        return 2


def _run(options: argparse.Namespace) -> int:
    tasks, seeds = _tasks(options), seed_range(options.seeds)
    plan = Plan(
        tasks, seeds, options.controls, options.workers, options.videos, keep_bags=options.keep_bags, ray=options.ray
    )
    angles = angles_of(options.camera_shift)
    configs = [replace(_configuration(options), camera_shift_deg=angle) for angle in angles]
    out = options.out or Path("runs") / time.strftime("eval-%Y%m%d-%H%M%S")
    folders = [out / f"cameras-{angle:g}deg" for angle in angles] if len(angles) > 1 else [out]
    what = options.checkpoint or "the scripted expert (privileged)"
    print(f"{what} on {', '.join(tasks)}, seeds {options.seeds}, {options.mode}; all under {out}")
    found: dict[str, Any] = {}
    for config, folder in zip(configs, folders, strict=True):
        try:
            found[folder.name] = told = _evaluate(config, plan, folder)
        except (EvaluationStopped, GraphError, RuntimeError, KeyboardInterrupt) as error:
            reason = "interrupted" if isinstance(error, KeyboardInterrupt) else str(error)
            print(f"e0 eval: {reason}\ngo on with the same command and --out {out}", file=sys.stderr)
            return 130 if isinstance(error, KeyboardInterrupt) else 1
        paper = f"\n\n{text_beside(told)}" if options.suite else ""
        print(f"{table(told)}{paper}\n\n  report  {folder / REPORT}")
    if len(folders) > 1:
        print(f"\n  page  {compare_folders(folders, out / 'comparison.html')}")
    errors = sum(told["errors"] + told["control_errors"] for told in found.values())
    if options.json:
        write_json(options.json, told if len(found) == 1 else {"errors": errors, "runs": found})
    return 1 if errors else 0


def _tasks(options: argparse.Namespace) -> tuple[str, ...]:
    """The tasks that are asked for.

    Raises:
        ConfigError: tasks and a suite, or neither; a suite that cannot be run here.

    """
    if bool(options.suite) == bool(options.task):
        raise ConfigError("--task or --suite is needed" if not options.suite else "give either --task or --suite")
    if options.suite:
        suite = suite_named(options.suite, options.sim_python)
        options.simulator = suite.simulator
        return suite.tasks
    return tuple(dict.fromkeys(options.task))


def _configuration(options: argparse.Namespace) -> EvalConfig:
    return EvalConfig(
        simulator=options.simulator,
        mode=options.mode,
        checkpoint=options.checkpoint,
        device=options.device,
        settings=settings_of(options.set),
        views=tuple(view for view in options.views.split(",") if view),
        size=options.size,
        max_steps=options.max_steps,
        camera_poses=options.camera_poses,
        control=options.control,
        doubt_nats=options.doubt,
        sim_python=options.sim_python,
    )


def _evaluate(config: EvalConfig, plan: Plan, folder: Path) -> dict[str, Any]:
    """One evaluation with its progress on the terminal."""
    progress = Progress()

    def on_step(episode: object) -> None:
        progress.step(f"seed {getattr(episode, 'seed', 0)} step {getattr(episode, 'steps', 0)}")

    try:
        return evaluate(config, plan, folder, progress.rollout, progress.begin, on_step)
    finally:
        progress.end()


if __name__ == "__main__":
    sys.exit(main())
