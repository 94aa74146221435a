"""One state machine: whatever is asked, the executors of all outputs are in the mode that the table says."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from e0_policy.embodiment import load_embodiment
from e0_policy.types import ActionChunk, Representation
from e0_ros.core.admission import Refusal
from e0_ros.core.executor_types import ExecutorConfig, Mode
from e0_ros.core.step_executor import make_executor

PANDA = load_embodiment("panda")
PERIOD = 50_000_000
STEPPED = {"output": "step", "step_columns": 8}
DISARMED, ARMED, RUNNING, HOLD, STOPPED = Mode
LATCHED = "a hold on request"
PATHS = {
    DISARMED: [], ARMED: ["arm"], RUNNING: ["arm", "plan"], HOLD: ["arm", "plan", "give up"], LATCHED: ["arm", "hold"],
    STOPPED: ["stop"],
}  # fmt: skip
NOT_STOPPED = (DISARMED, ARMED, RUNNING, HOLD, LATCHED)
TABLE = {
    "arm": (dict.fromkeys(NOT_STOPPED, ARMED), "armed on request"),
    "disarm": (dict.fromkeys(NOT_STOPPED, DISARMED), "disarmed on request"),
    "abandon": (dict.fromkeys(NOT_STOPPED, DISARMED), "reflex"),
    "hold": (dict.fromkeys((ARMED, RUNNING, HOLD, LATCHED), LATCHED), "held on request"),
    "stop": (dict.fromkeys(PATHS, STOPPED), "stopped on request"),
    "reset_stop": ({STOPPED: DISARMED}, "stop was reset"),
    "plan": (dict.fromkeys((ARMED, RUNNING, HOLD), RUNNING), "follows policy"),
    "wrong plan": (dict.fromkeys((ARMED, RUNNING), HOLD), "no rows"),
    "give up": ({RUNNING: HOLD}, "tired"),
}
"""Where each event leads from where, and the reason that it gives; from elsewhere it changes nothing."""


class Asked:
    """An executor in lock-step on an arm that stands still, and what the table says of it."""

    def __init__(self, output: dict[str, object]) -> None:
        self.executor = make_executor(ExecutorConfig(embodiment="panda", lockstep=True, **output))
        steps = {"representation": Representation.EE_DELTA_STEP}
        self.kind = steps if output.get("output") == "step" else {"joint_names": PANDA.joint_names}
        self.now, self.sequence, self.state, self.reason = PERIOD, 0, DISARMED, "not armed yet"

    def ask(self, event: str) -> Refusal | None:
        self.now, self.sequence, ask = self.now + PERIOD, self.sequence + 1, self.executor
        ask.observe_joints(self.now, PANDA.joint_names, PANDA.home, np.zeros(7))
        if event == "plan":
            rows = np.tile(np.append(PANDA.home, 1.0), (30, 1))
            fields = {"embodiment": "panda", **self.kind}
            return ask.offer(ActionChunk(rows, self.now, PERIOD, "policy", "a", self.sequence, **fields), self.now)
        arguments = {"wrong plan": ("policy", "a", "no rows"), "give up": ("policy", "a", "tired"), "arm": (self.now,)}
        call = {"wrong plan": ask.refuse, "give up": ask.give_up}.get(event) or getattr(ask, event)
        return call(*arguments.get(event, ("a reflex",) if event == "abandon" else ()))

    def follow(self, event: str) -> None:
        refusal, (leads, reason) = self.ask(event), TABLE[event]
        if event in ("arm", "reset_stop", "plan"):
            assert (refusal is None) == (self.state in leads), f"{event} from {self.state!r}: {refusal}"
        if self.state in leads:
            self.state, self.reason = leads[self.state], reason
        status = self.executor.tick(self.now).status
        assert status.mode is (HOLD if self.state == LATCHED else self.state), event
        assert self.reason in status.reason, event


@pytest.mark.parametrize("output", [{}, {"output": "impedance"}, STEPPED], ids=["trajectory", "impedance", "step"])
def test_every_event_leads_where_the_table_says_with_its_reason(output: dict[str, object]) -> None:
    for (state, path), event in product(PATHS.items(), TABLE):
        asked = Asked(output)
        for step in path:
            asked.follow(step)
        assert asked.state == state
        asked.follow(event)
        asked.follow("plan")  # tells a hold that is latched from one that is not
