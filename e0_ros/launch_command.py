"""`e0 launch`: run a graph in this terminal until Ctrl-C."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from e0_ros import environment
from e0_ros.graph import GRAPHS
from e0_ros.launcher import Launcher
from e0_ros.readiness import require_alone
from e0_ros.resolve import GraphError, argument_lines, parse, resolve
from e0_ros.signals import on_signals

COLOURS = (36, 33, 32, 35, 34, 31, 96, 93, 92, 95)


class Terminal:
    """Prints lines with their process's name in front, in a colour of its own where the terminal has any."""

    def __init__(self, colour: bool) -> None:
        self._colour, self._names = colour, list[str]()

    def __call__(self, name: str, text: str) -> None:
        """Print one line at once."""
        if name not in self._names:
            self._names.append(name)
        head = f"[{name}]"
        if self._colour:
            head = f"\x1b[{COLOURS[self._names.index(name) % len(COLOURS)]}m{head}\x1b[0m"
        print(f"{head} {text}", flush=True)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a graph; 0 after a clean end, 2 if it is not started, else the status of the process that died."""
    parser = argparse.ArgumentParser(
        prog="e0 launch",
        description="Run a graph until Ctrl-C.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="example: e0 launch sim simulator:=fr3_plant mode:=lockstep\narguments of a graph: e0 launch sim --show",
    )
    parser.add_argument("graph", help=", ".join(GRAPHS))
    parser.add_argument("arguments", nargs="*", metavar="name:=value")
    parser.add_argument("--show", action="store_true", help="list the graph's arguments, or what would be started")
    parser.add_argument("--log-dir", type=Path, help="also write one log file per process to this folder")
    options = parser.parse_args(argv)
    try:
        if options.show and not options.arguments:
            return _show_arguments(options.graph)
        graph = resolve(options.graph, parse(options.graph, options.arguments))
        ros = environment.require()
        if not options.show:
            print(f"[e0] {options.graph} on {ros}", flush=True)
            require_alone(graph)
        launcher = Launcher(graph, options.log_dir, Terminal(_wants_colour()))
        if options.show:
            for process in graph.processes:
                print(process.name, dict(process.settings))
            return 0
        return _run(launcher)
    except (GraphError, environment.RosError) as error:
        print(f"e0 launch: {error}", file=sys.stderr)
        return 2


def _wants_colour() -> bool:
    return sys.stdout.isatty() and "NO_COLOR" not in os.environ


def _show_arguments(name: str) -> int:
    for key, default, meaning in argument_lines(name):
        print(f"  {key + ':=' + default:<32}{meaning}")
    return 0


def _run(launcher: Launcher) -> int:
    """Start and wait; the first signal stops cleanly, a Ctrl-C after it at once; a closed terminal hurries nobody."""

    def stop(number: int, _: object) -> None:
        launcher.request_stop(hurry=number == signal.SIGINT and not launcher.running())

    with on_signals(stop):
        try:
            launcher.start()
            while (status := launcher.wait(0.2)) is None:
                pass
            return status
        finally:
            launcher.stop()
