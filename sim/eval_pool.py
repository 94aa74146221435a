"""Processes that share the rollouts of an evaluation, each with a simulator of its own; a dead one is replaced."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from e0_policy.types import ImageArray
from e0_ros.config import ConfigError
from sim.eval_pictures import RolloutVideo, first_frame_path, write_first_frame
from sim.eval_rollouts import Job, Rollout
from sim.evaluation import EvalConfig, RolloutRunner, error_of

ONE_THREAD = ("OMP_NUM_THREADS", "LP_NUM_THREADS")
"""Threads of numerics and of the software renderer: one per process renders as fast as more, and leaves a core each."""


@dataclass(frozen=True)
class Assignment:
    """A rollout to be run, and where its video goes (None: none is made)."""

    job: Job
    video: Path | None = None


def run_in_pool(
    config: EvalConfig,
    assignments: Sequence[Assignment],
    folder: Path,
    workers: int,
    limit_s: float,
    on_rollout: Callable[[Assignment, Rollout], None],
) -> None:
    """Run rollouts in up to `workers` processes; `on_rollout` is called as each one ends, in any order.

    A process that dies or takes longer than `limit_s` over a rollout makes that rollout an error and is replaced.

    Raises:
        ConfigError: the rollouts cannot begin: the checkpoint or a setting of inference is wrong.

    """
    waiting, pool = deque(assignments), []
    try:
        with environment(dict.fromkeys(ONE_THREAD, "1") if workers > 1 else {"OMP_NUM_THREADS": "1"}):
            pool = [_Worker(config, folder) for _ in range(min(workers, len(waiting)))]
            while waiting or any(worker.busy for worker in pool):
                for worker in pool:
                    if waiting and not worker.busy:
                        worker.give(waiting.popleft())
                _collect(pool, limit_s, on_rollout)
    finally:
        for worker in pool:
            worker.end()


class _Worker:
    """A process and the rollout that it is at."""

    def __init__(self, config: EvalConfig, folder: Path) -> None:
        self._config, self._folder = config, folder
        self.busy: Assignment | None = None
        self._start()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, other = context.Pipe()
        self._process = context.Process(target=_serve, args=(other, self._config, self._folder), daemon=True)
        self._process.start()
        other.close()

    def give(self, assignment: Assignment) -> None:
        """Hand it a rollout."""
        self.busy, self._since_s = assignment, time.monotonic()
        with contextlib.suppress(BrokenPipeError):
            self.connection.send(assignment)

    def take(self) -> Rollout:
        """Its answer; if it died, an error that says how.

        Raises:
            ConfigError: it cannot begin.

        """
        assert self.busy is not None
        try:
            said = self.connection.recv()
        except (EOFError, ConnectionResetError):
            self._process.join(5.0)
            said = error_of(self.busy.job, f"the process of the rollout died ({_ending(self._process.exitcode)})")
            self._start()
        if isinstance(said, str):
            raise ConfigError(said)
        self.busy = None
        return said

    def overdue(self, limit_s: float) -> Rollout | None:
        """An error, if it has taken too long; it is replaced then."""
        if self.busy is None or time.monotonic() - self._since_s < limit_s:
            return None
        job, self.busy = self.busy.job, None
        self.end()
        self._start()
        return error_of(job, f"no end after {limit_s:.0f} s")

    def end(self) -> None:
        """End the process at once; what it was at is lost."""
        self._process.kill()
        self._process.join()
        self.connection.close()


def _collect(pool: Sequence[_Worker], limit_s: float, on_rollout: Callable[[Assignment, Rollout], None]) -> None:
    """Take what is there, at most a second later."""
    busy = {worker.connection: worker for worker in pool if worker.busy}
    for connection in wait(list(busy), 1.0):
        worker = busy.pop(connection)  # type: ignore[index]
        assignment = worker.busy
        on_rollout(assignment, worker.take())  # type: ignore[arg-type]
    for worker in busy.values():
        assignment = worker.busy
        if rollout := worker.overdue(limit_s):
            on_rollout(assignment, rollout)  # type: ignore[arg-type]


class RolloutWorker:
    """What a process of a pool does, of ours or of Ray's: rollouts in, results out."""

    def __init__(self, config: EvalConfig, folder: Path) -> None:
        warnings.filterwarnings("ignore", "Failed to find system libvulkan")
        self._folder, self.obstacle = folder, ""
        try:
            self.runner = RolloutRunner(config, self._keep)
        except Exception as error:
            self.obstacle = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"

    def run(self, given: Assignment) -> Rollout | str:
        """Run a rollout; a string is the reason why none can begin."""
        if self.obstacle:
            return self.obstacle
        if given.video is None:
            return self.runner.run(given.job)
        with RolloutVideo(given.video, given.job) as video:
            return self.runner.run(given.job, video.add)

    def _keep(self, job: Job, views: Mapping[str, ImageArray]) -> None:
        write_first_frame(first_frame_path(self._folder, job), views)


def _serve(connection: Connection, config: EvalConfig, folder: Path) -> None:
    """The process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    worker = RolloutWorker(config, folder)
    with contextlib.suppress(EOFError, KeyboardInterrupt):
        while True:
            connection.send(worker.run(connection.recv()))


@contextlib.contextmanager
def environment(values: Mapping[str, str]) -> Iterator[None]:
    """Variables for processes started meanwhile; numeric libraries read them when they are loaded."""
    before: dict[str, Any] = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _ending(code: int | None) -> str:
    if code is not None and code < 0:
        return signal.Signals(-code).name
    return f"exit status {code}"
