"""What trials came to: a row per trial, on disk before the next one begins; the last row of a trial counts."""

from __future__ import annotations

import csv
import io
import os
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from e0_ros.config import ConfigError
from sim.eval_rollouts import ERROR

TRIALS = "trials.csv"


@dataclass(frozen=True)
class Done:
    """A trial that was run: success, failure, or error, which says nothing of the policy and is run again.

    A failure reached `stages` of `of` stages; `of` is 0 for tasks without.
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


_COLUMNS = [f.name for f in fields(Done)]
_KINDS = {"int": int, "float": float, "str": str}


class TrialStore:
    """The rows of a folder of trials.

    Raises:
        ConfigError: its file has other columns.

    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / TRIALS
        self.done: dict[int, Done] = {}
        whole = self._read()
        self._file = self.path.open("a", encoding="utf-8", newline="")
        self._file.truncate(whole)
        if not whole:
            self._write(_COLUMNS)

    def add(self, trial: Done) -> None:
        """Take a trial; it is on disk when this returns."""
        self.done[trial.number] = trial
        self._write(list(asdict(trial).values()))

    def missing(self, number: int) -> bool:
        """Whether a trial is still to be run."""
        return number not in self.done or self.done[number].outcome == ERROR

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _write(self, values: list[object]) -> None:
        line = io.StringIO()
        csv.writer(line, lineterminator="\n").writerow(values)
        self._file.write(line.getvalue())
        self._file.flush()
        os.fsync(self._file.fileno())

    def _read(self) -> int:
        """Take the rows that are there; bytes up to the last whole one, for a kill may tear the last."""
        if not self.path.is_file():
            return 0
        data = self.path.read_bytes()
        data = data[: data.rfind(b"\n") + 1]
        rows = list(csv.reader(io.StringIO(data.decode("utf-8"), newline="")))
        if rows and rows[0] != _COLUMNS:
            raise ConfigError(f"{self.path} has other columns than this version writes; choose another --out")
        for row in rows[1:]:
            values = {f.name: _KINDS[str(f.type)](text) for f, text in zip(fields(Done), row, strict=True)}
            done = Done(**values)  # type: ignore[arg-type]
            self.done[done.number] = done
        return len(data)
