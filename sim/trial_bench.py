"""The graph that trials run on: started with a policy, and a client in it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from e0_ros.graph_client import GraphClient
from e0_ros.interfaces import END_EPISODE, SET_INSTRUCTION, START_EPISODE
from e0_ros.keyboard import Keyboard
from e0_ros.launcher import Launcher
from e0_ros.readiness import require_alone
from e0_ros.resolve import GraphError, parse, resolve

READY_S, EMPTY_S = 180.0, 15.0


@dataclass
class Bench:
    """The graph, and the person beside it.

    Attributes:
        graph: its name, and words like `robot_ip:=...`.
        folder: of the trials.
        say: tells the person.

    """

    graph: str
    words: Sequence[str]
    folder: Path
    keyboard: Keyboard
    say: Callable[[str], None]

    @contextmanager
    def up(self, policy: Mapping[str, Any]) -> Iterator[GraphClient]:
        """The graph with a policy, and a client in it. What neither moves the arm nor is of ours may be there already.

        Raises:
            GraphError: another one runs, or it cannot be launched as asked, did not come up, or has stopped.
            GraphCallError: its services did not come up.

        """
        number = sum(1 for _ in self.folder.glob("logs/graph-*")) + 1
        values = graph_values(self.graph, self.words, policy["checkpoint"]) | {"bag_dir": str(self.folder / "bags")}
        inference = yaml.safe_dump(dict(policy["settings"]), default_flow_style=True).strip()
        graph = resolve(self.graph, values, {"policy": {"settings": inference}} if policy["settings"] else {})
        require_alone(graph, EMPTY_S)
        with Launcher(graph, self.folder / "logs" / f"graph-{number}") as launcher:

            def health() -> None:
                if not launcher.running():
                    raise GraphError(f"the graph has stopped; its last words are in {self.folder / 'logs'}")

            launcher.wait_ready(READY_S)
            client = GraphClient(health=health)
            try:
                client.wait_for(START_EPISODE, END_EPISODE, SET_INSTRUCTION)
                yield client
            finally:
                client.close()


def graph_values(graph: str, words: Sequence[str], checkpoint: str) -> dict[str, Any]:
    """Arguments of the graph, for a checkpoint's policy."""
    return {**parse(graph, words), "checkpoint": checkpoint, **({"source": "policy"} if graph == "sim" else {})}
