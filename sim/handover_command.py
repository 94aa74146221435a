"""`e0 bench handover`: hand-over strategies of the executor against simulated latency, one table and plots."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from e0_policy.dataset import PackedSource
from e0_policy.embodiment import load_embodiment
from e0_policy.files import write_json
from e0_policy.types import FloatArray
from e0_ros.config import ConfigError
from e0_ros.core.dataset_bag import bag_digest
from e0_ros.core.handover import STRATEGIES
from e0_ros.core.replay_source import load_recording
from e0_ros.version import code_version
from sim.collect_config import CollectConfig
from sim.collect_episode import demonstrations
from sim.eval_options import seed_range
from sim.eval_rollouts import refuse_other
from sim.evaluation import EvalConfig, check_tasks, completed, identity, policy_of
from sim.handover import Measure, drawn_motion, measure_plans, measure_policy, measure_recorded
from sim.simulators import make_adapter
from sim.sources import PolicySource
from sim.statistics import wilson_interval

DESCRIPTION = """\
Compare the executor's hand-over strategies under latency, in lock-step: the same seeds, plans and noise for each.

plans     a drawn motion, or a recorded one (--recording), on an ideal arm, cut into plans of 16 rows of 50 ms that
          disagree by up to 20 mrad at their ends; the error is the reference's against the motion
recorded  (--demonstrations) episodes that `e0 collect` kept, cut into plans alike, each in its own scene of the
          simulator; the error is the arm's against the reference, and success the task's
policy    (--checkpoint) episodes of a policy, with the same error and success

`committed` alone hears of the plan in force and continues it.
"""
EPILOG = """\
examples
  e0 bench handover --out runs/handover
  e0 bench handover --out runs/handover --checkpoint config/checkpoint/pick_push --task PickCube-v1 --seeds 200:205
  e0 collect --task PickCube-v1 --episodes 8 --first-seed 200 --view base --size 16 --out data/eight
  e0 bench handover --out runs/handover --motions 0 --demonstrations data/eight

The same command goes on after a kill; what was measured with other weights, data or code is refused.
exit status: 0 done, 2 wrong arguments
"""
HEADINGS = (
    *("source", "latency ms", "hand-over", "success", "seam jerk rad/s^3", "jerk elsewhere"),
    *("error mrad", "held %", "violations"),
)
PANELS = (("seam_jerk", "jerk after hand-overs [rad/s$^3$]"), ("error_mrad", "error [mrad]"), ("held", "held [%]"))


def parser() -> argparse.ArgumentParser:
    """Arguments of `e0 bench handover`."""
    raw = argparse.RawDescriptionHelpFormatter
    p = argparse.ArgumentParser(prog="e0 bench handover", description=DESCRIPTION, epilog=EPILOG, formatter_class=raw)
    p.add_argument("--out", type=Path, required=True, help="folder of runs.json, handover.json, table.md and plots")
    p.add_argument("--strategies", nargs="*", choices=STRATEGIES, default=list(STRATEGIES), help="default: all")
    p.add_argument("--latencies", type=int, nargs="*", default=[0, 100, 200, 300, 400], help="[ms]")
    p.add_argument("--motions", type=int, default=20, help="drawn motions (default: 20)")
    p.add_argument("--recording", type=Path, help="a bag or .npz whose rows are the motion instead")
    p.add_argument("--demonstrations", type=Path, help="also run plans of the --task's episodes in a collected folder")
    p.add_argument("--checkpoint", default="", help="also run this policy")
    p.add_argument("--simulator", default="maniskill", help="default: maniskill")
    p.add_argument("--task", default="PickCube-v1", help="default: PickCube-v1")
    p.add_argument("--seeds", default="200:205", help="A:B of the policy's episodes, B excluded (default: 200:205)")
    p.add_argument("--json", type=Path, metavar="FILE", help="also write the figures to this file")
    return p


def main(argv: Sequence[str] | None = None) -> int:
    """Measure what is not measured yet; 0 done, 2 wrong arguments."""
    options = parser().parse_args(argv)
    try:
        return _run(options)
    except ValueError as error:
        print(f"e0 bench handover: {error}", file=sys.stderr)
        return 2


def _run(options: argparse.Namespace) -> int:
    if bad := [latency for latency in options.latencies if not 0 <= latency <= 2000]:
        raise ConfigError(f"--latencies has {bad[0]}; allowed is 0 to 2000 ms")
    options.out.mkdir(parents=True, exist_ok=True)
    motion = {"recording": bag_digest(options.recording) if options.recording else ""}
    runs = _measured("plans", motion, _plans(options), options, range(options.motions))
    if options.demonstrations:
        shown = demonstrations(options.demonstrations, options.task)
        taken = {"demonstrations": PackedSource(options.demonstrations).digest(), "task": options.task}
        runs += _measured("recorded", taken, _recorded(options.task, shown), options, shown)
    if options.checkpoint:
        check_tasks(options.simulator, (options.task,))
        config = completed(EvalConfig(simulator=options.simulator, mode="direct", checkpoint=options.checkpoint))
        policy = {**identity(config), "task": options.task}
        runs += _measured("policy", policy, _policy(config, options.task), options, seed_range(options.seeds))
    rows = summary(runs)
    text = table(rows)
    (options.out / "table.md").write_text(text + "\n", encoding="utf-8")
    for path in (options.out / "handover.json", *([options.json] if options.json else [])):
        write_json(path, {"summary": rows, "runs": runs})
    print(text)
    for source in dict.fromkeys(row["source"] for row in rows):
        print(f"  plot  {plot([row for row in rows if row['source'] == source], options.out / f'{source}.png')}")
    return 0


def _plans(options: argparse.Namespace) -> Measure:
    """Plans of a recording, or of a drawn motion per seed."""
    if options.recording:
        from e0_ros.conversions import chunk_from_msg

        recording = load_recording(options.recording, chunk_from_msg)
        rows = np.repeat(recording.rows[:, :-1], max(round(recording.period_ns / 50e6), 1), axis=0)
        return lambda strategy, latency, seed: measure_plans(recording.embodiment, rows, strategy, latency, seed)
    arm = load_embodiment("fr3")
    return lambda strategy, latency, seed: measure_plans("fr3", drawn_motion(arm, seed), strategy, latency, seed)


def _recorded(task: str, shown: Mapping[int, FloatArray]) -> Measure:
    """Plans of demonstrations by seed, each in its own scene; nobody looks at pictures."""
    own = CollectConfig(tasks=(task,))
    adapter = make_adapter(own.simulator, ("base",), (16, 16), own.embodiment)
    return lambda strategy, latency, seed: measure_recorded(adapter, shown[seed], task, strategy, latency, seed)


def _policy(config: EvalConfig, task: str) -> Measure:
    policy = policy_of(config)
    adapter = make_adapter(config.simulator, config.views, (config.size, config.size), policy.embodiment)
    source = PolicySource(policy, load_embodiment(policy.embodiment))
    return partial(measure_policy, adapter, source, task)


def _measured(
    source: str, settings: Mapping[str, Any], measure: Measure, options: argparse.Namespace, seeds: Iterable[int]
) -> list[dict[str, Any]]:
    """Every run asked for; each is on disk before the next begins, and what is there is not measured again.

    Raises:
        ConfigError: what is there was measured with other code, or other `settings`: what runs of this source depend
            on, by content, not by where it lies.

    """
    path, chosen = options.out / f"runs-{source}.json", {**settings, "code_version": code_version()}
    told = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {"settings": chosen, "runs": []}
    if not isinstance(told, dict):
        raise ConfigError(f"{path} was measured with an older version; choose another --out")
    refuse_other(path, told["settings"], chosen)
    done = {(r["strategy"], r["latency_ms"], r["seed"]): r for r in told["runs"]}
    asked = [(s, latency, seed) for seed in seeds for latency in options.latencies for s in options.strategies]
    for i, key in enumerate(asked):
        if key not in done:
            done[key] = {"source": source, **asdict(measure(*key))}
            write_json(path, {"settings": chosen, "runs": list(done.values())})
        print(f"\r{source} {i + 1}/{len(asked)}", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    return [done[key] for key in asked]


def summary(runs: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """A row per source, latency and strategy: medians with quartiles over seeds, successes with Wilson's interval."""
    rows = []
    for source, latency, strategy in dict.fromkeys((r["source"], r["latency_ms"], r["strategy"]) for r in runs):
        own = [r for r in runs if (r["source"], r["latency_ms"], r["strategy"]) == (source, latency, strategy)]
        row: dict[str, Any] = {"source": source, "latency_ms": latency, "strategy": strategy, "n": len(own)}
        for name in ("seam_jerk", "other_jerk", "error_mrad", "held"):
            values = [float("nan") if r[name] is None else 100 * r[name] if name == "held" else r[name] for r in own]
            known = [v for v in values if v == v]
            row[name] = median(known) if known else float("nan")
            row[f"{name}_spread"] = [float(v) for v in np.percentile(known, [25, 75])] if known else []
        row["violations"] = sum(r["violations"] for r in own)
        if all(r["success"] is not None for r in own):
            row["successes"] = sum(bool(r["success"]) for r in own)
            row["wilson"] = list(wilson_interval(row["successes"], len(own)))
        rows.append(row)
    return rows


def table(rows: Sequence[dict[str, Any]]) -> str:
    """The summary as Markdown."""
    lines = [
        f"| {' | '.join(HEADINGS)} |",
        "|---" * len(HEADINGS) + "|",
    ]
    for r in rows:
        cells = [r["source"], str(r["latency_ms"]), r["strategy"]]
        cells.append(f"{r['successes']}/{r['n']}" if "successes" in r else f"n = {r['n']}")
        for name in ("seam_jerk", "other_jerk", "error_mrad", "held"):
            spread = r[f"{name}_spread"]
            cells.append(f"{r[name]:.3g} ({spread[0]:.3g} to {spread[1]:.3g})" if spread else "-")
        lines.append(f"| {' | '.join([*cells, str(r['violations'])])} |")
    return "\n".join(lines)


def _points(row: dict[str, Any], name: str) -> tuple[float, float, float]:
    """A figure of a row with its lower and upper bound."""
    if name == "success":
        low, high = row["wilson"]
        return 100 * row["successes"] / row["n"], 100 * low, 100 * high
    low, high = row[f"{name}_spread"] or (row[name], row[name])
    return row[name], low, high


def plot(rows: Sequence[dict[str, Any]], path: Path) -> Path:
    """Each figure against latency, a line per strategy with quartiles; success too where there is one."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    panels = [*PANELS, *([("success", "success [%]")] if "successes" in rows[0] else [])]
    figure, axes = pyplot.subplots(1, len(panels), figsize=(4.2 * len(panels), 3.4), constrained_layout=True)
    for strategy in dict.fromkeys(r["strategy"] for r in rows):
        own = [r for r in rows if r["strategy"] == strategy]
        x = [r["latency_ms"] for r in own]
        for axis, (name, label) in zip(axes, panels, strict=True):
            (line,) = axis.plot(x, [_points(r, name)[0] for r in own], marker="o", label=strategy)
            bands = zip(*(_points(r, name)[1:] for r in own), strict=True)
            axis.fill_between(x, *bands, color=line.get_color(), alpha=0.12)
            axis.set(xlabel="latency [ms]", ylabel=label)
    for axis in axes:
        axis.set_ylim(bottom=0)
    axes[0].legend()
    figure.suptitle(f"{rows[0]['source']}: medians and quartiles, n = {rows[0]['n']}", fontsize=10)
    figure.savefig(path, dpi=130)
    pyplot.close(figure)
    return path


if __name__ == "__main__":
    sys.exit(main())
