"""A policy in the shadow of a recorded episode: what it would have planned, beside what was done. Nothing moves.

shadow = run_shadow(Bag(path), policy, "teleop")
shadow.errors().mean_rad[0]           # how far its first rows are from what the human did at that time
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from e0_policy.embodiment import Embodiment, load_embodiment
from e0_policy.policy import Policy
from e0_policy.types import ActionChunk, FloatArray, Observation, Representation
from e0_ros.core.bag_reader import Bag
from e0_ros.core.dataset_actions import read_chunk
from e0_ros.core.dataset_bag import describe_bag
from e0_ros.core.dataset_config import ConvertConfig
from e0_ros.core.dataset_frames import EpisodeReader
from e0_ros.core.dataset_table import state_of
from e0_ros.interfaces import SHADOW_CHUNK


class ShadowError(ValueError):
    """A bag and a policy that do not fit each other; the message says why."""


@dataclass(frozen=True)
class Errors:
    """By row of the plans, `(rows,)`: how far they are from what was done, over all plans.

    Attributes:
        ahead_ms: time from the observation to the row.
        mean_rad, p95_rad: mean over joints, and 95th percentile of the worst joint.
        still_rad: the mean of a plan that stays where the arm is: a policy that is no better knows nothing of motion.
        opening: mean difference of the gripper's opening.
        plans: how many plans reach so far within the episode.

    """

    ahead_ms: FloatArray
    mean_rad: FloatArray
    p95_rad: FloatArray
    still_rad: FloatArray
    opening: FloatArray
    plans: FloatArray


@dataclass(frozen=True)
class Shadow:
    """Plans `predicted` `(plans, rows, n + 1)` at `stamps_ns` `(plans,)`, and what was done then: `recorded`, NaN after
    the end of the episode; `states` `(plans, n + 1)` is where the arm was.
    """

    joint_names: tuple[str, ...]
    period_ns: int
    stamps_ns: tuple[int, ...]
    states: FloatArray
    predicted: FloatArray
    recorded: FloatArray

    def errors(self) -> Errors:
        """The open-loop error."""
        known = np.isfinite(self.recorded[..., 0])
        plans = known.sum(axis=0)
        off = np.abs(self.predicted - self.recorded)
        still = np.abs(self.states[:, None] - self.recorded)[..., :-1].mean(axis=2)

        def each(values: FloatArray, summary: Callable[[FloatArray], float]) -> FloatArray:
            return np.array([summary(v[k]) if k.any() else np.nan for v, k in zip(values.T, known.T, strict=True)])

        return Errors(
            ahead_ms=np.arange(len(plans)) * self.period_ns / 1e6,
            mean_rad=each(off[..., :-1].mean(axis=2), lambda v: float(v.mean())),
            p95_rad=each(off[..., :-1].max(axis=2), lambda v: float(np.quantile(v, 0.95))),
            still_rad=each(still, lambda v: float(v.mean())),
            opening=each(off[..., -1], lambda v: float(v.mean())),
            plans=plans.astype(np.float64),
        )


def recorded_shadow(bag: Bag, action: str) -> Shadow:
    """The plans of a policy that watched while an episode was recorded, beside what was done.

    Args:
        bag: an episode of a graph with a policy in the shadow.
        action: what was done: `commanded`, `teleop` or `measured_next`, as in `e0 convert`.

    Raises:
        ShadowError: no policy watched, or the bag holds nothing that was done by that signal.
        BagReadError: the bag is damaged.

    """
    info = describe_bag(bag)
    chunks = [] if SHADOW_CHUNK.name not in bag.topics else _plans(bag, load_embodiment(info.embodiment or "fr3"))
    if not chunks:
        raise ShadowError("no policy watched this take (shadow:=true); --checkpoint DIR has one plan from it now")
    arm = load_embodiment(info.embodiment or "fr3")
    config = ConvertConfig(action=action, gaps="hold", image_height=16, image_width=16)
    reader = EpisodeReader(bag, info, arm, config, info.lockstep)
    seen = (f for f in reader.results() if isinstance(f, Observation) and f.stamp_ns >= reader.start_ns)
    frames = [(frame.stamp_ns, state_of(frame)) for frame in seen]
    rows, period_ns = len(chunks[0].rows), chunks[0].period_ns
    first, last = (frames[0][0], frames[-1][0]) if frames else (0, -1)
    alike = [c for c in chunks if (len(c.rows), c.period_ns) == (rows, period_ns) and first <= c.t0_ns <= last]
    if not alike:
        raise ShadowError("no plan of the policy lies within the episode")
    times = np.array([c.t0_ns for c in alike])[:, None] + period_ns * np.arange(rows)
    stamps = np.array([t for t, _ in frames])
    places = np.clip(np.searchsorted(stamps, times[:, 0], side="right") - 1, 0, None)
    states = np.array([frames[int(place)][1] for place in places])
    recorded = _checked(_recorded(reader, frames, times, action), action)
    predicted = np.array([c.rows for c in alike])
    return Shadow(arm.joint_names, period_ns, tuple(c.t0_ns for c in alike), states, predicted, recorded)


def _plans(bag: Bag, arm: Embodiment) -> list[ActionChunk]:
    read = (read_chunk(bag.decode(message), arm) for message in bag.messages([SHADOW_CHUNK.name]))
    return [chunk for chunk in read if chunk is not None]


def _checked(recorded: FloatArray, action: str) -> FloatArray:
    if not np.isfinite(recorded).any():
        raise ShadowError(f"the bag holds nothing that was done by signal {action}")
    return recorded


def run_shadow(bag: Bag, policy: Policy, action: str, views: tuple[str, ...] = (), every: int = 0) -> Shadow:
    """Let a policy plan from an episode's frames.

    Args:
        bag: an episode.
        policy: sees each frame that it would plan from, without a plan in force; every frame, if it looks back.
        action: what was done: `commanded`, `teleop` or `measured_next`, as in `e0 convert`.
        views: of the policy; empty: those of the bag.
        every: frames (20 Hz) from one plan to the next; 0: the policy's execution horizon.

    Raises:
        ShadowError: another arm, another kind of rows, no frame, or none with an action.
        BagReadError: the bag is damaged or lacks a view.

    """
    config = ConvertConfig(action=action, gaps="hold", views=views)
    info, arm = describe_bag(bag), load_embodiment(policy.embodiment)
    if info.embodiment and info.embodiment != arm.name:
        raise ShadowError(f"the bag is of {info.embodiment}, the policy for {arm.name}")
    at_observations = info.lockstep
    reader = EpisodeReader(bag, info, arm, config, at_observations)
    frames: list[tuple[int, FloatArray]] = []
    plans: list[tuple[int, FloatArray, FloatArray]] = []
    period_ns, every = 0, every or policy.execution_horizon
    observe = getattr(policy, "observe", None)
    policy.reset()
    for frame in reader.results():
        if not isinstance(frame, Observation) or frame.stamp_ns < reader.start_ns:
            continue
        seen = replace(frame, instruction=reader.instruction(frame.stamp_ns), embodiment=arm.name)
        if observe:
            observe(seen)
        if len(frames) % every == 0:
            output = policy.infer(seen, None)
            if output is not None:
                if output.representation is not Representation.JOINT_POSITION:
                    raise ShadowError(f"the policy plans {output.representation.name}; joint positions are compared")
                period_ns = output.period_ns
                plans.append((frame.stamp_ns, state_of(frame), np.asarray(output.rows, np.float64)))
        frames.append((frame.stamp_ns, state_of(frame)))
    if not plans:
        raise ShadowError("the bag has no frame that the policy could plan from")
    times = np.array([t for t, _, _ in plans])[:, None] + period_ns * np.arange(len(plans[0][2]))
    recorded = _checked(_recorded(reader, frames, times, action), action)
    states, rows = np.array([s for _, s, _ in plans]), np.array([r for _, _, r in plans])
    return Shadow(arm.joint_names, period_ns, tuple(t for t, _, _ in plans), states, rows, recorded)


def _recorded(
    reader: EpisodeReader, frames: list[tuple[int, FloatArray]], times: NDArray[np.int64], action: str
) -> FloatArray:
    """What was done at times `(plans, rows)`: `(plans, rows, columns)`, NaN beyond the last frame."""
    stamps, states = np.array([t for t, _ in frames]), np.array([s for _, s in frames])
    done = np.full((*times.shape, states.shape[1]), np.nan)
    for place in zip(*np.nonzero(times <= stamps[-1]), strict=True):
        t = int(times[place])
        if action == "measured_next":
            done[place] = states[min(int(np.searchsorted(stamps, t, side="right")), len(stamps) - 1)]
        elif (row := reader.set_points.at(t)) is not None:
            done[place] = row
    return done
