"""A running graph as its tests see it: what the executor said in order, what each node last told of itself."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from builtin_interfaces.msg import Time

from e0_msgs.msg import ExecutorState
from e0_policy.embodiment import load_embodiment
from e0_ros import interfaces
from e0_ros.graph import Graph
from e0_ros.graph_client import GraphCallError, GraphClient

ARM = load_embodiment("fr3")
CALM = {
    "bridge": {"joint_state_rate_hz": 200},
    "observation_sync": {"joint_rate_hz": 200.0},
    "chunk_executor": {"joint_max_age_ms": 400.0, "lead_ms": 50.0, "stop_lead_ms": 50.0},
}


def patient(graph: Graph, **more: Mapping[str, Any]) -> Graph:
    """The graph with what a busy machine needs, whose messages may be late: that is not what these tests are about.

    `more` are settings by node that come before those of `CALM`.
    """

    def settings(name: str) -> dict[str, Any]:
        return {**CALM.get(name, {}), **more.get(name, {})}

    processes = tuple(replace(p, settings={**p.settings, **settings(p.name)}) for p in graph.processes)
    return replace(graph, processes=processes)


class Watched(GraphClient):
    """`states` since `states.clear()`; `said` by node."""

    def __init__(self, timeout_s: float = 60.0, health: Callable[[], None] = lambda: None) -> None:
        super().__init__(timeout_s, health)
        self.states: list[ExecutorState] = []
        self.said: dict[str, Any] = {}
        self._listen(interfaces.EXECUTOR_STATE, self.states.append)
        self._listen(interfaces.DIAGNOSTICS, lambda msg: self.said.update({s.name: s for s in msg.status}))

    def until(self, done: Callable[[], Any], what: str, seconds: float = 90.0) -> None:
        end = time.monotonic() + seconds
        while not done():
            reasons = list(dict.fromkeys(f"{s.mode} {s.reason}; {s.last_refusal}" for s in self.states))[-5:]
            assert time.monotonic() < end, f"waited {seconds:.0f} s for {what}; {reasons}"
            self.spin(0.05)

    def mode(self) -> int:
        return int(self.states[-1].mode) if self.states else -1

    def runs(self) -> bool:
        return self.mode() == ExecutorState.RUNNING

    def arm_it(self, seconds: float = 60.0) -> None:
        """Arm, releasing a stop first where there is one; a busy machine may be late, or time out, and gets another."""
        end, refusal = time.monotonic() + seconds, ""
        while time.monotonic() < end:
            try:
                if self.mode() == ExecutorState.STOPPED:
                    self.request(interfaces.RESET_STOP)
                reply = self.request(interfaces.ARM, not_before=Time())
                if reply.success:
                    return
                refusal = reply.message
            except GraphCallError as error:
                refusal = str(error)
            self.spin(0.1)
        raise AssertionError(f"not armed within {seconds:.0f} s: {refusal}")

    def value(self, name: str, key: str) -> float:
        """A number of a node's diagnostics; NaN before its first word."""
        status = self.said.get(name)
        found = [v.value for v in status.values if v.key == key] if status else []
        return float(found[0]) if found else float("nan")

    def judged(self) -> tuple[int, int]:
        """What the judge counted since its start, in a word of now: set-points and violations."""
        seen = self.value("bridge", "setpoints")
        self.until(lambda: self.value("bridge", "setpoints") != seen, "a word of the judge")
        return int(self.value("bridge", "setpoints")), int(self.value("bridge", "violations"))


def recording(path: Any, rows: int = 40_000) -> Any:
    """A slow wave to replay, 20 rows a second, at `path`.npz."""
    q = ARM.home + 0.2 * np.sin(0.03 * np.arange(rows))[:, None]
    np.savez(path, rows=np.column_stack([q, np.ones(rows)]), period_ns=50_000_000, embodiment="fr3")
    return path.with_suffix(".npz")
