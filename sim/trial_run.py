"""Runs planned trials with a person at the keys."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

from e0_policy.types import ImageArray
from e0_ros.calibrate_command import compare_views, seen_now
from e0_ros.core.bag_reader import Bag, BagReadError
from e0_ros.core.calibration_bag import first_images
from e0_ros.graph_client import GraphCallError, GraphClient
from e0_ros.interfaces import RESET_SIM
from e0_ros.record_take import Takes
from sim.eval_rollouts import ERROR, FAILURE, SUCCESS
from sim.trial_bench import Bench
from sim.trial_plan import RealTask, Trial, TrialPlan
from sim.trial_store import Done, TrialStore

AT_HOME_RAD = 0.05
BEFORE = "space start, o compare the scene with its first picture, h home, v recover the arm, q quit"
DURING = "s success, f failure, e error (does not count, is run again)"


class Quit(Exception):
    """The person leaves; what is done is kept."""


def run_trials(plan: TrialPlan, store: TrialStore, bench: Bench) -> None:
    """Run what is missing, in order.

    With several policies the graph is started anew for every trial: if only another policy asked for it, the start
    would tell that one comes.

    Raises:
        Quit: the person left.
        GraphError, GraphCallError: the graph cannot be started, or broke.

    """
    waiting = [trial for trial in plan.trials if store.missing(trial.number)]
    batches = [[trial] for trial in waiting] if len(plan.sealed) > 1 else [waiting] * bool(waiting)
    with _signals():
        for batch in batches:
            bench.say("starting the graph")
            with bench.up(plan.sealed[batch[0].policy]) as client:
                person = Person(bench, client, plan, store)
                for trial in batch:
                    while store.missing(trial.number):
                        bench.say(_line(person.trial(trial), len(plan.trials)))


class Person:
    """One trial with the person: set up, start, judge."""

    def __init__(self, bench: Bench, client: GraphClient, plan: TrialPlan, store: TrialStore) -> None:
        self._bench, self._client, self._plan, self._store, self._say = bench, client, plan, store, bench.say

    def trial(self, trial: Trial) -> Done:
        """Run it. Its verdict is stored once it is given, whatever comes then, and again with all that belongs to it.

        Raises:
            Quit: the person left: before it began or with it running, which then does not count, or before its stages.
            GraphError: the graph has stopped.

        """
        task, count = self._plan.tasks[trial.task], len(self._plan.trials)
        self._say(f"\ntrial {trial.number} of {count}: {task.title}, scene {trial.scene}: {task.instruction}")
        self._say(f"  success: {task.criterion}")
        takes = Takes(self._client, task.name, trial.scene)
        self._compare(trial)
        where = self._start(takes, trial, task)
        begin = time.monotonic()
        outcome, why = self._during(task, begin)
        note = _listed(where, why)
        took_s = round(time.monotonic() - begin, 2)
        done = Done(trial.number, trial.task, trial.scene, trial.policy, outcome, 0, 0, took_s, task.limit_s, note=note)
        self._store.add(done)
        try:
            done = replace(done, bag=takes.end("discard" if outcome == ERROR else outcome, note).bag)
        except GraphCallError as error:
            self._say(f"  error: {error}")
            done = replace(done, note=_listed(note, str(error)))
        if outcome != ERROR and done.bag:
            self._keep_first(trial, done.bag)
        done = replace(done, stages=self._stages(task, outcome), of=len(task.stages))
        self._store.add(done)
        return done

    def _start(self, takes: Takes, trial: Trial, task: RealTask) -> str:
        """Start the take when the person says so; what is refused can be mended and tried again.

        A policy is not to begin where the one before it left the arm: that is told, and done if it is asked for again.
        Returns that it was.
        """
        self._say(f"  {BEFORE}")
        where = ""
        while True:
            key = self._key()
            try:
                if key == " ":
                    told, where = where, self._away()
                    if told or not where:
                        takes.start(task.instruction, again=True)
                        return where
                    self._say(f"  {where}: h brings the arm home, space once more starts from here")
                elif key == "o":
                    self._compare(trial)
                elif key in ("h", "v"):
                    self._say(f"  {takes.bring_home(key == 'v')}")
            except GraphCallError as error:
                self._say(f"  error: {error}")
            if key == "q":
                raise Quit

    def _away(self) -> str:
        """In words, if the arm is not at home and nothing will put it there."""
        far_rad = self._client.from_home_rad
        away = far_rad > AT_HOME_RAD and not self._client.has(RESET_SIM)
        return f"{far_rad:.2f} rad from home" if away else ""

    def _during(self, task: RealTask, begin_s: float) -> tuple[str, str]:
        """How it ended: by a key, by a simulator's word, by the arm, or by time."""
        self._say(f"  {DURING}; {task.limit_s:g} s")
        while True:
            key, sim = self._key(0.05), self._client.sim
            if key in ("s", "f", "e", "q"):
                return {"s": SUCCESS, "f": FAILURE}.get(key, ERROR), ""
            if sim is not None and sim.done:
                return (SUCCESS if sim.success_once else FAILURE), "the simulator's word"
            if self._client.arm_fault:
                return FAILURE, f"the arm: {self._client.arm_fault}"
            if time.monotonic() - begin_s > task.limit_s:
                return FAILURE, f"not done in {task.limit_s:g} s"

    def _stages(self, task: RealTask, outcome: str) -> int:
        if outcome != FAILURE or not task.stages:
            return len(task.stages) if outcome == SUCCESS else 0
        told = ", ".join(f"{i + 1} {stage}" for i, stage in enumerate(task.stages))
        self._say(f"  how many stages were reached? 0 to {len(task.stages)} ({told})")
        while not ((key := self._key()).isdigit() and int(key) <= len(task.stages)):
            pass
        return int(key)

    def _key(self, wait_s: float = 0.05) -> str:
        """A key, if one is pressed within the time.

        Raises:
            Quit: the input has ended.
            GraphError: the graph has stopped.

        """
        self._client.health()
        self._client.spin(wait_s)
        key = self._bench.keyboard.key()
        if self._bench.keyboard.ended:
            raise Quit
        return key

    def _scene(self, trial: Trial) -> Path:
        return self._bench.folder / "scenes" / f"{trial.task}-{trial.scene}"

    def _compare(self, trial: Trial) -> None:
        """Overlays of the scene as it was for the first policy over the scene as it is now."""
        there = {path.stem: _read(path) for path in sorted(self._scene(trial).glob("*.png"))}
        before = {view: image for view, image in there.items() if view != "wrist"}
        if not before:
            self._say("  the scene is new: whatever is set up now is kept for the other policies")
            return
        compare_views(before, seen_now(list(before)), self._bench.folder / "overlays")

    def _keep_first(self, trial: Trial, bag: str) -> None:
        """Keep the first pictures of the trial that is the first of its scene."""
        folder = self._scene(trial)
        if folder.is_dir():
            return
        try:
            views = first_images(Bag(Path(bag)))
        except BagReadError as error:
            self._say(f"  the scene cannot be kept: {error}")
            return
        folder.mkdir(parents=True)
        for view, image in views.items():
            cv2.imwrite(str(folder / f"{view}.png"), image[..., ::-1])


def _read(path: Path) -> ImageArray:
    return np.asarray(cv2.imread(str(path)), np.uint8)[..., ::-1]


def _listed(*notes: str) -> str:
    return ", ".join(filter(None, notes))


def _line(done: Done, count: int) -> str:
    stages = f", {done.stages} of {done.of} stages" if done.of and done.outcome == FAILURE else ""
    note = f" ({done.note})" if done.note else ""
    return f"  trial {done.number} of {count}: {done.outcome} after {done.time_s:.1f} s{stages}{note}"


@contextmanager
def _signals() -> Iterator[None]:
    """SIGTERM leaves as q does."""

    def leave(*_: object) -> None:
        raise Quit

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
