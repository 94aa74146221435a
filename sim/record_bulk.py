"""Unattended recording of scripted or policy episodes in a simulator: `e0 record --task ... --seeds ...`."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from e0_policy.files import write_json
from e0_ros.config import ConfigError
from e0_ros.policies import read_card
from e0_ros.resolve import GraphError, resolve
from sim.evaluation import inference_settings
from sim.record_jobs import Job, finished, jobs, parse_seeds, remember
from sim.record_pool import Pool
from sim.statistics import known, total

EXAMPLE = """example: e0 record --task PickCube-v1 PushCube-v1 --seeds 1000:1600 --workers 2 --out data/bags
by hand: e0 record --attach --help"""
DOMAINS = 101
"""ROS domains 0 to 100 are safe on every system."""


def parser() -> argparse.ArgumentParser:
    """Arguments of the unattended `e0 record`."""
    p = argparse.ArgumentParser(
        prog="e0 record", description=__doc__, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument("--task", nargs="+", required=True, help="tasks of the simulator")
    p.add_argument("--seeds", required=True, help="FIRST:END, an episode each (END not included)")
    p.add_argument("--out", type=Path, required=True, help="folder of the bags; what it has of them is not made again")
    p.add_argument("--workers", type=int, default=1, help="processes, each with a graph of its own (default: 1)")
    p.add_argument("--domain", type=int, help="ROS domain of the first worker, each further one adds 1 (default: +10)")
    p.add_argument("--source", default="scripted", choices=("scripted", "policy"), help="who plans (default: scripted)")
    p.add_argument("--checkpoint", default="", help="checkpoint of --source policy")
    p.add_argument("--simulator", default="maniskill", help="maniskill or fr3_plant (no physics)")
    p.add_argument("--mode", default="lockstep", choices=("lockstep", "realtime"), help="how time runs")
    p.add_argument("--views", nargs="+", default=["base", "wrist"], help="camera views, the reference view first")
    p.add_argument("--size", type=int, default=224, help="height and width of the views [px] (default: 224)")
    p.add_argument("--images", default="jpeg", choices=("jpeg", "png", "raw"), help="how images are stored")
    p.add_argument("--max-steps", type=int, default=0, help="control steps per episode; 0: the task's own limit")
    p.add_argument("--set", action="append", default=[], metavar="NODE.SETTING=VALUE", help="any setting of a node")
    p.add_argument("--json", type=Path, help="write the figures to this file")
    return p


def settings_of(words: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Settings by node of words like `bridge.timeout_s=60`; values are YAML.

    Raises:
        ConfigError: another form.
    """
    found: dict[str, dict[str, Any]] = {}
    for word in words:
        name, equals, text = word.partition("=")
        node, dot, key = name.partition(".")
        if not (equals and dot and node and key):
            raise ConfigError(f"--set {word!r}: NODE.SETTING=VALUE is needed, as bridge.timeout_s=60")
        try:
            found.setdefault(node, {})[key] = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise ConfigError(f"--set {word!r}: {error}") from None
    return found


class Progress:
    """Counts and shows episodes: a bar on a terminal, a line per episode elsewhere."""

    def __init__(self, total: int, live: bool) -> None:
        self.results: list[dict[str, Any]] = []
        self._total, self._live, self._begun_s = total, live, time.monotonic()

    def __call__(self, said: dict[str, Any]) -> None:
        """Take in an episode."""
        self.results.append(said)
        if self._live and not said["error"] and not said["flags"]:
            print(f"\r{self._bar()}\x1b[K", end="", flush=True)
        else:
            end = "\r\x1b[K" if self._live else ""
            print(f"{end}{len(self.results):>5}/{self._total}  {line(said)}  {self._pace()}", flush=True)

    def per_minute(self) -> float:
        """Episodes per minute so far."""
        return 60.0 * len(self.results) / max(time.monotonic() - self._begun_s, 1e-9)

    def _pace(self) -> str:
        left_s = (self._total - len(self.results)) / max(self.per_minute(), 1e-9) * 60.0
        return f"{self.per_minute():.1f}/min, {_clock(left_s)} left"

    def _bar(self) -> str:
        done, width = len(self.results), 30
        filled = width * done // self._total
        good = sum(not r["error"] and r["success"] for r in self.results)
        bad = sum(bool(r["error"]) for r in self.results)
        bar = "#" * filled + "." * (width - filled)
        return f"[{bar}] {done}/{self._total}  {good} successes, {bad} errors  {self._pace()}"


def line(said: Mapping[str, Any]) -> str:
    """An episode in one line."""
    if said["error"]:
        return f"{said['name']:<26} ERROR   {said['error']}"
    label = "success" if said["success"] else "failure"
    text = f"{said['name']:<26} {label} {said['steps']:4d} steps  {said['wall_s']:5.1f} s  {said['bytes'] / 1e6:.2f} MB"
    return text + "".join(f"  FLAG {flag}" for flag in said["flags"])


def summary(results: Sequence[Mapping[str, Any]], skipped: int, wall_s: float, reason: str) -> dict[str, Any]:
    """Figures of a recording."""
    whole = [r for r in results if not r["error"]]
    tasks = list(dict.fromkeys(r["task"] for r in results))
    by_task = {
        task: {
            "episodes": sum(r["task"] == task for r in whole),
            "successes": sum(r["task"] == task and r["success"] for r in whole),
        }
        for task in tasks
    }
    return {
        "episodes": len(whole),
        "successes": sum(r["success"] for r in whole),
        "by_task": by_task,
        "errors": [{"name": r["name"], "error": r["error"]} for r in results if r["error"]],
        "flagged": [{"name": r["name"], "flags": r["flags"]} for r in whole if r["flags"]],
        "skipped": skipped,
        "lost_messages": total([r["lost"] for r in whole]),
        "stale_observations": sum(r["stale"] for r in whole),
        "steps": sum(r["steps"] for r in whole),
        "simulated_s": sum(r["sim_s"] for r in whole),
        "megabytes": sum(r["bytes"] for r in whole) / 1e6,
        "wall_s": wall_s,
        "episodes_per_minute": 60.0 * len(whole) / wall_s if wall_s else 0.0,
        "stopped": reason,
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Record; 0 if every episode is there, 1 if some are missing."""
    options = parser().parse_args(argv)
    wanted = jobs(options.task, parse_seeds(options.seeds))
    spec, domains = _spec(options), _domains(options)
    remember(options.out, _choices(spec))
    todo = [job for job in wanted if not finished(options.out, job)]
    skipped = len(wanted) - len(todo)
    print(f"{len(wanted)} episodes under {options.out}; {skipped} are there, {len(todo)} to record")
    begun = time.monotonic()
    progress = Progress(len(todo), sys.stdout.isatty())
    pool = Pool(spec, domains, options.out / "logs", progress)
    if todo:
        _run(pool, todo)
    figures = summary(progress.results, skipped, time.monotonic() - begun, pool.reason)
    print(f"\n{table(figures, len(todo))}")
    if options.json:
        write_json(options.json, figures)
    return 0 if figures["episodes"] == len(todo) else 1


def _spec(options: argparse.Namespace) -> dict[str, Any]:
    """What workers are told, checked before any is started."""
    settings = settings_of(options.set)
    settings["episode_recorder"] = {"images": options.images, **settings.get("episode_recorder", {})}
    arguments = {
        "simulator": options.simulator,
        "mode": options.mode,
        "source": options.source,
        "checkpoint": options.checkpoint,
        "task": options.task[0],
        "views": options.views,
        "size": options.size,
        "bag_dir": str(options.out.absolute()),
    }
    try:
        resolve("sim", arguments, settings)
    except GraphError as error:
        raise ConfigError(str(error)) from None
    return {"arguments": arguments, "settings": settings, "max_steps": options.max_steps}


def _choices(spec: Mapping[str, Any]) -> dict[str, Any]:
    """What all episodes of a folder have in common: of a policy its weights and settings, not where they lie.

    Raises:
        ConfigError: there is no such checkpoint.

    """
    arguments = {key: value for key, value in spec["arguments"].items() if key not in ("task", "bag_dir")}
    if where := arguments["checkpoint"]:
        own = inference_settings(spec["settings"].get("policy", {}).get("settings", "{}"))
        arguments["checkpoint"] = read_card(where, own).name
    return {**arguments, "settings": spec["settings"], "max_steps": spec["max_steps"]}


def _domains(options: argparse.Namespace) -> range:
    own = int(os.environ.get("ROS_DOMAIN_ID") or 0)
    first = options.domain if options.domain is not None else (own + 10) % (DOMAINS - options.workers)
    if options.workers < 1 or first < 0 or first + options.workers > DOMAINS:
        raise ConfigError(
            f"{options.workers} workers from ROS domain {first} on; allowed are domains 0 to {DOMAINS - 1}"
        )
    return range(first, first + options.workers)


def _run(pool: Pool, todo: Sequence[Job]) -> None:
    """Run; the first Ctrl-C lets the running episodes end, the second does not."""

    def on_signal(*_: object) -> None:
        if pool.reason:
            pool.kill()
        else:
            print("\nstopping after the running episodes; again to stop at once", flush=True)
            pool.stop("interrupted")

    before = {number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        pool.run(todo)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def table(figures: Mapping[str, Any], wanted: int) -> str:
    """The closing table."""
    f, missing = figures, wanted - figures["episodes"]
    rows = [(task, f"{n['episodes']} episodes, {n['successes']} successes") for task, n in f["by_task"].items()]
    rows.append(("speed", f"{f['episodes_per_minute']:.1f} episodes/min over {_clock(f['wall_s'])}"))
    rows.append(("size", f"{f['megabytes']:.1f} MB, {known(f['lost_messages'], 'unknown')} messages lost"))
    if f["flagged"]:
        last = f["flagged"][-1]
        rows.append(("flagged takes", f"{len(f['flagged'])}; the last: {last['name']}: {last['flags'][0]}"))
    if f["errors"]:
        last = f["errors"][-1]
        rows.append(("errors", f"{len(f['errors'])}; the last: {last['name']}: {last['error']}"))
    if f["stopped"]:
        rows.append(("stopped", f["stopped"]))
    rows.append(("missing", f"{missing}; the same command records them" if missing else "0"))
    return "\n".join(f"  {name:<22}{value}" for name, value in rows)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"
