"""`e0 ablate`: train variants of one configuration and evaluate each on the same seeds, one table in the end.

Everything is kept below one folder, and a run that was killed goes on where it was: `data` (demonstrations), a folder
per training as `e0 train` writes it, and a line per rollout.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import yaml

from e0_policy.embodiment import load_embodiment
from e0_policy.files import write_json
from e0_ros.config import ConfigError
from e0_ros.policies import load_checkpoint, read_card
from e0_ros.version import code_version
from sim.ablation_suites import Variant
from sim.direct import DirectLoop
from sim.simulators import make_adapter
from sim.sources import PolicySource

TRAINED = "trained.json"
BLOCK = 10
"""Seeds of each variant before the next variant's turn, so that half a table compares like with like."""


@dataclass(frozen=True)
class Bench:
    """On what variants are compared.

    Attributes:
        config: YAML file of the training that is varied.
        changes: to it, by dotted name, in every variant.
        rates: learning rates that every training is tried with; the lowest validation loss is evaluated.
        task: of the simulator.
        seeds: of the rollouts.
        out: folder.
        jobs: trainings, and then evaluations, at a time, each in a process of its own if there are several.

    """

    config: Path
    changes: Mapping[str, Any]
    rates: tuple[float, ...]
    simulator: str
    task: str
    seeds: range
    out: Path
    jobs: int = 1


@dataclass(frozen=True)
class Rollout:
    """One rollout; `way` as in `sim.adapter.Privileged`."""

    seed: int
    success: bool
    way: str
    steps: int
    error: str = ""


def run(bench: Bench, variants: Sequence[Variant], tell: Callable[[str], None]) -> Iterator[list[dict[str, Any]]]:
    """Train what is missing, then evaluate variants side by side, some seeds at a time; yields a row for each.

    Raises:
        ConfigError: the training refused its configuration.
        RuntimeError: a training failed or was stopped; the same call goes on.

    """
    trainings = {variant.training: variant for variant in variants}
    jobs = bench.jobs
    with ThreadPoolExecutor(jobs) as waiting:
        best = waiting.map(lambda variant: best_of(bench, variant, tell), trainings.values())
        trained = dict(zip(trainings, best, strict=True))
    served = {variant.served_as: variant for variant in variants}
    block = BLOCK * jobs
    with ProcessPoolExecutor(jobs, get_context("spawn")) if jobs > 1 else nullcontext() as pool:
        for end in range(block, len(bench.seeds) + block, block):
            evaluated = partial(_evaluated, bench, bench.seeds[:end])
            folders = [trained[variant.training][0] for variant in served.values()]
            rollouts = dict(zip(served, (pool.map if pool else map)(evaluated, served.values(), folders), strict=True))
            found = [(variant, *trained[variant.training], rollouts[variant.served_as]) for variant in variants]
            yield [row(variant, folder.name, told, rolled) for variant, folder, told, rolled in found]


def _evaluated(bench: Bench, seeds: Sequence[int], variant: Variant, folder: Path) -> list[Rollout]:
    return evaluate(bench, variant, folder / "checkpoint", seeds, partial(print, flush=True))


def best_of(bench: Bench, variant: Variant, tell: Callable[[str], None]) -> tuple[Path, dict[str, Any]]:
    """Folder and figures of the variant's training at the rate with the lowest validation loss in the end."""
    found = []
    for rate in bench.rates:
        name = variant.training if len(bench.rates) == 1 else f"{variant.training}-lr{rate:g}"
        folder = bench.out / name
        changes = {**bench.changes, **variant.changes, "learning_rate": rate}
        found.append((train(bench.config, changes, folder, tell, bench.jobs), folder))
    if len(found) > 1 and any(told["validation"] is None for told, _ in found):
        raise ConfigError("several --rates need held-out demonstrations; give validation_fraction above 0")
    told, folder = min(found, key=lambda pair: pair[0]["validation"]["loss"] if pair[0]["validation"] else 0.0)
    return folder, told


def train(
    config: Path, changes: Mapping[str, Any], folder: Path, tell: Callable[[str], None], jobs: int = 1
) -> dict[str, Any]:
    """`e0 train` in a process of its own, one of `jobs`, new or resumed, unless it is done; its figures."""
    done, said = folder / TRAINED, folder / "settings.json"
    told = {"config": config.read_text(encoding="utf-8"), "changes": dict(changes)}
    if said.is_file() and json.loads(said.read_text(encoding="utf-8")) != told:
        raise ConfigError(f"{folder} was trained with other settings, see {said.name} there; choose another --out")
    if not done.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        said.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
        _train(config, changes, folder, tell, jobs)
        making = read_card(folder / "checkpoint").training
        write_json(done, {"step": making["step"], "validation": making["open_loop"]})
    figures: dict[str, Any] = json.loads(done.read_text(encoding="utf-8"))
    return figures


def _train(config: Path, changes: Mapping[str, Any], folder: Path, tell: Callable[[str], None], jobs: int) -> None:
    words = [
        f"{name}={yaml.safe_dump(value, default_flow_style=True).splitlines()[0]}" for name, value in changes.items()
    ]
    command = [sys.executable, "-m", "e0_policy.train", "--config", str(config), "--continue"]
    tell(f"{folder.name}: train{' on' if (folder / 'state').is_dir() else ''}")
    with (folder / "train.log").open("a", encoding="utf-8") as log:
        command += ["--set", *words, f"output={folder}"]
        ended = subprocess.run(command, stdout=log, stderr=log, check=False, env=_threads(jobs))
    if ended.returncode:
        kind = ConfigError if ended.returncode == 2 else RuntimeError
        raise kind(f"{folder.name}: training ended with {ended.returncode}; its last words are in {log.name}")


def _threads(jobs: int) -> dict[str, str]:
    """The environment of one of several processes: more threads than cores would wait for each other, spinning."""
    share = max(1, len(os.sched_getaffinity(0)) // jobs)
    return {"OMP_NUM_THREADS": str(share), **os.environ} if jobs > 1 else dict(os.environ)


def evaluate(
    bench: Bench, variant: Variant, checkpoint: Path, seeds: Sequence[int], tell: Callable[[str], None]
) -> list[Rollout]:
    """A rollout per seed in the direct loop; those on disk are not run again, unless they ended with an error or are of
    another checkpoint, task, setting or code.
    """
    card = read_card(checkpoint)
    what = [card.identifier, card.digest, bench.simulator, bench.task, dict(variant.settings), code_version()]
    key = hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:12]
    path = checkpoint.parent / f"rollouts-{key}.jsonl"
    done = {rollout.seed: rollout for rollout in read_rollouts(path) if not rollout.error}
    missing = [seed for seed in seeds if seed not in done]
    if missing:
        tell(f"{checkpoint.parent.name}, {variant.group} {variant.label}: {len(missing)} rollouts")
        with path.open("a", encoding="utf-8") as file:
            for rollout in _rollouts(bench, variant, checkpoint, missing):
                file.write(json.dumps(asdict(rollout)) + "\n")
                file.flush()
                os.fsync(file.fileno())
                done[rollout.seed] = rollout
    return [done[seed] for seed in seeds]


def read_rollouts(path: Path) -> list[Rollout]:
    """Rollouts on disk; a line that a kill has torn is cut off."""
    if not path.is_file():
        return []
    data = path.read_bytes()
    whole = data[: data.rfind(b"\n") + 1]
    if len(whole) < len(data):
        os.truncate(path, len(whole))
    return [Rollout(**json.loads(line)) for line in whole.decode().splitlines()]


def _rollouts(bench: Bench, variant: Variant, checkpoint: Path, seeds: Sequence[int]) -> Iterator[Rollout]:
    card = read_card(checkpoint)
    policy = load_checkpoint(str(checkpoint), "auto", {"threads": 1, **variant.settings})
    adapter = make_adapter(bench.simulator, card.views, (card.image_px, card.image_px), card.embodiment)
    source, loop = PolicySource(policy, load_embodiment(card.embodiment)), DirectLoop(adapter, bench.task)
    try:
        for seed in seeds:
            source.reset(bench.task, seed)
            episode = loop.run(bench.task, seed, source)
            way = adapter.privileged().way
            rollout = Rollout(seed, episode.success, way, episode.steps, source.fault)
            yield replace(rollout, success=False, way="") if source.fault else rollout
    finally:
        adapter.close()


def row(variant: Variant, training: str, told: Mapping[str, Any], rollouts: Sequence[Rollout]) -> dict[str, Any]:
    """Figures of a variant; rollouts that ended with an error do not count as rollouts."""
    ran = [rollout for rollout in rollouts if not rollout.error]
    ways = [rollout.way for rollout in ran if rollout.way]
    validation = told["validation"] or {}
    return {
        "group": variant.group,
        "label": variant.label,
        "training": training,
        "changes": dict(variant.changes),
        "settings": dict(variant.settings),
        "steps": told["step"],
        "loss": validation.get("loss"),
        "tcp_m": validation.get("tcp_m"),
        "n": len(ran),
        "errors": len(rollouts) - len(ran),
        "successes": sum(rollout.success for rollout in ran),
        "pure": len(ways),
        "ways": {way: ways.count(way) for way in sorted(set(ways))},
    }
