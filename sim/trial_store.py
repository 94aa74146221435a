"""What trials came to: a row per trial, on disk before the next one begins; the last row of a trial counts."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from pathlib import Path

from sim.csv_rows import CsvRows
from sim.eval_rollouts import ERROR

TRIALS = "trials.csv"


@dataclass(frozen=True)
class Done:
    """A trial that was run: success, failure, or error, which says nothing of the policy and is run again.

    A failure reached `stages` of `of` stages; `of` is 0 for tasks without, and where nobody was there to tell.
    """

    number: int
    task: str
    scene: int
    policy: str
    outcome: str
    stages: int
    of: int
    time_s: float
    limit_s: float
    bag: str = ""
    note: str = ""


class TrialStore:
    """The rows of a folder of trials.

    Raises:
        ConfigError: its file has other columns.

    """

    def __init__(self, folder: Path) -> None:
        self._file = CsvRows(folder / TRIALS, [f.name for f in fields(Done)])
        self.done = {trial.number: trial for trial in map(_trial, self._file.rows)}

    def add(self, trial: Done) -> None:
        """Take a trial; it is on disk when this returns."""
        self.done[trial.number] = trial
        self._file.add(asdict(trial).values())

    def missing(self, number: int) -> bool:
        """Whether a trial is still to be run."""
        return number not in self.done or self.done[number].outcome == ERROR

    @property
    def begun(self) -> bool:
        """Whether a trial counts already."""
        return not all(map(self.missing, self.done))

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _trial(row: list[str]) -> Done:
    kinds = {"int": int, "float": float, "str": str}
    return Done(*(kinds[str(f.type)](text) for f, text in zip(fields(Done), row, strict=True)))  # type: ignore[arg-type]
