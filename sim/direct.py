"""The lock-step graph in one process: the same cores with injected time and no topics.

What a tick does and in which order is told in `ARCHITECTURE.md`, "Time". A test checks that an episode here and over
topics leaves the same `Trace`.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from e0_policy.types import ActionChunk, NoChunk, Observation, Stale
from e0_ros.core.chunk_executor import ChunkExecutor, ExecutorConfig, Mode
from e0_ros.core.command import Command
from e0_ros.core.joint_names import gripper_opening
from e0_ros.core.observation_sync import ObservationSync
from e0_ros.core.pairing import SyncConfig
from sim.adapter import SimAdapter
from sim.controllers import Point, Trajectory
from sim.episode import Episode
from sim.rig import JointSample, Rig
from sim.trace import Trace

START_NS = RESET_GAP_NS = 1_000_000_000


class Source(Protocol):
    """What plans: a policy or an expert."""

    def answer(self, observation: Observation | Stale) -> ActionChunk | NoChunk:
        """The answer to an observation."""


@dataclass(frozen=True)
class DirectEpisode:
    """What an episode came to."""

    success: bool
    steps: int
    wall_s: float
    digest: str
    violations: int


class DirectLoop:
    """Runs episodes of an adapter with a source, tick by tick.

    Raises:
        ConfigError: settings that contradict each other.

    """

    def __init__(self, adapter: SimAdapter) -> None:
        adapter.reset(adapter.tasks[0], 0)
        self.rig = Rig(adapter, "joint_trajectory", True, START_NS)
        arm = self.rig.arm.name
        self._executor = ChunkExecutor(ExecutorConfig(embodiment=arm, lockstep=True))
        self._sync = ObservationSync(SyncConfig(views=adapter.views, lockstep=True))
        self._samples: list[JointSample] = []

    def run(self, task: str, seed: int, source: Source, max_steps: int = 0) -> DirectEpisode:
        """Run one episode; the source is already reset to it.

        Raises:
            ValueError: unknown task.
            RuntimeError: the executor cannot be armed, or a tick had no observation.

        """
        rig, trace = self.rig, Trace()
        self._executor.disarm()
        scene = rig.reset(task, seed, rig.now_ns + RESET_GAP_NS)
        episode = Episode(scene, 1, max_steps or scene.max_steps)
        self._arm_at(rig.now_ns - rig.adapter.control_period_ns)
        before = rig.judge.violations if rig.judge else 0
        begin, self._samples = time.perf_counter(), []
        episode.start()
        while episode.running:
            self._tick(episode, source, trace)
        found = (rig.judge.violations if rig.judge else 0) - before
        return DirectEpisode(
            episode.success_once, episode.step, time.perf_counter() - begin, trace.digest(), violations=found
        )

    def _arm_at(self, stamp_ns: int) -> None:
        self._hear([JointSample(stamp_ns, *self.rig.adapter.joint_state())])
        self._sync.add_gripper(stamp_ns, self._opening(), stamp_ns)
        if refusal := self._executor.arm(stamp_ns, stamp_ns):
            raise RuntimeError(f"the executor does not arm: {refusal.reason}")

    def _tick(self, episode: Episode, source: Source, trace: Trace) -> None:
        rig = self.rig
        now_ns, privileged = rig.now_ns, rig.adapter.privileged()
        episode.observe(privileged.success)
        trace.scene(now_ns, np.array(list(privileged.poses.values())))
        seen = self._observe(now_ns)
        if isinstance(seen, Observation):
            arm = rig.arm
            seen = replace(
                seen, instruction=episode.scene.instruction, embodiment=arm.name, joint_names=arm.joint_names
            )
        answer = source.answer(seen)
        if isinstance(answer, ActionChunk):
            self._executor.offer(answer, now_ns)
        tick = self._executor.tick(now_ns)
        if tick.status.reference is not None:
            trace.reference(now_ns, tick.status.reference.position)
        if tick.status.mode is not Mode.DISARMED and np.isfinite(tick.status.gripper_opening):
            rig.gripper_target = min(max(tick.status.gripper_opening, 0.0), 1.0)
        if tick.command is not None:
            rig.command(_trajectory(tick.command, rig.arm.joint_names), now_ns)
        if episode.done:
            episode.stop()
            return
        self._samples = rig.advance(now_ns + rig.adapter.control_period_ns).samples
        episode.step += 1

    def _observe(self, now_ns: int) -> Observation | Stale:
        rig = self.rig
        rig.adapter.start_render()
        self._hear(self._samples or [rig.sample()])
        self._sync.add_gripper(now_ns, self._opening(), now_ns)
        results = [
            result
            for view, image in rig.adapter.finish_render().items()
            for result in self._sync.add_image(view, now_ns, image, now_ns)
        ]
        if len(results) != 1:
            raise RuntimeError(f"{len(results)} observations at {now_ns} ns; a tick has exactly one")
        return results[0]

    def _hear(self, samples: list[JointSample]) -> None:
        for s in samples:
            self._executor.observe_joints(s.stamp_ns, self.rig.arm.joint_names, s.positions, s.velocities)
            self._sync.add_joints(s.stamp_ns, s.positions, s.stamp_ns)

    def _opening(self) -> float:
        """The opening as it arrives over topics: two fingers in metres and back."""
        arm = self.rig.arm
        finger_m = self.rig.adapter.gripper_opening() * (arm.gripper_width_m / 2)
        names = arm.gripper_joint_names
        return gripper_opening(names, [finger_m] * len(names), names, arm.gripper_width_m)


def _trajectory(command: Command, joint_names: tuple[str, ...]) -> Trajectory:
    offsets = (command.times_ns - command.start_ns).tolist()
    points = tuple(Point(offset, q, v, a) for offset, q, v, a in zip(offsets, *command.state, strict=True))
    return Trajectory(command.start_ns, joint_names, points)
