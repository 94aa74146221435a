"""What an unattended recording has to do: a bag per task and seed, and which of them exist already."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from e0_policy.files import sync
from e0_ros.config import ConfigError, load_yaml
from e0_ros.core.bag_writer import DISCARDED, PARTIAL
from e0_ros.core.episode import is_episode_id

CHOICES = "record.yaml"
FINISHED = ("success", "failure")
"""Outcomes of episodes that ran to their end; any other bag is set aside and its seed recorded again."""


@dataclass(frozen=True)
class Job:
    """One episode to record."""

    task: str
    seed: int

    @property
    def name(self) -> str:
        """Name of its bag: `pickcube-v1-001000`."""
        return f"{self.task.lower()}-{self.seed:06d}"


def parse_seeds(text: str) -> range:
    """Seeds of `1000:1600` (the last one not included) or of a single `1000`.

    Raises:
        ConfigError: another form, or no seed at all.

    """
    first, colon, last = text.partition(":")
    try:
        seeds = range(int(first), int(last) if colon else int(first) + 1)
    except ValueError:
        raise ConfigError(f"seeds are {text!r}; FIRST:END is needed, as 1000:1600") from None
    if not seeds or seeds.start < 0:
        raise ConfigError(f"seeds are {text!r}, which names none; FIRST:END with 0 <= FIRST < END is needed")
    return seeds


def jobs(tasks: Sequence[str], seeds: range) -> list[Job]:
    """Every seed of every task, task by task: a simulator takes seconds to change its task.

    Raises:
        ConfigError: a task's name that cannot be part of a bag's.

    """
    every = [Job(task, seed) for task in dict.fromkeys(tasks) for seed in seeds]
    for job in every[:: len(seeds)]:
        if not is_episode_id(job.name):
            raise ConfigError(f"task is {job.task!r}; letters, digits, _ and - are needed, at most 57")
    return every


def outcome(bag: Path) -> str:
    """Outcome of a closed bag by its `metadata.yaml`; empty if there is none to be read."""
    try:
        text = (bag / "metadata.yaml").read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return ""
    try:
        known = yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
        return str(known["rosbag2_bagfile_information"]["custom_data"]["outcome"])
    except (yaml.YAMLError, KeyError, TypeError):
        return ""


def remember(bags: Path, choices: Mapping[str, Any]) -> None:
    """Write with which choices the folder's bags are recorded; they are the same for all of them.

    Raises:
        ConfigError: its bags were recorded with others.

    """
    file = bags / CHOICES
    if file.exists():
        known = load_yaml(file)
        for key in sorted({*known, *choices}):
            if known.get(key) != choices.get(key):
                raise ConfigError(
                    f"{bags} holds episodes recorded with {key} {known.get(key)!r}, now it is {choices.get(key)!r}; "
                    "choose another --out"
                )
        return
    bags.mkdir(parents=True, exist_ok=True)
    partial = file.with_suffix(".partial")
    partial.write_text(yaml.safe_dump(dict(choices), sort_keys=False), encoding="utf-8")
    sync(partial)
    partial.replace(file)


def finished(bags: Path, job: Job) -> bool:
    """Whether the job's bag is there, whole, of an episode that ran to its end."""
    return outcome(bags / job.name) in FINISHED


def set_aside(bags: Path, job: Job) -> Iterator[Path]:
    """Move what an interrupted attempt left under the job's name to `discarded/`, and yield the new places."""
    aside = bags / DISCARDED
    for left in (bags / job.name, bags / (job.name + PARTIAL), aside / job.name):
        if left.exists():
            aside.mkdir(exist_ok=True)
            number = 1
            while (place := aside / f"{left.name.removesuffix(PARTIAL)}-aside-{number}").exists():
                number += 1
            yield left.rename(place if not left.name.endswith(PARTIAL) else place.with_name(place.name + PARTIAL))
