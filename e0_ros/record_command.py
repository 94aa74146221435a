"""Record takes by hand: `e0 record --attach` in a running graph, or `e0 record sim ...`, `e0 record teleop ...`.

Keys: space start, s success, f failure, d discard, r discard and record again, i next instruction, n new instruction,
t take over, b hand back (with a leader, from a policy), v recover the arm, h home, x step (in step-through), + and -
speed, q quit. A foot pedal can press them: --pedal.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from e0_policy.types import WRIST_VIEWS
from e0_ros.calibrate_command import compare_views
from e0_ros.config import ConfigError
from e0_ros.core.bag_reader import Bag, BagReadError
from e0_ros.core.calibration_bag import first_images
from e0_ros.core.live_status import Status, line, lines
from e0_ros.core.take_session import (
    KEYS,
    ChangeSpeed,
    DiscardLast,
    End,
    HandBack,
    Home,
    Instruct,
    Quit,
    Recover,
    Refused,
    Release,
    Start,
    TakeOver,
    TakeSession,
)
from e0_ros.graph import GRAPHS
from e0_ros.graph_client import GraphCallError, GraphClient
from e0_ros.interfaces import END_EPISODE, SET_INSTRUCTION, START_EPISODE, STEP
from e0_ros.keyboard import Keyboard
from e0_ros.launcher import Launcher
from e0_ros.pedal import PEDAL_KEYS, PedalKeys, open_pedal, pedal_keys
from e0_ros.picture import pictures
from e0_ros.readiness import require_alone
from e0_ros.record_take import Takes, throw_away
from e0_ros.resolve import GraphError, parse, resolve
from e0_ros.signals import on_signals

EXAMPLE = """examples:
  e0 record --attach --instruction "put the cup on the shelf"
  e0 record teleop robot_ip:=172.16.0.2 bag_dir:=data/bags --instruction "put the cup on the shelf"
  e0 record sim source:=policy checkpoint:=checkpoint bag_dir:=data/bags --task PickCube-v1
without a person: e0 record --help"""
READY_S = 180.0
CAUSE_S = 0.3
"""An arm may first say that its controller is inactive, and only then which reflex ended it."""
REFRESH_S, LOG_S = 0.5, 10.0


def parser() -> argparse.ArgumentParser:
    """Arguments of the interactive `e0 record`."""
    p = argparse.ArgumentParser(
        prog="e0 record", description=__doc__, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument("graph", nargs="?", help=f"start this graph ({', '.join(GRAPHS)}); without it --attach")
    p.add_argument("arguments", nargs="*", metavar="name:=value", help="arguments of the graph")
    p.add_argument("--attach", action="store_true", help="record in the graph that is running")
    p.add_argument("--instruction", action="append", default=[], help="what the robot is told; several to go through")
    p.add_argument("--task", default="", help="task of the simulator, or a name for the records")
    p.add_argument("--seed", type=int, default=0, help="seed of the first scene; each further take adds 1")
    p.add_argument(
        "--reference", type=Path, metavar="BAG", help="first compare the fixed cameras' views with this take"
    )
    p.add_argument("--no-arm", action="store_true", help="never arm: something else than the executor moves the arm")
    p.add_argument("--log-dir", type=Path, default=Path("logs"), help="logs of a graph started here (default: logs)")
    p.add_argument("--pedal", default="", metavar="DEVICE", help="foot pedal: /dev/input/by-id/...-event-kbd")
    p.add_argument("--pedal-keys", default=PEDAL_KEYS, metavar="KEY=ACTION,...",
                   help=f"what its keys do (default: {PEDAL_KEYS}); actions: {', '.join(KEYS.values())}")  # fmt: skip
    return p


def main(argv: Sequence[str] | None = None) -> int:
    """Record until quit; 0 unless the graph could not be used."""
    options = parser().parse_args(argv)
    if options.attach == bool(options.graph):
        print("e0 record: either --attach or a graph to start; see e0 record --attach --help", file=sys.stderr)
        return 2
    try:
        with ExitStack() as stack:
            launcher = stack.enter_context(_launched(options)) if options.graph else None

            def health() -> None:
                if launcher is not None and not launcher.running():
                    raise GraphCallError("the graph has stopped; its last words are in the log")

            client = GraphClient(health=health)
            stack.callback(client.close)
            client.wait_for(START_EPISODE, END_EPISODE, SET_INSTRUCTION)
            if options.reference:
                _compare_views(options.reference, options.log_dir)
            takes = Takes(client, options.task, options.seed, not options.no_arm)
            pedal = _pedal(options, stack)
            with Keyboard() as keyboard:
                Recorder(takes, TakeSession(options.instruction), keyboard, pedal).run()
    except (GraphError, GraphCallError, ConfigError, BagReadError) as error:
        print(f"e0 record: {error}", file=sys.stderr)
        return 1
    return 0


def _compare_views(reference: Path, folder: Path) -> None:
    """Say whether a fixed camera has moved since a take; overlays go to the logs."""
    before = {view: image for view, image in first_images(Bag(reference)).items() if view not in WRIST_VIEWS}
    if any(shift.moved for shift in compare_views(before, pictures(list(before), 10.0), folder).values()):
        print(f"a camera has moved since {reference.name}: put it back, or the policy sees another scene", flush=True)


def _pedal(options: argparse.Namespace, stack: ExitStack) -> PedalKeys | None:
    if not options.pedal:
        return None
    keys = pedal_keys(options.pedal_keys, {meaning: key for key, meaning in KEYS.items()})
    pedal = open_pedal(options.pedal)
    stack.callback(pedal.close)
    return PedalKeys(pedal, keys)


@contextmanager
def _launched(options: argparse.Namespace) -> Iterator[Launcher]:
    graph = resolve(options.graph, parse(options.graph, options.arguments))
    print(f"starting {options.graph}; logs under {options.log_dir}", flush=True)
    require_alone(graph)
    with Launcher(graph, options.log_dir) as launcher:
        launcher.wait_ready(READY_S)
        yield launcher


class Recorder:
    """The loop: keys, the view, what ends a take by itself."""

    def __init__(self, takes: Takes, session: TakeSession, keyboard: Keyboard, pedal: PedalKeys | None = None) -> None:
        self._takes, self._session, self._keyboard, self._pedal = takes, session, keyboard, pedal
        self._view = View(sys.stdout.isatty())
        self._leaving = False

    def run(self) -> None:
        """Record until the person quits, the input ends or a signal comes.

        A running take is then unlabelled; nothing that was armed here stays so.
        """
        self._view.say(
            "space start, s success, f failure, d discard, r again, i / n next / new instruction, "
            "t / b take over / hand back, v recover, h home, x step, + / - speed, q quit"
        )
        with on_signals(self._leave):
            while not self._leaving:
                self._takes.client.spin(0.05)
                self._view.show(self._takes.client.status(self._instruction(), self._takes.bytes_per_s))
                if self._pedal and (news := self._pedal.news()):
                    self._view.say(news)
                if key := self._keyboard.key() or (self._pedal.key() if self._pedal else ""):
                    self._act(key)
                elif self._keyboard.ended:
                    self._leaving = True
                self._follow_simulator()
                self._follow_arm()
            if self._session.recording:
                self._end("unlabelled", "interrupted")
            else:
                self._takes.rest()

    def _leave(self, *_: object) -> None:
        self._leaving = self._takes.client.leaving = True

    def _instruction(self) -> str:
        return self._takes.instruction if self._session.recording else self._session.instruction

    def _act(self, key: str) -> None:
        action = self._session.key(key)
        try:
            if isinstance(action, Start):
                self._start(again=False)
            elif isinstance(action, End):
                self._end(action.outcome)
            elif isinstance(action, DiscardLast):
                self._view.say(f"discarded: {throw_away(self._session.last)}")
                self._session.ended("")
            elif isinstance(action, Instruct):
                self._instruct(action.text)
            elif isinstance(action, TakeOver):
                self._view.say(f"taking over: {self._takes.take_over()}")
            elif isinstance(action, HandBack):
                self._takes.hand_back()
                self._view.say("handed back")
            elif isinstance(action, Recover | Home):
                self._bring(isinstance(action, Recover))
            elif isinstance(action, Release):
                self._view.say(self._takes.client.call(STEP).message)
            elif isinstance(action, ChangeSpeed):
                self._view.say(f"speed {self._takes.client.change_speed(action.faster):.0%}")
            elif isinstance(action, Refused):
                self._view.say(action.reason)
            if isinstance(action, End | DiscardLast) and action.again:
                self._start(again=True)
        except (GraphCallError, OSError) as error:
            self._view.say(f"error: {error}")
        self._leaving = self._leaving or isinstance(action, Quit)

    def _start(self, again: bool) -> None:
        bag = self._takes.start(self._session.instruction, again)
        self._session.started()
        self._view.say(f"recording {bag or '(no bag: recording is off)'}")

    def _end(self, outcome: str, note: str = "") -> None:
        try:
            ended = self._takes.end(outcome, note)
        except GraphCallError:
            if not self._takes.running:
                self._session.ended("")
            raise
        self._session.ended(ended.bag)
        self._view.say(ended.line())

    def _instruct(self, text: str) -> None:
        if not text:
            self._view.clear()
            text = self._keyboard.line("instruction: ")
            if text:
                self._session.add_instruction(text)
        self._view.say(f"next instruction: {self._session.instruction!r}")

    def _bring(self, recover: bool) -> None:
        self._view.say("recovering: errors, hardware, controllers, home" if recover else "going home")
        self._view.say(self._takes.bring_home(recover))

    def _follow_arm(self) -> None:
        """An arm that stops by itself ends the take, with its reason."""
        client = self._takes.client
        if self._session.recording and (fault := client.arm_fault):
            client.spin(CAUSE_S)
            fault = client.arm_fault or fault
            self._view.say(f"the arm: {fault}; v brings it back")
            try:
                self._end("failure", f"arm: {fault}")
            except GraphCallError as error:
                self._view.say(f"error: {error}")
                self._session.ended("")

    def _follow_simulator(self) -> None:
        """A simulator says itself when an episode is over, and how it went."""
        sim = self._takes.client.sim
        if self._session.recording and sim is not None and sim.done:
            try:
                self._end("success" if sim.success_once else "failure")
            except GraphCallError as error:
                self._view.say(f"error: {error}")
                self._takes.client.sim = None


class View:
    """The live view: redrawn in place on a terminal, elsewhere a line now and then and when something goes wrong."""

    def __init__(self, live: bool) -> None:
        self._live, self._drawn = live, 0
        self._shown_s, self._troubled = -LOG_S, False

    def say(self, text: str) -> None:
        """Print above the view."""
        self.clear()
        print(text, flush=True)

    def clear(self) -> None:
        """Take the view off the terminal."""
        if self._drawn:
            print(f"\x1b[{self._drawn}F\x1b[J", end="", flush=True)
            self._drawn = 0

    def show(self, status: Status) -> None:
        """Refresh, if it is time."""
        now = time.monotonic()
        if self._live:
            if now - self._shown_s < REFRESH_S:
                return
            rows = list(lines(status))
            self.clear()
            print("\n".join(rows), flush=True)
            self._drawn = len(rows)
        else:
            troubled = bool(status.trouble or status.silent) or any(s.trouble(status.lockstep) for s in status.streams)
            if now - self._shown_s < (1.0 if troubled and not self._troubled else LOG_S):
                return
            self._troubled = troubled
            print(line(status), flush=True)
        self._shown_s = now


if __name__ == "__main__":
    sys.exit(main())
