"""One bag to one episode's work folder: a table of numbers, a video per view, and `episode.json`.

The folder gets its name only when all of it is written and its videos have been counted; a folder of that name is
whole. A bag that is left out leaves none.
"""

from __future__ import annotations

import shutil
from collections import deque
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from e0_policy.embodiment import Embodiment, EmbodimentError, embodiment_names, load_embodiment
from e0_policy.types import FloatArray, Observation, Stale
from e0_ros.core.bag_reader import Bag, BagReadError
from e0_ros.core.dataset_bag import BagInfo, bag_digest, describe_bag
from e0_ros.core.dataset_config import ConvertConfig, Selection
from e0_ros.core.dataset_facts import Facts
from e0_ros.core.dataset_frames import NS_PER_S, EpisodeReader
from e0_ros.core.dataset_stats import histogram
from e0_ros.core.dataset_table import NS_PER_MS, state_of
from e0_ros.core.dataset_video import VideoError, VideoFormat, VideoWriter
from e0_ros.core.dataset_work import finish_episode, write_episode
from e0_ros.core.grading import gap_bounds_ms, grade, is_graded
from e0_ros.core.inspection import short
from e0_ros.core.take import Gatherer, read_take, stream_config, take_of
from e0_ros.interfaces import OBSERVATION

MAX_FRAMES = 1_000_000
MIN_FRAMES = 2


class LeftOut(ValueError):
    """The bag is no episode; the message says why."""


def convert_bag(path: Path, work: Path, config: ConvertConfig, selection: Selection, digest: str = "") -> Facts:
    """Convert one bag into the folder `work`, which must not exist.

    Whatever is wrong with the bag is an answer (`left_out`), never an exception, so that one bag cannot end the others'
    conversion, and leaves no folder, so that the next run looks again. A file system that refuses is an exception.

    Args:
        path: of the bag.
        work: folder to make.
        config: settings.
        selection: which bags are taken.
        digest: `bag_digest` of the bag, if it is known already.

    """
    partial = work.with_name(work.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    facts = Facts(str(path.resolve().name), digest=digest or bag_digest(path))
    try:
        _Episode(path, partial, config, selection, facts).convert()
    except (LeftOut, BagReadError, VideoError, EmbodimentError) as error:
        facts.left_out = str(error)
        shutil.rmtree(partial)
        return facts
    finish_episode(partial, work, facts)
    return facts


class _Episode:
    """One conversion in progress."""

    def __init__(self, path: Path, folder: Path, config: ConvertConfig, selection: Selection, facts: Facts) -> None:
        self._path, self._folder, self._config, self._selection = path, folder, config, selection
        self.facts = facts
        self._writers: dict[str, VideoWriter] = {}
        self._histograms: dict[str, list[NDArray[np.uint32]]] = {}
        self._stamps: list[int] = []
        self._observations: list[Observation] = []

    def convert(self) -> None:
        bag = self._open()
        info = describe_bag(bag)
        arm = self._describe(bag, info)
        self._at = self._at_observations(info)
        gatherer = Gatherer(stream_config(bag).views) if is_graded(bag) else None
        self._reader = EpisodeReader(bag, info, arm, self._config, self._at, gatherer)
        self.facts.views, self.facts.step_names = list(self._reader.views), list(self._reader.step_names)
        if self.facts.step_names and (self._config.action == "teleop" or not self._at):
            raise LeftOut("rows of control steps lie at observations and are commanded; frames=auto, action=commanded")
        try:
            gap = self._read()
            self._reader_checks(gap)
            if gatherer is not None:
                self._judge(bag, gatherer)
            actions = self._actions(arm)
        finally:
            for writer in self._writers.values():
                writer.close()
        self._write(arm, actions)

    def _open(self) -> Bag:
        try:
            return Bag(self._path)
        except BagReadError:
            if not self._config.salvage or not self.facts.digest:
                raise
        bag = Bag(self._path, salvage=True)
        self.facts.salvaged, self.facts.damage = True, bag.damage[:20] or ["its recording did not finish"]
        return bag

    def _describe(self, bag: Bag, info: BagInfo) -> Embodiment:
        facts = self.facts
        for name in ("episode_id", "task", "seed", "instruction", "outcome", "lost", "lost_counted", "lockstep"):
            setattr(facts, name, getattr(info, name))
        facts.recorded_by, facts.recovered_from = info.code_version, info.recovered_from
        if reason := self._selection.refusal(info.outcome, info.task, info.instruction):
            raise LeftOut(reason)
        arm = load_embodiment(self._config.embodiment or _named_arm(bag, info))
        facts.embodiment, facts.joint_names = arm.name, list(arm.joint_names)
        return arm

    def _at_observations(self, info: BagInfo) -> bool:
        self.facts.at_observations = self._config.frames == "observations" or (
            self._config.frames == "auto" and info.lockstep
        )
        return self.facts.at_observations

    def _read(self) -> str:
        """Read the frames up to the episode's end or its first gap; returns what the gap is.

        A frame waits for a second, because what sets its action may come after it.
        """
        pending: deque[Observation | Stale] = deque()
        try:
            for result in self._reader.results():
                if result.stamp_ns >= self._reader.start_ns:
                    pending.append(result)
                if len(pending) > self._config.fps and (gap := self._take(pending.popleft())):
                    return gap
        except BagReadError as error:
            self._salvage(str(error))
        while pending:
            if gap := self._take(pending.popleft()):
                return gap
        return self._tail()

    def _salvage(self, damage: str) -> None:
        if not self._config.salvage:
            raise LeftOut(damage)
        self.facts.salvaged, self.facts.damage = True, [*self.facts.damage, damage][:20]

    def _take(self, frame: Observation | Stale) -> str:
        """Append a frame; returns the gap before it, if there is one."""
        if isinstance(frame, Stale):
            return f"{frame.stream}: {frame.reason}" if self._stamps else ""
        if not self._has_action(frame.stamp_ns):
            self.facts.leading += not self._stamps
            return ""
        if self._stamps and (gap := self._irregular(frame.stamp_ns - self._stamps[-1])):
            return gap
        if len(self._stamps) >= MAX_FRAMES:
            raise LeftOut(f"more than {MAX_FRAMES} frames")
        for view, image in frame.views.items():
            if view not in self._writers:
                height, width = image.shape[:2]
                self.facts.height, self.facts.width = height, width
                form = VideoFormat.of(self._config, height, width)
                self._writers[view] = VideoWriter(self._folder / f"{view}.mp4", form)
            self._writers[view].add(image)
            self._histograms.setdefault(view, []).append(histogram(image))
        self._stamps.append(frame.stamp_ns)
        self._observations.append(_without_images(frame))
        return ""

    def _has_action(self, t: int) -> bool:
        return self._config.action == "measured_next" or self._reader.set_points.has(t)

    def _irregular(self, step_ns: int) -> str:
        """What is wrong with the time from one frame to the next; only observations have times of their own."""
        period_ns = NS_PER_S / self._config.fps
        if abs(step_ns - period_ns) <= 0.25 * period_ns:
            return ""
        return (
            f"observations lie {step_ns / NS_PER_MS:.1f} ms apart; at {self._config.fps} Hz it is "
            f"{period_ns / NS_PER_MS:.1f} ms (frames=grid resamples)"
        )

    def _tail(self) -> str:
        """The gap between the last frame and the end of the episode, if a stream has died."""
        end_ns = self._reader.end_ns or self._reader.last_ns
        missing_ns = end_ns - self._stamps[-1] if self._stamps else 0
        if self._reader.end_ns == 0 and not self.facts.salvaged and self._reader.start_ns:
            self._salvage("the bag has no end of the episode")
        if missing_ns <= 0.5 * NS_PER_S:
            return ""
        return f"no frame in the last {missing_ns / NS_PER_S:.2f} s of the episode: a stream has died"

    def _reader_checks(self, gap: str) -> None:
        if gap and not self.facts.salvaged:
            after_s = (self._stamps[-1] - self._stamps[0]) / NS_PER_S if self._stamps else 0.0
            raise LeftOut(f"a gap after {after_s:.2f} s: {gap}")
        if gap:
            self.facts.damage = [*self.facts.damage, f"taken up to its first gap: {gap}"]
        if len(self._stamps) < MIN_FRAMES:
            cause = "" if self._reader.set_points.start_ns else f" (no set-point of signal {self._config.action})"
            raise LeftOut(f"{len(self._stamps)} frames; at least {MIN_FRAMES} are needed{cause}")

    def _judge(self, bag: Bag, gatherer: Gatherer) -> None:
        """The verdict on the bag, of which a damaged one was read up to its first gap only: it is read again."""
        streams = stream_config(bag)
        if self.facts.salvaged:
            take = read_take(Bag(self._path, salvage=True), streams.views)
        else:
            take = take_of(bag, gatherer)
        self.facts.flags = [short(str(flag)) for flag in grade(take, streams)]
        self.facts.gap_bounds_ms = {name: round(ms, 3) for name, ms in gap_bounds_ms(take, streams).items()}
        if self.facts.flags and self._selection.flagged == "refuse":
            raise LeftOut(f"it is flagged: {'; '.join(self.facts.flags)}")

    def _actions(self, arm: Embodiment) -> FloatArray:
        if self._config.action == "measured_next":
            states = np.array([state_of(o) for o in self._observations])
            return np.concatenate((states[1:], states[-1:]))
        rows = [self._reader.set_points.at(t) for t in self._stamps]
        found = [row for row in rows if row is not None]
        if len(found) != len(rows):
            raise AssertionError("a frame without set-point was taken")
        self.facts.held = sum(self._reader.set_points.held(t) for t in self._stamps)
        return np.array(found)

    def _write(self, arm: Embodiment, actions: FloatArray) -> None:
        facts, reader, frames = self.facts, self._reader, self._observations
        facts.frames, facts.fps, facts.start_ns = len(frames), self._config.fps, self._stamps[0]
        facts.period_ns = round((self._stamps[-1] - self._stamps[0]) / (len(frames) - 1))
        facts.sources = reader.set_points.sources
        for t, frame in zip(self._stamps, frames, strict=True):
            if facts.at_observations and (live := reader.live.get(t)):
                facts.compared += 1
                facts.different += not live.same(frame, reader.views)
        texts = [reader.instruction(t) or facts.task for t in self._stamps]
        facts.instructions = list(dict.fromkeys(texts))
        intervened = [reader.set_points.intervened(t) for t in self._stamps]
        write_episode(self._folder, facts, frames, actions, texts, self._histograms, intervened)


def _named_arm(bag: Bag, info: BagInfo) -> str:
    """The shipped arm that a bag names; a bag may not name files."""
    name = info.embodiment or next((bag.decode(m).embodiment for m in bag.messages([OBSERVATION.name])), "")
    if name not in embodiment_names():
        known = ", ".join(embodiment_names())
        raise LeftOut(f"its arm is {name[:80]!r}; shipped are {known}: give your own with --embodiment")
    return str(name)


def _without_images(frame: Observation) -> Observation:
    return Observation(
        frame.stamp_ns,
        {},
        frame.joint_positions,
        frame.gripper_opening,
        view_skew_ns=frame.view_skew_ns,
        joint_skew_ns=frame.joint_skew_ns,
        gripper_age_ns=frame.gripper_age_ns,
    )
