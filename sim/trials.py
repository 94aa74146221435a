"""`e0 trials`: policies on the real bench, blind, task by task, into the same tables as simulation."""

from __future__ import annotations

import argparse
import secrets
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from e0_policy.files import write_json
from e0_policy.foreign import expanded
from e0_ros.config import ConfigError
from e0_ros.graph_client import GraphCallError
from e0_ros.keyboard import Keyboard
from e0_ros.policies import read_card, settings_of
from e0_ros.resolve import GraphError
from sim.compare import compare_folders
from sim.eval_run import REPORT
from sim.eval_summary import table
from sim.paper import text_beside
from sim.trial_bench import Bench
from sim.trial_conditions import check_policies, conditions, keep_conditions
from sim.trial_plan import TAKEN, draw, read_plan
from sim.trial_report import reveal, write_reports
from sim.trial_run import Quit, run_trials
from sim.trial_sheet import write_sheets
from sim.trial_store import TrialStore

DESCRIPTION = """\
Trials of one policy or several on the real bench. Scenes are set up by hand, once for each policy; which policy runs is
drawn, balanced, and not told until all trials are done.

  plan    draws the order and writes trial sheets to print
  run     goes through the trials: sets the graph up, compares the scene with its first picture, takes the verdict
  report  tells which policy was which: success with intervals beside the paper's, videos, McNemar's test

Every verdict is on disk before the next trial begins; `run` goes on where it stopped.
"""
EXAMPLES = """\
examples
  e0 trials plan --policy ours=runs/e0/checkpoint --policy pi05=ws://127.0.0.1:8000 --out trials/monday
  e0 trials plan --policy ours=runs/e0/checkpoint --task pick --task stack --scenes 10 --out trials/quick
  e0 trials run trials/monday franka robot_ip:=172.16.0.2 serials:=...
  e0 trials report trials/monday

exit status: 0 done, 1 not all trials are done or the graph broke, 2 wrong arguments
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Plan, run or report."""
    options = _parser().parse_args(argv)
    try:
        run: int = options.run(options)
        return run
    except ConfigError as error:
        print(f"e0 trials: {error}", file=sys.stderr)
        return 2
    except (GraphError, GraphCallError) as error:
        print(f"e0 trials: {error}\ngo on with the same command", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    raw = argparse.RawDescriptionHelpFormatter
    p = argparse.ArgumentParser(prog="e0 trials", description=DESCRIPTION, epilog=EXAMPLES, formatter_class=raw)
    verbs = p.add_subparsers(required=True, metavar="plan|run|report")
    plan = verbs.add_parser("plan", help="draw the order, write the sheets")
    plan.set_defaults(run=_plan)
    plan.add_argument("--policy", action="append", default=[], metavar="LABEL=CHECKPOINT", help="one of the policies")
    plan.add_argument("--set", action="append", default=[], metavar="LABEL.NAME=VALUE", help="a setting of inference")
    plan.add_argument("--benchmark", default="e0_real", help="tasks: e0_real (the paper's eight), or a YAML file")
    plan.add_argument("--task", action="append", default=[], help="one of its tasks, in the order of the day (all)")
    plan.add_argument("--scenes", type=int, default=0, help="scenes per task (default: the benchmark's trials, 20)")
    plan.add_argument("--seed", type=int, help="of the drawing (default: another each time, so that nobody knows it)")
    plan.add_argument("--out", type=Path, required=True, help="folder of the trials")
    run = verbs.add_parser("run", help="go through the trials")
    run.set_defaults(run=_run)
    run.add_argument("folder", type=Path, help="of the trials")
    run.add_argument("graph", help="franka, or sim for a stand-in")
    run.add_argument("arguments", nargs="*", metavar="name:=value", help="arguments of the graph")
    report = verbs.add_parser("report", help="tell which policy was which, and how they did")
    report.set_defaults(run=_report)
    report.add_argument("folder", type=Path, help="of the trials")
    report.add_argument("--reveal", action="store_true", help="before all trials are done; the rest is not blind then")
    report.add_argument("--videos", type=int, default=2, help="successes and failures to show per task (default: 2)")
    report.add_argument("--json", type=Path, help="write the figures to this file")
    return p


def _plan(options: argparse.Namespace) -> int:
    policies: dict[str, dict[str, Any]] = {}
    for word in options.policy:
        label, found, checkpoint = word.partition("=")
        if not (found and checkpoint and label.replace("-", "_").isidentifier()) or label in (*policies, *TAKEN):
            raise ConfigError(f"--policy {word!r}: LABEL=CHECKPOINT is needed, each label once, none of {TAKEN}")
        own = [w.split(".", 1)[1] for w in options.set if w.startswith(f"{label}.")]
        settings = _settings(own)
        card = read_card(checkpoint, settings)
        policies[label] = {
            "checkpoint": checkpoint if "://" in checkpoint else str(Path(checkpoint).resolve()),
            "settings": settings,
            "name": card.name,
        }
    if lost := [w for w in options.set if w.split(".", 1)[0] not in policies]:
        raise ConfigError(f"--set {lost[0]!r}: LABEL.NAME=VALUE is needed, with the label of a --policy")
    seed = secrets.randbits(32) if options.seed is None else options.seed
    plan = draw(options.benchmark, options.task, policies, options.scenes, seed)
    plan.write(options.out)
    sheets = write_sheets(options.out, plan)
    print(f"{len(plan.trials)} trials of {len(plan.tasks)} tasks, {len(policies)} policies; sheets to print: {sheets}")
    print(f"go on with e0 trials run {options.out} franka robot_ip:=...")
    return 0


def _settings(words: Sequence[str]) -> dict[str, Any]:
    """Settings of inference from words, a `mapping` replaced by its file's content.

    Raises:
        ConfigError: a word of another form, or no such file.

    """
    try:
        return expanded(yaml.safe_load(settings_of(words)))
    except (ValueError, yaml.YAMLError) as error:
        raise ConfigError(str(error)) from None


def _run(options: argparse.Namespace) -> int:
    plan = read_plan(options.folder)
    found = conditions(options.graph, options.arguments)
    check_policies(plan)
    store = TrialStore(options.folder)
    say = lambda text: print(text, flush=True)  # noqa: E731
    try:
        keep_conditions(options.folder, found, store.begun)
        with Keyboard() as keyboard:
            run_trials(plan, store, Bench(options.graph, options.arguments, options.folder, keyboard, say))
    except (Quit, KeyboardInterrupt):
        left = sum(store.missing(trial.number) for trial in plan.trials)
        print(f"{left} of {len(plan.trials)} trials are left; go on with the same command")
        return 1
    finally:
        store.close()
    print(f"all {len(plan.trials)} trials are done; e0 trials report {options.folder} tells which policy was which")
    return 0


def _report(options: argparse.Namespace) -> int:
    plan = read_plan(options.folder)
    store = TrialStore(options.folder)
    store.close()
    blind = reveal(options.folder, plan, store.done, options.reveal)
    told = write_reports(options.folder, plan, store.done, blind, options.videos)
    for label, figures in told.items():
        paper = text_beside(figures)
        print(f"{label}: {figures['configuration']['checkpoint']}\n{table(figures)}")
        print("".join(f"\n  {task}: {share:.0%} of its stages" for task, share in figures["scores"].items()))
        print(f"{paper}\n\n  report  {options.folder / label / REPORT}\n")
    folders = [options.folder / label for label in told]
    if len(folders) > 1:
        print(f"\n  page  {compare_folders(folders, options.folder / 'comparison.html')}")
    if options.json:
        write_json(options.json, {"blind_trials": blind, "policies": told})
    return 0


if __name__ == "__main__":
    sys.exit(main())
