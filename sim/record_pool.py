"""Processes that share a list of episodes to record; one that dies is started again."""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from sim.record_jobs import Job

ATTEMPTS = 2
"""An episode that ends in an error is tried so often."""
BAD_IN_A_ROW = 6
"""So many errors one after another, of all workers together, end the recording: something is wrong with all of it."""


class Pool:
    """Workers, each a process with a graph in a ROS domain of its own.

    Args:
        spec: what `sim.record_worker` is told; the worker's `folder` is added.
        domains: ROS domain of each worker.
        folder: logs go to `folder/worker-<domain>/logs` and, of the worker itself, beside it.
        on_result: called from the workers' threads, one at a time, with what a worker says of an episode; `error` is
            set if it did not become one.
    """

    def __init__(
        self, spec: Mapping[str, Any], domains: Sequence[int], folder: Path, on_result: Callable[[dict[str, Any]], None]
    ) -> None:
        self._spec, self._domains, self._folder, self._on_result = spec, domains, folder, on_result
        self._jobs: queue.SimpleQueue[Job] = queue.SimpleQueue()
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._bad = 0
        self.reason = ""
        self._processes: dict[int, subprocess.Popen[str]] = {}

    def run(self, jobs: Sequence[Job]) -> None:
        """Record them all; returns when that is done, or `stop` was called and the running episodes are over."""
        for job in jobs:
            self._jobs.put(job)
        threads = [threading.Thread(target=self._serve, args=(domain,)) for domain in self._domains[: len(jobs)]]
        for thread in threads:
            thread.start()
        for thread in threads:
            while thread.is_alive():
                thread.join(0.2)

    def stop(self, reason: str = "") -> None:
        """Start no further episode."""
        self.reason = self.reason or reason
        self._stopping.set()

    def kill(self) -> None:
        """End at once; what is being recorded stays partial."""
        self.stop()
        for process in list(self._processes.values()):
            process.kill()

    def _serve(self, domain: int) -> None:
        """A worker's thread: hand it job after job; after its death go on with a new one."""
        starts, process = 0, None
        try:
            while not self._stopping.is_set():
                try:
                    job = self._jobs.get_nowait()
                except queue.Empty:
                    return
                for attempt in range(1, ATTEMPTS + 1):
                    if process is None:
                        starts += 1
                        process = self._start(domain, starts)
                    said = _ask(process, job)
                    if said is None or "fatal" in said:
                        why = f"worker {domain}: " + (said["fatal"] if said else "died; its last words are in its log")
                        said = {"task": job.task, "seed": job.seed, "name": job.name, "error": why}
                        self._end(process)
                        process = None
                    if not said["error"] or attempt == ATTEMPTS or self._stopping.is_set():
                        break
                self._report(said)
        finally:
            if process is not None:
                self._end(process)

    def _report(self, said: dict[str, Any]) -> None:
        with self._lock:
            self._bad = self._bad + 1 if said["error"] else 0
            if self._bad >= BAD_IN_A_ROW:
                self.stop(f"{self._bad} errors one after another; the last: {said['error']}")
            self._on_result(said)

    def _start(self, domain: int, number: int) -> subprocess.Popen[str]:
        folder = self._folder / f"worker-{domain}-{number}"
        folder.mkdir(parents=True, exist_ok=True)
        spec = json.dumps({**self._spec, "folder": str(folder)})
        with (folder / "worker.log").open("w", encoding="utf-8") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "sim.record_worker", spec],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                start_new_session=True,  # Ctrl-C is for the process that asks
                env={**os.environ, "ROS_DOMAIN_ID": str(domain)},
            )
        self._processes[domain] = process
        return process

    @staticmethod
    def _end(process: subprocess.Popen[str]) -> None:
        """Let the worker end its graph."""
        with suppress(BrokenPipeError):
            assert process.stdin is not None
            process.stdin.close()
        try:
            process.wait(30.0)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _ask(process: subprocess.Popen[str], job: Job) -> dict[str, Any] | None:
    """What the worker says of the job; None if it died."""
    assert process.stdin is not None and process.stdout is not None
    try:
        process.stdin.write(json.dumps({"task": job.task, "seed": job.seed}) + "\n")
        process.stdin.flush()
    except BrokenPipeError:
        pass  # it may have told why before it ended
    for line in process.stdout:
        said: dict[str, Any] = json.loads(line)
        if "ready" not in said:
            return said
    return None
