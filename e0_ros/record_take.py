"""One take of an interactive recording: the services of an episode in order, its label, its verdict."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from builtin_interfaces.msg import Time

from e0_ros import interfaces
from e0_ros.core.bag_reader import Bag, BagReadError
from e0_ros.core.bag_writer import DISCARDED
from e0_ros.core.grading import grade_bag
from e0_ros.graph_client import GraphCallError, GraphClient, GraphRefusal


@dataclass(frozen=True)
class Ended:
    """What a take came to. `bag` is empty if nothing was recorded or it was discarded."""

    outcome: str
    bag: str
    duration_s: float
    size_bytes: int
    flags: tuple[str, ...] = ()

    def line(self) -> str:
        """In one line, and one more for everything that is wrong."""
        head = f"{self.outcome:<10} {self.duration_s:6.1f} s  {self.size_bytes / 1e6:.2f} MB  {self.bag or 'not kept'}"
        good = "  ok" if self.bag else ""
        return head + ("".join(f"\n  ! {flag}" for flag in self.flags) or good)


@dataclass
class Takes:
    """Starts and ends takes over a graph's services.

    Args:
        task: task of a simulator, or a name for the records.
        seed: seed of a simulator's first scene; every further take adds 1.
        arm: let the executor move the arm.

    """

    client: GraphClient
    task: str = ""
    seed: int = 0
    arm: bool = True
    bytes_per_s: float = math.nan
    running: bool = field(default=False, init=False)
    """Whether a take runs, as the recorder said last."""
    instruction: str = field(default="", init=False)
    interventions: int = field(default=0, init=False)
    _next_seed: int = field(default=-1, init=False)
    _led: bool = field(default=False, init=False)

    def start(self, instruction: str, again: bool = False) -> str:
        """Begin a take; `again` in the same scene. Returns the bag's path.

        Raises:
            GraphCallError: a service refused or is not there; the arm is disarmed then.

        """
        client, stamp = self.client, Time()
        self.rest()
        if self._next_seed < 0 or not again:
            self.seed = self._next_seed if self._next_seed >= 0 else self.seed
            self._next_seed = self.seed + 1
        scene: dict[str, Any] = {"task": self.task, "seed": self.seed, "max_steps": 0}
        if client.has(interfaces.RESET_SIM):
            reset = client.call(interfaces.RESET_SIM, **scene)
            instruction, stamp = instruction or reset.instruction, reset.stamp
        if client.has(interfaces.RESET_EXPERT):
            client.call(interfaces.RESET_EXPERT, **scene)
        if client.has(interfaces.RESET_POLICY):
            client.call(interfaces.RESET_POLICY)
        client.call(interfaces.SET_INSTRUCTION, instruction=instruction)
        try:
            if self.arm:
                client.arm(stamp)
            client.sim, self.instruction, self.interventions, self._led = None, instruction, 0, False
            bag = str(client.call(interfaces.START_EPISODE, task=self.task, seed=self.seed).bag)
        except GraphCallError:
            self.rest()
            raise
        self.running = True
        return bag

    def rest(self) -> None:
        """No take, no motion: disarm, if takes arm.

        Raises:
            GraphCallError: the executor refused or is not there.

        """
        if self.arm:
            self.client.call(interfaces.DISARM)

    def take_over(self) -> str:
        """A human takes the arm with a leader; returns what is still in the way of leading, or that nothing is.

        Raises:
            GraphCallError: no leader is there.

        """
        reply = self.client.call(interfaces.ENGAGE)
        self.interventions += 1
        self._led = True
        return str(reply.message)

    def hand_back(self) -> None:
        """The arm belongs to the policy again.

        Raises:
            GraphCallError: nobody took over in this take, no leader is there, or the executor cannot be armed.

        """
        if not self._led:
            raise GraphCallError("there is nothing to hand back: nobody took over in this take")
        self.client.call(interfaces.RELEASE)
        if self.arm:
            self.client.arm(Time())
        self._led = False

    def bring_home(self, recover: bool) -> str:
        """Bring the arm home, after recovering it or as it is; returns what came of it.

        A recovery ends with an armed arm; beside a policy, which would go on at once, the next take arms it.

        Raises:
            GraphCallError: nobody watches the arm, a step failed, or the arm cannot be recovered by software.

        """
        self.client.bring(interfaces.RECOVER if recover else interfaces.HOME)
        if recover and self.client.has(interfaces.RESET_POLICY):
            self.client.call(interfaces.DISARM)
            return "recovered, at home; the next take arms"
        return "recovered, at home" if recover else "at home"

    def end(self, outcome: str, note: str = "") -> Ended:
        """End the running take with a label, disarm, and judge what was recorded.

        Raises:
            GraphCallError: a service refused or is not there; the arm is disarmed all the same. A recorder that
                refused has ended the take before, or has ended it and could not keep all of it.

        """
        note = note or (f"interventions: {self.interventions}" if self.interventions else "")
        try:
            reply = self.client.call(interfaces.END_EPISODE, outcome=outcome, note=note)
            self.running = False
        except GraphRefusal as refusal:
            self.running = False
            raise GraphRefusal(f"{refusal}; no take runs any more, what was recorded is kept unlabelled") from None
        finally:
            self.rest()
        if reply.duration > 0:
            self.bytes_per_s = reply.bytes / reply.duration
        kept = "" if outcome == "discard" else str(reply.bag)
        return Ended(outcome, kept, reply.duration, reply.bytes, verdict(kept) if kept else ())


def verdict(bag: str) -> tuple[str, ...]:
    """What is wrong with a bag, in words."""
    if not Path(bag).exists():
        return (f"no verdict: {bag} is not on this machine",)
    try:
        return tuple(str(flag) for flag in grade_bag(Bag(Path(bag))))
    except BagReadError as error:
        return (f"no verdict: {error}",)


def throw_away(bag: str) -> Path:
    """Move a closed bag to `discarded/` beside it; its new place.

    Raises:
        OSError: it is not there or cannot be moved.

    """
    place = Path(bag).parent / DISCARDED / Path(bag).name
    place.parent.mkdir(exist_ok=True)
    return Path(bag).rename(place)
