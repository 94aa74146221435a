"""`e0 bench eval`: rollouts per hour, raw, direct and over the graph, beside the simulator's own example loop."""

from __future__ import annotations

import argparse
import importlib
import sys
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from statistics import median

from e0_policy.embodiment import load_embodiment
from e0_policy.files import write_json
from e0_ros.config import ConfigError
from sim.eval_options import seed_range
from sim.eval_pool import ONE_THREAD, environment
from sim.eval_rollouts import ERROR, POLICY, Job, Rollout
from sim.evaluation import EvalConfig, RolloutRunner, check_tasks, completed, policy_of
from sim.simulators import STEPPED
from sim.sources import PolicySource

DESCRIPTION = """\
How many rollouts of a policy fit into an hour: in the simulator's own loop (env.reset, env.step, its own observations
with every camera at every step), --raw, --direct, and over the graph in lock-step. Every way runs the same task, seeds,
checkpoint, cameras, robot and step limit; in each process the first three take turns, seed by seed, so that what else
the machine does hits all alike. A rollout's time runs from its reset to its end; starting processes, and each loop's
first rollout, which compiles shaders, do not count.
"""
EPILOG = """\
examples
  e0 bench eval --checkpoint config/checkpoint/pick_push
  e0 bench eval --checkpoint config/checkpoint/pick_push --task PushCube-v1 --seeds 0:20 --workers 4 --json eval.json
  e0 bench eval --checkpoint runs/libero_spatial/checkpoint --simulator libero --task libero_spatial/0

exit status: 0 done, 1 a rollout ended with an error, 2 wrong arguments
"""
OWN, RAW, DIRECT, GRAPH = "own loop", "raw", "direct", "lockstep"
OWN_LOOPS = {"maniskill": "sim.maniskill_own", "libero": "sim.libero_own"}
Timed = tuple[int, float]
"""Steps of a rollout, and its time [s]."""


def run_local(config: EvalConfig, task: str, seeds: Sequence[int]) -> dict[str, list[Timed]]:
    """The first three ways in this process, in turns; the first seed is run twice and counts once.

    Raises:
        RuntimeError: a rollout ended with an error.

    """
    own = importlib.import_module(OWN_LOOPS[config.simulator]).OwnLoop(task, config.views, config.size)
    policy = policy_of(config)
    source = PolicySource(policy, load_embodiment(policy.embodiment))
    raw, direct = (RolloutRunner(completed(_in(config, mode))) for mode in (RAW, DIRECT))
    found: dict[str, list[Timed]] = {OWN: [], RAW: [], DIRECT: []}
    alone = config.simulator in STEPPED  # one environment per process: the next one is made when it is gone
    with raw, direct:
        for seed in (seeds[0], *seeds):
            source.reset(task, seed)
            found[OWN].append(own.run(seed, source, config.max_steps))
            if alone:
                own.close()
            for mode, runner in ((RAW, raw), (DIRECT, direct)):
                found[mode].append(timed(runner.run(Job(POLICY, task, seed))))
                if alone:
                    runner.close()
    own.close()
    return {mode: rollouts[1:] for mode, rollouts in found.items()}


def run_graph(config: EvalConfig, task: str, seeds: Sequence[int], folder: Path) -> list[Timed]:
    """The same over the graph; its first rollout does not count either."""
    from sim.eval_graph import run_over_graph

    found: list[Timed] = []
    jobs = [Job(POLICY, task, seed) for seed in (seeds[0], *seeds)]
    run_over_graph(_in(config, GRAPH), jobs, folder, False, lambda _, rollout: found.append(timed(rollout)))
    return found[1:]


def timed(rollout: Rollout) -> Timed:
    """Its steps and time.

    Raises:
        RuntimeError: it ended with an error.

    """
    if rollout.outcome == ERROR:
        raise RuntimeError(f"{rollout.task}, seed {rollout.seed}: {rollout.error}")
    return rollout.steps, rollout.wall_s


def figures(found: Mapping[str, Sequence[Timed]], workers: int) -> dict[str, dict[str, float]]:
    """Per way: rollouts, steps per second and rollouts per hour of all its processes, and against the own loop.

    `ratio` is that of steps per second, for a rollout may end sooner in one way than in another; `ratio_low` and
    `ratio_high` are those of single seeds, `ratio_median` their median.
    """
    told = {}
    for way, rollouts in found.items():
        processes = 1 if way == GRAPH else workers
        steps, spent_s = sum(count for count, _ in rollouts), sum(wall_s for _, wall_s in rollouts)
        own = found[OWN]
        share = processes / workers
        single = [share * (a / b) / (c / d) for (a, b), (c, d) in zip(rollouts, own, strict=True)]
        told[way] = {
            "rollouts": float(len(rollouts)),
            "steps_per_s": processes * steps / spent_s,
            "rollouts_per_hour": processes * 3600 * len(rollouts) / spent_s,
            "ratio_low": min(single),
            "ratio_median": median(single),
            "ratio_high": max(single),
        }
    for one in told.values():
        one["ratio"] = one["steps_per_s"] / told[OWN]["steps_per_s"]
    return told


def table(told: Mapping[str, Mapping[str, float]]) -> str:
    """One row per way."""
    heads = ("way", "rollouts", "steps per s", "rollouts per hour", "of the own loop", "single seeds")
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for way, f in told.items():
        single = f"{f['ratio_low']:.2f} to {f['ratio_high']:.2f}, median {f['ratio_median']:.2f}"
        rates = f"{f['steps_per_s']:.1f} | {f['rollouts_per_hour']:.0f}"
        lines.append(f"| {way} | {f['rollouts']:.0f} | {rates} | {f['ratio']:.2f} | {single} |")
    return "\n".join(lines)


def _in(config: EvalConfig, mode: str) -> EvalConfig:
    return replace(config, mode=mode)


def _parser() -> argparse.ArgumentParser:
    raw = argparse.RawDescriptionHelpFormatter
    p = argparse.ArgumentParser(prog="e0 bench eval", description=DESCRIPTION, epilog=EPILOG, formatter_class=raw)
    p.add_argument("--checkpoint", required=True, help="folder of the checkpoint")
    p.add_argument("--simulator", default="maniskill", choices=OWN_LOOPS, help="default: %(default)s")
    p.add_argument("--task", default="PickCube-v1", help="default: %(default)s")
    p.add_argument("--seeds", default="0:8", help="A:B, shared by the processes (default: %(default)s)")
    p.add_argument("--max-steps", type=int, default=60, help="of a rollout (default: %(default)s)")
    p.add_argument("--workers", type=int, default=2, help="processes of all ways but the graph's (default: 2)")
    p.add_argument("--no-graph", action="store_true", help="without topics")
    p.add_argument("--json", type=Path, metavar="FILE", help="also write the figures to this file")
    return p


def measure(config: EvalConfig, task: str, seeds: Sequence[int], workers: int, graph: bool) -> dict[str, list[Timed]]:
    """Every way's rollouts, in the same order of seeds.

    Raises:
        ConfigError: unknown task, or more processes than seeds.
        RuntimeError: a rollout ended with an error.

    """
    check_tasks(config.simulator, (task,))
    if not 1 <= workers <= len(seeds):
        raise ConfigError(f"{workers} workers for {len(seeds)} seeds; 1 to as many as seeds are allowed")
    shares, found = [seeds[i::workers] for i in range(workers)], dict[str, list[Timed]]()
    one_thread = environment(dict.fromkeys(ONE_THREAD, "1"))
    with one_thread, ProcessPoolExecutor(workers, get_context("spawn")) as pool:
        for part in pool.map(run_local, [config] * workers, [task] * workers, shares):
            for way, rollouts in part.items():
                found.setdefault(way, []).extend(rollouts)
    if graph:
        with tempfile.TemporaryDirectory() as folder:
            found[GRAPH] = run_graph(config, task, [seed for share in shares for seed in share], Path(folder))
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print."""
    a = _parser().parse_args(argv)
    try:
        config = completed(EvalConfig(checkpoint=a.checkpoint, simulator=a.simulator, max_steps=a.max_steps))
        found = measure(config, a.task, list(seed_range(a.seeds)), a.workers, not a.no_graph)
    except (ConfigError, RuntimeError) as error:
        print(f"e0 bench eval: {error}", file=sys.stderr)
        return 2 if isinstance(error, ConfigError) else 1
    told = figures(found, a.workers)
    print(f"{a.task}, {a.workers} processes, limit {a.max_steps} steps\n\n{table(told)}")
    if a.json:
        write_json(a.json, told)
    return 0


if __name__ == "__main__":
    sys.exit(main())
