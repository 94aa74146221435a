"""Trials on the real bench before they are run: the benchmark's tasks, and which policy runs when, unknown to whoever
watches.

Every scene is set up once for each policy; in which order is drawn, balanced over the scenes of a task, so that neither
a drifting bench nor a tired person favours one. Until the trials are done policies go by marks, `policy_1` and so on,
which are drawn too.
"""

from __future__ import annotations

import json
import random
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import yaml

from e0_policy.resources import config_dir
from e0_ros.config import ConfigError, closest

PLAN, SEALED = "plan.json", "sealed.json"
TAKEN = ("bags", "logs", "overlays", "scenes")
"""Folders beside those of the policies, which are named by their labels."""
SEALED_WORDS = "which policy is which: do not open before the trials are done; e0 trials report tells it then"


@dataclass(frozen=True)
class RealTask:
    """A task that a person sets up and judges.

    Attributes:
        name: as in the paper's table.
        title: as in the paper's appendix.
        instruction: what the policy is told.
        criterion: when it is a success.
        limit_s: then it is a failure.
        demonstrations: that the paper trained on; 0: not said.
        stages: of the way to success, in order; a failure is scored by how many were reached.
        scenes: what differs between scenes.

    """

    name: str
    title: str
    instruction: str
    criterion: str
    limit_s: float
    demonstrations: int = 0
    stages: tuple[str, ...] = ()
    scenes: str = ""


@dataclass(frozen=True)
class Benchmark:
    """Tasks and how often each is tried."""

    name: str
    source: str
    trials: int
    tasks: Mapping[str, RealTask]


@dataclass(frozen=True)
class Trial:
    """One trial: `number` from 1 on in the order of the day, `scene` from 0 on within its task, a policy's mark."""

    number: int
    task: str
    scene: int
    policy: str


def benchmark(name: str) -> Benchmark:
    """A shipped benchmark by name, or one of your own by the path of its YAML file.

    Raises:
        ConfigError: no such file, or a wrong or missing key.

    """
    path = Path(name) if name.endswith((".yaml", ".yml")) else config_dir() / "benchmarks" / f"{name}.yaml"
    if not path.is_file():
        raise ConfigError(f"no benchmark {name!r}; e0_real is shipped, and a path to a YAML file is taken")
    data = yaml.safe_load(path.read_text(encoding="utf-8"))
    try:
        tasks = {key: _task(path, key, values) for key, values in data["tasks"].items()}
        return Benchmark(path.stem, str(data["source"]), int(data["trials"]), tasks)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ConfigError(f"{path} is no benchmark of real tasks: {type(error).__name__}: {error}") from None


def _task(path: Path, name: str, values: Mapping[str, Any]) -> RealTask:
    known = [f.name for f in fields(RealTask)]
    for key in values:
        if key not in known:
            raise ConfigError(f"{path}: task {name}: unknown key {key!r}{closest(str(key), known)}")
    return RealTask(name=name, **{**values, "stages": tuple(values.get("stages", ()))})


def order(policies: int, scenes: int, chance: random.Random) -> list[tuple[int, ...]]:
    """Per scene the order in which policies (0 and up) are tried, each as often at each place as can be."""
    first = list(range(policies))
    chance.shuffle(first)
    turns = [tuple(first[(i + k) % policies] for i in range(policies)) for k in range(policies)]
    drawn: list[tuple[int, ...]] = []
    while len(drawn) < scenes:
        chance.shuffle(turns)
        drawn += turns
    drawn = drawn[:scenes]
    chance.shuffle(drawn)
    return drawn


@dataclass(frozen=True)
class TrialPlan:
    """Everything that is decided before the first trial.

    Attributes:
        benchmark: name or path.
        trials: in their order.
        sealed: mark of each policy to its label, its checkpoint and settings of inference.
        identity: of this plan alone. Another one of the same draw has other scenes: people set them up.

    """

    benchmark: str
    seed: int
    trials: tuple[Trial, ...]
    sealed: Mapping[str, Mapping[str, Any]]
    identity: str = field(default_factory=lambda: secrets.token_hex(8), compare=False)

    @property
    def tasks(self) -> dict[str, RealTask]:
        """The tasks that are tried."""
        known = benchmark(self.benchmark).tasks
        return {name: known[name] for name in dict.fromkeys(trial.task for trial in self.trials)}

    def write(self, folder: Path) -> None:
        """Write it into a folder that has none yet.

        Raises:
            ConfigError: trials were planned there already.

        """
        folder.mkdir(parents=True, exist_ok=True)
        if (folder / PLAN).exists():
            raise ConfigError(
                f"{folder} has trials already; go on with e0 trials run {folder}, or choose another --out"
            )
        rows = [[t.number, t.task, t.scene, t.policy] for t in self.trials]
        told = {"identity": self.identity, "benchmark": self.benchmark, "seed": self.seed, "trials": rows}
        (folder / SEALED).write_text(json.dumps({"": SEALED_WORDS, **self.sealed}, indent=2) + "\n", encoding="utf-8")
        (folder / PLAN).write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")


def draw(
    name: str, tasks: Sequence[str], policies: Mapping[str, Mapping[str, Any]], scenes: int, seed: int
) -> TrialPlan:
    """Draw marks and orders.

    Args:
        name: of the benchmark.
        tasks: some of its tasks, in the order of the day; empty: all.
        policies: label to `{"checkpoint": ..., "settings": ...}`.
        scenes: per task; 0: the benchmark's number.
        seed: the same gives the same plan.

    Raises:
        ConfigError: unknown task, or no policy.

    """
    known, chance = benchmark(name), random.Random(seed)
    for task in tasks:
        if task not in known.tasks:
            raise ConfigError(f"benchmark {known.name} has no task {task!r}{closest(task, known.tasks)}")
    if not policies or scenes < 0:
        raise ConfigError("at least one policy and one scene are needed: --policy LABEL=CHECKPOINT --scenes 20")
    labels = list(policies)
    chance.shuffle(labels)
    marks = [f"policy_{i + 1}" for i in range(len(labels))]
    trials: list[Trial] = []
    for task in tasks or known.tasks:
        for scene, turn in enumerate(order(len(labels), scenes or known.trials, chance)):
            trials += [Trial(len(trials) + i + 1, task, scene, marks[who]) for i, who in enumerate(turn)]
    sealed = {mark: {"label": label, **policies[label]} for mark, label in zip(marks, labels, strict=True)}
    return TrialPlan(name, seed, tuple(trials), sealed)


def read_plan(folder: Path) -> TrialPlan:
    """The plan of a folder.

    Raises:
        ConfigError: there is none.

    """
    try:
        told, sealed = (json.loads((folder / name).read_text(encoding="utf-8")) for name in (PLAN, SEALED))
        sealed.pop("", None)
        trials = tuple(Trial(*row) for row in told["trials"])
        return TrialPlan(told["benchmark"], told["seed"], trials, sealed, told["identity"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{folder} holds no trials ({error}); e0 trials plan makes them") from None
