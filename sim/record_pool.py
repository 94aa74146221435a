"""Processes that share a list of episodes to record; one that dies is started again."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import suppress
from pathlib import Path
from typing import Any

from e0_ros.child import adopt_orphans, orphans
from sim.record_jobs import Job

WORKER = (sys.executable, "-m", "sim.record_worker")
END_S, ORPHAN_S = 30.0, 10.0
ATTEMPTS = 2
"""An episode that ends in an error is tried so often."""
BAD_IN_A_ROW = 6
"""So many errors one after another, of all workers together, end the recording: something is wrong with all of it."""


class Pool:
    """Workers, each a process with a graph in a ROS domain of its own.

    Args:
        spec: what `sim.record_worker` is told; the worker's `folder` is added.
        domains: ROS domain of each worker.
        folder: each start of a worker logs to `folder/worker-<domain>-<number>`.
        on_result: called from the workers' threads, one at a time, with what a worker says of an episode; `error` is
            set if it did not become one.
        worker: command of a worker.
    """

    def __init__(
        self,
        spec: Mapping[str, Any],
        domains: Sequence[int],
        folder: Path,
        on_result: Callable[[dict[str, Any]], None],
        worker: Sequence[str] = WORKER,
    ) -> None:
        self.reason = ""
        self._starting = threading.Lock()
        self._workers = [_Worker(worker, spec, domain, folder, self._starting) for domain in domains]
        self._on_result = on_result
        self._jobs: queue.SimpleQueue[Job] = queue.SimpleQueue()
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._bad = 0
        adopt_orphans()

    def run(self, jobs: Sequence[Job]) -> None:
        """Record them all; returns when that is done, or `stop` was called and the running episodes are over."""
        for job in jobs:
            self._jobs.put(job)
        workers = self._workers[: len(jobs)]
        with ThreadPoolExecutor(max(1, len(workers))) as threads:
            running = [threads.submit(self._serve, worker) for worker in workers]
            while wait(running, timeout=0.2).not_done:  # signals are handled in between
                pass
        for ended in running:
            ended.result()

    def stop(self, reason: str = "") -> None:
        """Start no further episode."""
        self.reason = self.reason or reason
        self._stopping.set()

    def kill(self) -> None:
        """End at once; what is being recorded stays partial."""
        self.stop()
        for worker in self._workers:
            worker.kill()

    def _serve(self, worker: _Worker) -> None:
        try:
            while not self._stopping.is_set():
                job = self._jobs.get_nowait()
                for _ in range(ATTEMPTS):
                    said = worker.ask(job)
                    if worker.pid is None:
                        self._end_orphans()
                    if not said["error"] or self._stopping.is_set():
                        break
                self._report(said)
        except queue.Empty:
            pass
        except BaseException:
            self.stop("an error of e0 record itself")
            raise
        finally:
            worker.end()

    def _end_orphans(self) -> None:
        """Wait for the nodes of a worker that died; kill those that do not end, for they keep its ROS domain."""
        deadline = time.monotonic() + ORPHAN_S
        while True:
            with self._starting:
                left = orphans(worker.pid for worker in self._workers if worker.pid is not None)
            if not left:
                return
            if time.monotonic() > deadline:
                for pid in left:
                    with suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
            time.sleep(0.05)

    def _report(self, said: dict[str, Any]) -> None:
        with self._lock:
            self._bad = self._bad + 1 if said["error"] else 0
            if self._bad >= BAD_IN_A_ROW:
                self.stop(f"{self._bad} errors one after another; the last: {said['error']}")
            self._on_result(said)


class _Worker:
    """A worker's process; one that has died is started anew for the next episode."""

    def __init__(
        self, command: Sequence[str], spec: Mapping[str, Any], domain: int, folder: Path, starting: threading.Lock
    ) -> None:
        self._command, self._spec, self._domain, self._folder = command, spec, domain, folder
        self._starting = starting
        self._starts = 0
        self._process: subprocess.Popen[str] | None = None

    def ask(self, job: Job) -> dict[str, Any]:
        """Have an episode recorded; what the worker says of it, or an error if it died."""
        process = self._process or self._start()
        said = _exchange(process, {"task": job.task, "seed": job.seed})
        if said is None or "fatal" in said:
            self.end()
            reason = said["fatal"] if said else "it died"
            error = f"worker in domain {self._domain}: {reason} (logs: {self._log_folder})"
            return {"task": job.task, "seed": job.seed, "name": job.name, "error": error}
        return said

    def end(self) -> None:
        """Let the worker end its graph."""
        process = self._process
        if process is None or process.stdin is None:
            return
        with suppress(BrokenPipeError):
            process.stdin.close()
        try:
            process.wait(END_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        self._process = None

    @property
    def pid(self) -> int | None:
        """Its process id; None if it does not run."""
        return self._process.pid if self._process is not None else None

    def kill(self) -> None:
        """End at once."""
        if self._process is not None:
            self._process.kill()

    @property
    def _log_folder(self) -> Path:
        return self._folder / f"worker-{self._domain}-{self._starts}"

    def _start(self) -> subprocess.Popen[str]:
        self._starts += 1
        self._log_folder.mkdir(parents=True, exist_ok=True)
        spec = json.dumps({**self._spec, "folder": str(self._log_folder)})
        with (self._log_folder / "worker.log").open("w", encoding="utf-8") as log, self._starting:
            self._process = subprocess.Popen(
                [*self._command, spec],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                start_new_session=True,  # Ctrl-C is for the process that asks
                env={**os.environ, "ROS_DOMAIN_ID": str(self._domain)},
            )
        return self._process


def _exchange(process: subprocess.Popen[str], question: Mapping[str, Any]) -> dict[str, Any] | None:
    """The answer to a line of JSON; None if the process died."""
    assert process.stdin is not None and process.stdout is not None
    with suppress(BrokenPipeError):  # it may have told why before it ended
        process.stdin.write(json.dumps(question) + "\n")
        process.stdin.flush()
    for line in process.stdout:
        said: dict[str, Any] = json.loads(line)
        if "ready" not in said:
            return said
    return None
