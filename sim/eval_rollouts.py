"""Rollouts of an evaluation as rows of a CSV file that survives a kill: written one by one, continued later."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from e0_ros.config import ConfigError
from sim.csv_rows import CsvRows, whole_rows

SUCCESS, FAILURE, ERROR = "success", "failure", "error"
POLICY, BLANK, OTHER = "policy", "blank", "other"
CONDITIONS = {
    POLICY: "as trained",
    BLANK: "black pictures",
    OTHER: "another task's instruction",
}
"""What a policy is given: everything, or a control with a part of it taken away."""

ROWS, CONFIGURATION = "rollouts.csv", "configuration.json"


@dataclass(frozen=True, order=True)
class Job:
    """One rollout to be run."""

    condition: str
    task: str
    seed: int


@dataclass(frozen=True)
class Rollout:
    """What one rollout came to; NaN and -1 where nothing was measured.

    `steps` are control steps of 50 ms. `jerk_rad_s3` is `rms_jerk` of the commanded positions every 50 ms. `violations`
    are those of the independent judge. `digest` hashes every pose and every command. `bag` is what was recorded of
    it, if anything.
    """

    condition: str
    task: str
    seed: int
    outcome: str
    steps: int = 0
    max_steps: int = 0
    time_to_success_s: float = math.nan
    jerk_rad_s3: float = math.nan
    plans: int = 0
    latency_ms_p50: float = math.nan
    latency_ms_p99: float = math.nan
    stale: int = 0
    refused: int = 0
    holds: int = 0
    violations: int = -1
    wall_s: float = math.nan
    digest: str = ""
    bag: str = ""
    error: str = ""

    @property
    def job(self) -> Job:
        """What was run."""
        return Job(self.condition, self.task, self.seed)

    def line(self) -> str:
        """The rollout in one line."""
        control = "" if self.condition == POLICY else f"  [{CONDITIONS[self.condition]}]"
        text = f"{self.task} seed {self.seed:<6} {self.outcome:<7} {self.steps:3d}/{self.max_steps} steps{control}"
        return f"{text}  {self.error}" if self.error else text


_COLUMNS = ["configuration", *(f.name for f in fields(Rollout))]


class RolloutStore:
    """The folder of an evaluation: its configuration, and a row per rollout, on disk before the next one begins.

    A rollout is run again if its row says ERROR, so the last row of a job counts.

    Args:
        folder: made if it is not there.
        configuration: everything that a rollout's outcome depends on besides its job.

    Raises:
        ConfigError: the folder holds rollouts of another configuration; the difference is named.

    """

    def __init__(self, folder: Path, configuration: Mapping[str, Any]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.digest = digest(configuration)
        self.path = folder / ROWS
        told = folder / CONFIGURATION
        if told.is_file():
            refuse_other(folder, json.loads(told.read_text(encoding="utf-8")), configuration)
        else:
            told.write_text(json.dumps(configuration, indent=2) + "\n", encoding="utf-8")
        self._file = CsvRows(self.path, _COLUMNS)
        self.rollouts = _rollouts(self.path, self._file.rows, self.digest)

    def add(self, rollout: Rollout) -> None:
        """Take a rollout; it is on disk when this returns."""
        self.rollouts[rollout.job] = rollout
        self._file.add([self.digest, *asdict(rollout).values()])

    def missing(self, jobs: Iterable[Job]) -> list[Job]:
        """Those jobs that have not been run, or ended with an error."""
        done = self.rollouts
        return [job for job in jobs if job not in done or done[job].outcome == ERROR]

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def read_run(folder: Path) -> tuple[dict[str, Any], dict[Job, Rollout]]:
    """Configuration and rollouts of an evaluation, which may still be running.

    Raises:
        ConfigError: no evaluation there, or one of another version.

    """
    told = folder / CONFIGURATION
    if not told.is_file() or not (folder / ROWS).is_file():
        raise ConfigError(f"{folder} holds no evaluation; one is a folder with {CONFIGURATION} and {ROWS}")
    configuration = json.loads(told.read_text(encoding="utf-8"))
    if not isinstance(configuration, dict):
        raise ConfigError(f"{told} is not the configuration of an evaluation")
    rows, _ = whole_rows(folder / ROWS, _COLUMNS)
    return configuration, _rollouts(folder / ROWS, rows, digest(configuration))


def _rollouts(path: Path, rows: Iterable[list[str]], configuration: str) -> dict[Job, Rollout]:
    """Rollouts of rows, all of one configuration; the last row of a job counts.

    Raises:
        ConfigError: a row is of another.

    """
    found = {}
    for values in rows:
        if values[0] != configuration:
            raise ConfigError(
                f"{path}: a row is of configuration {values[0]}, this is {configuration}; choose another --out"
            )
        rollout = _rollout(values[1:])
        found[rollout.job] = rollout
    return found


def digest(configuration: Mapping[str, Any]) -> str:
    """Hash of a configuration, 12 hexadecimal digits."""
    return hashlib.sha256(json.dumps(configuration, sort_keys=True).encode()).hexdigest()[:12]


def refuse_other(place: Path, there: Mapping[str, Any], here: Mapping[str, Any]) -> None:
    """Refuse to go on where something was measured with another configuration.

    Raises:
        ConfigError: names every difference.

    """
    names = [name for name in sorted({*there, *here}) if there.get(name) != here.get(name)]
    if names:
        text = "; ".join(f"{name} was {there.get(name)!r} and is {here.get(name)!r}" for name in names)
        raise ConfigError(f"{place} is of another configuration: {text}; choose another --out")


def _rollout(values: list[str]) -> Rollout:
    kinds = {"str": str, "int": int, "float": float}
    return Rollout(*(kinds[str(f.type)](v) for f, v in zip(fields(Rollout), values, strict=True)))  # type: ignore[arg-type]
