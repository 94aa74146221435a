"""The demo: a Franka arm in a simulator, driven over real ROS 2 topics by the graph that drives the real arm.

The shipped E0 checkpoint plans where it knows the task; elsewhere, or if asked, ManiSkill's privileged expert does.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from e0_policy.files import write_json
from e0_policy.resources import config_dir
from e0_ros.episode_report import report
from e0_ros.readiness import require_alone
from e0_ros.resolve import GraphError, resolve
from sim.eval_graph import graph_arguments, graph_settings
from sim.evaluation import EvalConfig, card_of, completed
from sim.evaluator import Episode, EvaluationError, real_time_factor, violations
from sim.runs import over_graph
from sim.statistics import known, percentile, total, wilson_interval

EXAMPLE = "example: e0 demo --episodes 3 --task PushCube-v1 --mode realtime"
SHIPPED, SHIPPED_TASKS = "checkpoint/pick_push", ("PickCube-v1", "PushCube-v1")
"""The checkpoint that comes with the project, below its `config/`, and what it does well enough to be shown."""


def summary(episodes: Sequence[Episode]) -> dict[str, Any]:
    """Figures of a run. Errors of the graph count as errors, not as failures of the policy."""
    valid = [e for e in episodes if not e.error]
    successes = sum(e.success for e in valid)
    low, high = wilson_interval(successes, len(valid))
    ages = [age for e in valid for age in e.observation_age_ms]
    latencies = [latency for e in valid for latency in e.chunk_latency_ms]
    sim_s = sum(e.sim_s for e in valid)
    cores = mean_cores(valid)
    return {
        "episodes": len(episodes),
        "errors": len(episodes) - len(valid),
        "successes": successes,
        "success_rate": successes / len(valid) if valid else 0.0,
        "wilson_low": low,
        "wilson_high": high,
        "observation_age_ms_p50": percentile(ages, 0.5),
        "observation_age_ms_p99": percentile(ages, 0.99),
        "chunk_latency_ms_p50": percentile(latencies, 0.5),
        "chunk_latency_ms_p99": percentile(latencies, 0.99),
        "command_rate_hz": sum(e.commands for e in valid) / sim_s if sim_s else 0.0,
        "real_time_factor": real_time_factor(valid) if sim_s else 0.0,
        "cores": sum(cores.values()) if cores else math.nan,
        "cores_by_process": cores,
        "observation_rate_hz": sum(len(e.observation_age_ms) for e in valid) / sim_s if sim_s else 0.0,
        "stale_observations": sum(e.stale for e in valid),
        "refused_chunks": sum(e.refused for e in valid),
        "violations": violations(episodes),
        "lost_messages": total([e.lost for e in valid]),
        "megabytes_per_episode": sum(e.bytes for e in valid) / 1e6 / len(valid) if valid else 0.0,
    }


def mean_cores(episodes: Sequence[Episode]) -> dict[str, float]:
    """Cores that each process kept busy, on average over the time of these episodes; the busiest first."""
    wall_s = sum(e.wall_s for e in episodes if e.cores)
    names = {name for e in episodes for name in e.cores}
    used = {name: sum(e.cores.get(name, 0.0) * e.wall_s for e in episodes) for name in names}
    return {name: used[name] / wall_s for name in sorted(names, key=lambda n: -used[n])} if wall_s else {}


def _cores(by_process: Mapping[str, float]) -> str:
    if not by_process:
        return "unknown"
    parts = ", ".join(f"{name} {cores:.2f}" for name, cores in by_process.items())
    return f"{sum(by_process.values()):.2f} of {os.cpu_count()} cores ({parts})"


def table(figures: dict[str, Any]) -> str:
    """The closing table."""
    f = figures
    n = f["episodes"] - f["errors"]
    rows = [
        ("success", f"{f['successes']} of {n}  (95 % Wilson {f['wilson_low']:.2f} to {f['wilson_high']:.2f})"),
        ("errors of the graph", str(f["errors"])),
        ("observation age", f"{f['observation_age_ms_p50']:.1f} ms median, {f['observation_age_ms_p99']:.1f} ms p99"),
        ("chunk latency", f"{f['chunk_latency_ms_p50']:.1f} ms median, {f['chunk_latency_ms_p99']:.1f} ms p99"),
        ("command rate", f"{f['command_rate_hz']:.1f} Hz of simulated time"),
        ("real-time factor", f"{f['real_time_factor']:.2f}"),
        ("observations", f"{f['observation_rate_hz']:.1f} Hz of simulated time"),
        ("processor", _cores(f["cores_by_process"])),
        ("stale observations", str(f["stale_observations"])),
        ("refused chunks", str(f["refused_chunks"])),
        ("lost messages", known(f["lost_messages"], "unknown")),
        ("limit violations", known(f["violations"], "not judged", " (independent judge, 1 kHz)")),
        ("bag size", f"{f['megabytes_per_episode']:.1f} MB per episode"),
    ]
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"  {name:<{width}}  {value}" for name, value in rows)


def _live(options: argparse.Namespace) -> tuple[Callable[[Episode], None], Callable[[Episode], None]]:
    """What to call at each step and after each episode for a live line."""
    live = sys.stdout.isatty()

    def text(episode: Episode) -> str:
        return f"{episode.index + 1:3d}/{options.episodes}  {episode.line()}"

    def on_step(episode: Episode) -> None:
        if live and episode.steps % 5 == 0:
            print(f"\r{text(episode)}\x1b[K", end="", flush=True)

    def on_episode(episode: Episode) -> None:
        print(f"\r{text(episode)}\x1b[K" if live else text(episode), flush=True)

    return on_step, on_episode


def parser() -> argparse.ArgumentParser:
    """Arguments of `e0 demo`."""
    p = argparse.ArgumentParser(prog="e0 demo", description=__doc__, epilog=EXAMPLE)
    p.add_argument("--episodes", type=int, default=20, help="how many episodes (default: 20)")
    p.add_argument("--task", default="PickCube-v1", help="task of the simulator (default: PickCube-v1)")
    p.add_argument("--seed", type=int, default=0, help="seed of the first episode; each further one adds 1")
    p.add_argument("--max-steps", type=int, default=0, help="control steps per episode; 0: the task's own limit")
    p.add_argument("--simulator", default="maniskill", help="maniskill or fr3_plant (no physics)")
    who = p.add_mutually_exclusive_group()
    who.add_argument(
        "--checkpoint", default="", help="folder of a policy (default: the shipped one, if it knows the task)"
    )
    who.add_argument("--expert", action="store_true", help="a privileged expert plans, no policy")
    p.add_argument("--mode", default="realtime", choices=("realtime", "lockstep"), help="how time runs")
    p.add_argument("--out", type=Path, help="folder for bags, logs, video and plot (default: runs/demo-<time>)")
    p.add_argument("--json", type=Path, help="write the figures to this file")
    return p


def main(argv: Sequence[str] | None = None) -> int:
    """Run the demo; 0 if every episode ran and at least one succeeded."""
    options = parser().parse_args(argv)
    out = options.out or Path("runs") / time.strftime("demo-%Y%m%d-%H%M%S")
    out.mkdir(parents=True, exist_ok=True)
    config = evaluation(options)
    print(f"{options.episodes} episodes of {options.task} in {options.simulator}, {options.mode}, all under {out}")
    print(f"source: {source_line(config)}")
    try:
        episodes = _run(options, config, out)
    except (GraphError, EvaluationError) as error:
        print(f"e0 demo: {error}\nlogs: {out / 'logs'}", file=sys.stderr)
        return 1
    figures = summary(episodes)
    print(table(figures))
    if options.json:
        write_json(options.json, figures)
    _show(episodes, out)
    return 0 if figures["successes"] and not figures["errors"] else 1


def evaluation(options: argparse.Namespace) -> EvalConfig:
    """What is run: the checkpoint asked for, else the shipped one if it knows the task, else the expert.

    Raises:
        ConfigError: there is no such checkpoint.

    """
    checkpoint = options.checkpoint
    shipped = config_dir() / SHIPPED
    known = options.simulator == "maniskill" and options.task in SHIPPED_TASKS and shipped.is_dir()
    if known and not checkpoint and not options.expert:
        checkpoint = str(shipped)
    return completed(EvalConfig(options.simulator, options.mode, checkpoint))


def source_line(config: EvalConfig) -> str:
    """Who plans, in words."""
    if card := card_of(config):
        return (
            f"policy, {card.kind} checkpoint {card.identifier} of {config.checkpoint}, views {', '.join(config.views)}"
        )
    return "scripted (a privileged expert; no trained checkpoint is loaded)"


def _run(options: argparse.Namespace, config: EvalConfig, out: Path) -> list[Episode]:
    arguments = {**graph_arguments(config), "task": options.task, "seed": options.seed}
    seeds = range(options.seed, options.seed + options.episodes)
    on_step, on_episode = _live(options)
    settings = graph_settings(config)
    require_alone(resolve("sim", arguments, settings))
    return over_graph(arguments, seeds, out, options.max_steps, settings, on_step, on_episode)


def _show(episodes: Sequence[Episode], out: Path) -> None:
    """Make the video and the plot of the first whole episode and name every place."""
    print(f"\n  bags    {out / 'bags'}\n  logs    {out / 'logs'}")
    whole = [e for e in episodes if e.bag and not e.error]
    if whole:
        bag = Path((next((e for e in whole if e.success), whole[0])).bag)
        for written in report(bag, out):
            print(f"  {'video' if written.suffix == '.mp4' else 'plot ':<6}  {written}")
