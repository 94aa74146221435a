"""Runs a graph without launch_ros: one process per node, prefixed logs, clean ends, and deaths handled as described.

with Launcher(resolve("sim", {"simulator": "fr3_plant"}), log_dir=Path("log")) as launcher:
    launcher.wait_ready(60.0)
    ...                      # launcher.status() is None while the graph runs
launcher.exit_status         # 0: clean
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TextIO

import yaml

from e0_policy.resources import config_dir
from e0_ros.child import Child, describe_status, shell_status, stop_all
from e0_ros.drivers import CONTINUE, RESTART, SHUTDOWN, Foreign
from e0_ros.environment import INSTALL, child_environment, detect
from e0_ros.graph import Graph, Process
from e0_ros.resolve import GraphError, write_configuration

PATIENCE_S = ((signal.SIGINT, 5.0), (signal.SIGTERM, 3.0), (signal.SIGKILL, 2.0))
REST_S = 1.0
"""Longer than an arm in motion takes to come to rest by its last command, while its driver lives (SAFETY.md)."""
RESTARTS, RESTART_WINDOW_S, RESTART_DELAY_S = 5, 60.0, 1.0
POLL_S = 0.05
LAUNCHER = "e0"
Echo = Callable[[str, str], None]


class Launcher:
    """A running graph.

    Args:
        graph: a resolved graph.
        log_dir: folder for one log file per process; None: none.
        echo: receives every line with its process's name; None: silent.
        environ: environment of the nodes, before what they need is added.

    """

    def __init__(
        self,
        graph: Graph,
        log_dir: Path | None = None,
        echo: Echo | None = None,
        environ: Mapping[str, str] = os.environ,
    ) -> None:
        self._log_dir, self._echo, self._environ = log_dir, echo, environ
        self._folder = Path(tempfile.mkdtemp(prefix="e0_launch_"))
        self.graph = write_configuration(graph, self._folder)
        items: list[Process | Foreign] = [*graph.foreign, *self.graph.processes]
        self._items = {item.name: item for item in items}
        self._commands = {name: self._command(item) for name, item in self._items.items()}
        self._children: dict[str, Child] = {}
        self._logs: dict[str, TextIO] = {}
        self._deaths: dict[str, int] = {}
        self._restarts: dict[str, list[float]] = {}
        self._stopping, self._hurry, self._started = threading.Event(), threading.Event(), threading.Event()
        self._write_lock = threading.Lock()
        self._failure: BaseException | None = None
        self.exit_status: int | None = None
        self._thread = threading.Thread(target=self._run, name="launcher")

    def __enter__(self) -> Launcher:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start every process.

        Raises:
            GraphError: an interpreter or program that is not there.

        """
        self._thread.start()
        self._started.wait()
        if self._failure is not None:
            self._thread.join()
            raise GraphError(f"cannot start the graph: {self._failure}") from self._failure

    def wait_ready(self, timeout_s: float = 60.0) -> None:
        """Wait until every node and its services are there.

        Raises:
            GraphError: a process died, or something is missing after `timeout_s`; the message names it.

        """
        from e0_ros.readiness import wait_for_nodes

        nodes = [process.name for process in self.graph.processes]
        missing = wait_for_nodes(nodes, timeout_s, self._stopping.is_set)
        deaths = {name: s for name, s in self._deaths.items() if name in nodes or not self._has_done_its_work(name, s)}
        if deaths:
            told = ", ".join(f"{name} ({describe_status(status)})" for name, status in deaths.items())
            raise GraphError(f"the graph did not start: {told} ended; its last words are in the log")
        if missing:
            raise GraphError(f"the graph is not ready after {timeout_s:.0f} s; missing: {', '.join(missing)}")

    def status(self) -> dict[str, int | None]:
        """Exit status per process, None while it runs."""
        return {name: child.poll() for name, child in self._children.items()}

    def pid(self, name: str) -> int:
        """Process id of a node (fault tests kill it)."""
        return self._children[name].pid

    def processor_s(self) -> dict[str, float]:
        """Processor time that each process has used so far [s]."""
        return {name: child.processor_s() for name, child in self._children.items()}

    def running(self) -> bool:
        """Whether the graph runs and is not being stopped."""
        return self._thread.is_alive() and not self._stopping.is_set()

    def request_stop(self, hurry: bool = False) -> None:
        """Begin to stop and return at once; safe in a signal handler. `hurry` goes straight to SIGKILL."""
        self._stopping.set()
        if hurry:
            self._hurry.set()

    def wait(self, timeout_s: float | None = None) -> int | None:
        """Wait for the graph's end; its exit status, or None after `timeout_s`."""
        self._thread.join(timeout_s)
        return self.exit_status

    def stop(self) -> int:
        """Stop everything and return the exit status: 0, or that of the first process that died by itself."""
        self.request_stop()
        if self._thread.ident is not None:
            self._thread.join()
        return self.exit_status or 0

    def _run(self) -> None:
        """Start, watch and stop; the only thread that starts processes, because they die with it."""
        try:
            for name in self._items:
                self._start(name)
            self._started.set()
            while not self._stopping.wait(POLL_S):
                for name in list(self._items):
                    self._watch(name)
        except (OSError, RuntimeError) as error:  # no such program; no more processes or threads
            self._failure = error
            if self._started.is_set():
                self._line(LAUNCHER, f"cannot restart a process: {error}; stopping the graph")
        finally:
            self._stopping.set()
            self._end()
            failed = int(self._failure is not None)
            self.exit_status = next((shell_status(s) for s in self._deaths.values() if s != 0), failed)
            for log in self._logs.values():
                with suppress(OSError):
                    log.close()
            shutil.rmtree(self._folder, ignore_errors=True)
            self._started.set()

    def _end(self) -> None:
        """Stop our nodes, and the drivers only when the arm has come to rest."""
        drivers = [child for name, child in self._children.items() if isinstance(self._items[name], Foreign)]
        stop_all([child for child in self._children.values() if child not in drivers], PATIENCE_S, self._hurry)
        if any(child.poll() is None for child in drivers):
            self._hurry.wait(REST_S)
        stop_all(drivers, PATIENCE_S, self._hurry)

    def _start(self, name: str) -> None:
        command = self._commands[name]
        profiles = config_dir() / "fastdds.xml"
        environ = child_environment(self._environ, command[0], profiles)
        if self._log_dir is not None and name not in self._logs:
            self._log_dir.mkdir(parents=True, exist_ok=True)
            self._logs[name] = (self._log_dir / f"{name}.log").open("w", encoding="utf-8", buffering=1)
        self._children[name] = Child(name, command, environ, self._line)

    def _watch(self, name: str) -> None:
        status = self._children[name].poll()
        if status is None or name in self._deaths:
            return
        now = time.monotonic()
        recent = [t for t in self._restarts.get(name, []) if now - t < RESTART_WINDOW_S]
        died = f"{name} ended with {describe_status(status)}"
        if self._items[name].on_death == RESTART and len(recent) < RESTARTS:
            if recent and now - recent[-1] < RESTART_DELAY_S:
                return
            self._line(LAUNCHER, f"{died}; restarting it ({len(recent) + 1} of {RESTARTS} in a minute)")
            self._restarts[name] = [*recent, now]
            self._children[name].send(signal.SIGKILL)
            self._start(name)
            return
        self._deaths[name] = status
        if self._has_done_its_work(name, status):
            self._line(LAUNCHER, f"{name} has done its work")
        elif self._items[name].on_death == SHUTDOWN or recent:
            self._line(LAUNCHER, f"{died}; stopping the graph")
            self._stopping.set()
        else:
            self._line(LAUNCHER, f"{died}; the graph goes on without it")

    def _has_done_its_work(self, name: str, status: int) -> bool:
        """Whether that end was meant: the spawner's of a controller, once it has loaded it."""
        return status == 0 and self._items[name].on_death == CONTINUE

    def _line(self, name: str, text: str) -> None:
        """To the log and to the terminal: a full disk or a closed pipe keeps it from neither the other nor the next."""
        with self._write_lock:
            log = self._logs.get(name)
            if log is not None and not log.closed:
                with suppress(OSError):
                    log.write(text + "\n")
            if self._echo is not None:
                with suppress(OSError):
                    self._echo(name, text)

    def _command(self, item: Process | Foreign) -> list[str]:
        if isinstance(item, Foreign):
            return foreign_command(item)
        parameters = self._folder / f"{item.name}.yaml"
        text = yaml.safe_dump({"/**": {"ros__parameters": self.graph.parameters(item)}})
        parameters.write_text(text, encoding="utf-8")
        python = self.graph.interpreter(item) or sys.executable
        return [python, "-m", item.module, "--ros-args", "--params-file", str(parameters)]


def foreign_command(item: Foreign) -> list[str]:
    """How another package's launch file or executable is started.

    Raises:
        GraphError: no ROS 2 install is sourced.

    """
    ros2 = shutil.which("ros2")
    if ros2 is None or detect().kind != INSTALL:
        raise GraphError(
            f"{item.package} comes with a ROS 2 install, and none is sourced; source /opt/ros/<distro>/setup.bash"
        )
    return [ros2, item.verb, item.package, item.target, *item.arguments]
