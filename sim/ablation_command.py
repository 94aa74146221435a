"""`e0 ablate`: the tables of a suite of variants, trained and evaluated alike."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from e0_policy.files import write_json
from e0_ros.config import ConfigError
from sim import detour
from sim.ablation import Bench, run
from sim.ablation_suites import SUITES, Variant
from sim.detour_data import write_detour
from sim.eval import seed_range
from sim.evaluation import check_tasks
from sim.statistics import wilson_interval

DESCRIPTION = """\
Train variants of a configuration alike, evaluate each on the same unseen seeds (direct loop), print one table.

suites
  heads  E0 with N = 1, 2, 4, 10 steps against a one-pass categorical head (argmax, sampled) and regression heads
  paper  the paper's ablations: bins, alpha, N, prediction horizon, normalisation; token layout and training seed

Without --data, demonstrations of Detour-v0 come straight from its planner, without topics. After a kill the same
command goes on. `pure` counts rollouts that pass the post on one side and keep to it.
"""
EPILOG = """\
examples
  e0 ablate --suite heads --out runs/heads --json heads.json
  e0 ablate --suite paper --out runs/paper --config config/train/nano.yaml --data datasets/pick \\
    --simulator maniskill --task PickCube-v1 --seeds 1000:1100

exit status: 0 done, 1 a training failed or rollouts ended with an error, 2 wrong arguments
"""


def parser() -> argparse.ArgumentParser:
    """Arguments of `e0 ablate`."""
    raw = argparse.RawDescriptionHelpFormatter
    p = argparse.ArgumentParser(prog="e0 ablate", description=DESCRIPTION, epilog=EPILOG, formatter_class=raw)
    p.add_argument("--suite", choices=tuple(SUITES), required=True, help="what is compared")
    p.add_argument("--out", type=Path, required=True, help="folder of all trainings and rollouts; one there goes on")
    p.add_argument("--json", type=Path, help="write the figures to this file")
    p.add_argument("--config", type=Path, default=Path("config/train/detour.yaml"), help="training that is varied")
    p.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE", help="change it in every variant")
    p.add_argument("--rates", nargs="*", type=float, default=[], help="learning rates to try with every training")
    p.add_argument("--data", help="dataset (default: demonstrations of Detour-v0, made below --out)")
    p.add_argument("--demonstrations", type=int, default=500, help="of Detour-v0 (default: 500)")
    p.add_argument("--simulator", default="fr3_plant", help="fr3_plant or maniskill (default: fr3_plant)")
    p.add_argument("--task", default=detour.TASK, help=f"default: {detour.TASK}")
    p.add_argument("--seeds", default="100000:100100", help="A:B of the rollouts, B excluded (default: 100000:100100)")
    p.add_argument("--jobs", type=int, default=1, help="trainings, then evaluations, at a time (default: 1)")
    p.add_argument("--groups", nargs="*", default=[], help="only these groups of the suite, e.g. E0 categorical")
    return p


def main(argv: Sequence[str] | None = None) -> int:
    """Run a suite; 0 done, 1 something failed, 2 wrong arguments."""
    options = parser().parse_args(argv)
    try:
        variants = _variants(options)
        bench = _bench(options, {name for variant in variants for name in variant.changes})
        rows: list[dict[str, Any]] = []
        for rows in run(bench, variants, lambda text: print(text, flush=True)):
            _write(options, rows)
    except ValueError as error:
        print(f"e0 ablate: {error}", file=sys.stderr)
        return 2
    except RuntimeError as error:
        print(f"e0 ablate: {error}\nthe same command goes on", file=sys.stderr)
        return 1
    print(table(rows))
    return 1 if any(row["errors"] for row in rows) else 0


def _write(options: argparse.Namespace, rows: Sequence[Mapping[str, Any]]) -> None:
    """The figures so far; each row says of how many rollouts."""
    about = {"suite": options.suite, "task": options.task, "seeds": options.seeds, "rows": rows}
    if options.json:
        write_json(options.json, about)


def _variants(options: argparse.Namespace) -> list[Variant]:
    variants = SUITES[options.suite]()
    known = list(dict.fromkeys(variant.group for variant in variants))
    if unknown := sorted(set(options.groups) - set(known)):
        raise ConfigError(f"no group {unknown[0]!r} in suite {options.suite}; there are {', '.join(known)}")
    return [variant for variant in variants if variant.group in (options.groups or known)]


def _bench(options: argparse.Namespace, varied: Collection[str]) -> Bench:
    if options.jobs < 1:
        raise ConfigError(f"--jobs is {options.jobs}; at least 1 is needed")
    check_tasks(options.simulator, (options.task,))
    try:
        base: Any = yaml.safe_load(options.config.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise ConfigError(f"{options.config}: {error}; give a YAML file of `e0 train`") from None
    if not isinstance(base, dict):
        raise ConfigError(f"{options.config} is no YAML mapping")
    changes = _changes(options.set)
    if clash := sorted(set(changes) & set(varied)):
        raise ConfigError(f"--set {clash[0]}: suite {options.suite} varies it, see sim/ablation_suites.py")
    data, model = options.data, base.get("model", {})
    if not data:
        if options.task != detour.TASK:
            raise ConfigError(f"--task {options.task} needs --data; only {detour.TASK} brings its demonstrations")
        data = str(options.out / "data")
        options.out.mkdir(parents=True, exist_ok=True)
        size_px = changes.get("model.image_size", model.get("image_size", 64))
        views = changes.get("model.views", model.get("views", ("base", "wrist")))
        write_detour(Path(data), options.demonstrations, size_px, tuple(views))
    rates = tuple(options.rates) or (float(base.get("learning_rate", 1e-3)),)
    shared = {**changes, "data": data}
    seeds = seed_range(options.seeds)
    return Bench(options.config, shared, rates, options.simulator, options.task, seeds, options.out, options.jobs)


def _changes(words: Sequence[str]) -> dict[str, Any]:
    pairs = [word.partition("=") for word in words]
    for word, (name, equals, _) in zip(words, pairs, strict=True):
        if not equals or name in ("output", "data", "learning_rate"):
            raise ConfigError(
                f"--set {word}: NAME=VALUE is needed; --out, --data and --rates have options of their own"
            )
    return {name: yaml.safe_load(value) for name, _, value in pairs}


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Figures of variants in Markdown, shares in percent with their Wilson intervals (95 %)."""
    lines = ["| | | success % | pure % | ways | n | held-out loss | held-out tool error mm |", "| --- " * 8 + "|"]
    for found in rows:
        ways = ", ".join(f"{count} {way}" for way, count in found["ways"].items())
        cells = [found["group"], found["label"], *(_share(found[key], found["n"]) for key in ("successes", "pure"))]
        loss, tool_m = found["loss"], found["tcp_m"]
        cells += [ways, str(found["n"]), f"{loss:.4g}" if loss is not None else ""]
        lines.append(f"| {' | '.join([*cells, f'{1000 * tool_m:.1f}' if tool_m is not None else ''])} |")
    return "\n".join(lines)


def _share(count: int, total: int) -> str:
    low, high = wilson_interval(count, total)
    return f"{100 * count / total:.0f} ({100 * low:.0f} to {100 * high:.0f})" if total else "-"


if __name__ == "__main__":
    sys.exit(main())
